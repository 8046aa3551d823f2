"""What a ledger says of its requests."""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway import usage as usage_module
from mlx_gateway.ledger import Ledger, LedgerEvent, RequestRow
from mlx_gateway.sums import Sums, percentile
from mlx_gateway.usage import By, Price, clean_requests, parse_since, read_usage, typical

NOON = datetime.fromisoformat("2026-11-20T12:00").timestamp()
DAY = 86_400
ROW = RequestRow(
    at=NOON, key="laptop", program="claude-cli", model="qwen3-8b", tier="standard",
    protocol="messages", status=200, seconds=4.5, ttft_s=0.5, generation_tps=50.0,
    prompt_tokens=1000, cached_tokens=0, completion_tokens=200, was_alone=True,
)  # fmt: skip


def ledger_with(folder: Path, *rows: RequestRow | LedgerEvent) -> Path:
    path = folder / "ledger.db"
    ledger = Ledger(path, clock=lambda: NOON)
    for row in rows:
        ledger.note(row)
    ledger.close()
    return path


def test_requests_are_told_apart_by_model_key_and_day(tmp_path: Path) -> None:
    path = ledger_with(
        tmp_path,
        ROW,
        replace(ROW, key="phone", model="qwen3-0.6b", at=NOON - DAY, cached_tokens=600),
        replace(ROW, status=500, ttft_s=None, generation_tps=None, completion_tokens=None),
        replace(ROW, status=499, ttft_s=0.7),
    )

    def rows(by: By) -> dict[str, int]:
        found = read_usage(path, since=NOON - 7 * DAY, until=NOON + 1, by=by)
        assert found.totals.requests == 4
        assert found.totals.failed == 1, "a client that leaves is no failure"
        return {name: each.requests for name, each in found.rows.items()}

    assert rows(By.MODEL) == {"qwen3-8b": 3, "qwen3-0.6b": 1}
    assert rows(By.KEY) == {"laptop": 3, "phone": 1}
    assert rows(By.DAY) == {"2026-11-19": 1, "2026-11-20": 3}
    document = read_usage(path, since=NOON - 7 * DAY, until=NOON + 1).totals.to_document()
    assert document == {
        "requests": 4,
        "failed": 1,
        "prompt_tokens": 4000,
        "cached_tokens": 600,
        "completion_tokens": 600,
        "ttft_s": {"p50": 0.5, "p95": 0.7},
        "generation_tps": {"p50": 50.0},
    }


def test_without_a_ledger_there_is_nothing_and_no_percentile_is_made_up(tmp_path: Path) -> None:
    found = read_usage(tmp_path / "ledger.db", since=0, until=NOON)

    assert found.totals.to_document()["ttft_s"] == {"p50": None, "p95": None}
    assert (found.rows, found.availability, found.events) == ({}, {}, ())
    assert list(tmp_path.iterdir()) == []


def test_only_the_time_asked_for_counts(tmp_path: Path) -> None:
    path = ledger_with(tmp_path, *(replace(ROW, at=NOON - 3600 * hour) for hour in range(48)))

    for hours in (1, 5, 30, 47):
        found = read_usage(path, since=NOON - 3600 * hours, until=NOON + 1)
        assert found.totals.requests == hours + 1


def test_long_ago_is_told_from_the_sums_of_its_days(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        replace(ROW, at=NOON - 3600 * hour, ttft_s=0.1 + hour / 100, key=("a", "b")[hour % 2])
        for hour in range(24 * 12)
    ]
    path = ledger_with(tmp_path, *rows)
    since = NOON - 10 * DAY - 60

    for by in By:
        exact = read_usage(path, since=since, until=NOON + 1, by=by)
        with monkeypatch.context() as less:
            less.setattr(usage_module, "_LOOKED_AT", 20)
            summed = read_usage(path, since=since, until=NOON + 1, by=by)
        assert exact.totals.requests == 241
        assert summed.rows.keys() == exact.rows.keys()
        for name, each in summed.rows.items():
            other = exact.rows[name]
            assert (each.requests, each.prompt_tokens) == (other.requests, other.prompt_tokens)
            assert each.ttft_s(0.5) == pytest.approx(other.ttft_s(0.5), rel=0.011)
            assert each.ttft_s(0.95) == pytest.approx(other.ttft_s(0.95), rel=0.011)


def test_what_happened_to_the_machine_is_told_in_its_order(tmp_path: Path) -> None:
    path = ledger_with(
        tmp_path,
        LedgerEvent(NOON - 60, "start", "standard", "qwen3-8b int4"),
        LedgerEvent(NOON, "wedge", "fast"),
    )

    events = read_usage(path, since=NOON - 3600, until=NOON + 1).events

    assert [(each.what, each.service) for each in events] == [
        ("start", "standard"),
        ("wedge", "fast"),
    ]


@pytest.mark.parametrize(
    ("change", "prefill", "decode"),
    [
        ({}, 2000.0, 50.0),
        ({"cached_tokens": 500}, None, 50.0),
        ({"cached_tokens": None}, None, 50.0),
        ({"prompt_tokens": 100}, None, 50.0),
        ({"completion_tokens": 10}, 2000.0, None),
        ({"queue_s": 0.04}, 1000 / 0.46, 50.0),
    ],
    ids=["clean", "reused", "reuse-unknown", "short-prompt", "short-answer", "a-moment"],
)
def test_a_request_tells_the_speeds_that_nothing_else_made(
    tmp_path: Path, change: dict[str, object], prefill: float | None, decode: float | None
) -> None:
    path = ledger_with(tmp_path, replace(ROW, **change))

    (found,) = clean_requests(path, "standard", NOON - 60)

    assert found.prompt_tps == (None if prefill is None else pytest.approx(prefill))
    assert found.generation_tps == decode


@pytest.mark.parametrize(
    "change",
    [{"was_alone": False}, {"queue_s": 0.2}, {"status": 502}, {"tier": "fast"}, {"at": NOON - DAY}],
    ids=str,
)
def test_a_request_that_waited_or_shared_tells_no_speed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    assert (
        clean_requests(ledger_with(tmp_path, replace(ROW, **change)), "standard", NOON - 60) == ()
    )


def test_few_requests_are_no_evidence(tmp_path: Path) -> None:
    path = ledger_with(tmp_path, *(replace(ROW, generation_tps=40.0 + n) for n in range(9)))
    found = clean_requests(path, "standard", NOON - 60)

    assert typical(found, "generation_tps", least=9) == (44.0, 1000)
    assert typical(found, "generation_tps", least=10) is None


def test_days_are_the_local_ones_through_a_change_of_the_clocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        begin = datetime.fromisoformat("2026-10-30")
        rows = [
            replace(ROW, at=(begin + timedelta(hours=hour)).timestamp()) for hour in range(24 * 4)
        ]
        path = ledger_with(tmp_path, *rows)
        found = read_usage(path, since=begin.timestamp(), until=NOON, by=By.DAY)
    finally:
        monkeypatch.undo()
        time.tzset()

    assert list(found.rows) == ["2026-10-30", "2026-10-31", "2026-11-01", "2026-11-02"]
    assert sum(each.requests for each in found.rows.values()) == 96


@given(st.lists(st.integers(0, 10_000), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_one_of_the_values_with_enough_below_it(
    values: list[int], share: float
) -> None:
    counts = {value: values.count(value) for value in values}

    found = percentile(counts, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9
    assert sum(value < found for value in values) < share * len(values)


@given(st.lists(st.integers(0, 10**9), min_size=1))
def test_steps_are_small(values: list[int]) -> None:
    for value in values:
        sums = Sums()
        sums.add((200, 1, 1, 1, value, None), in_steps=True)
        assert list(sums.ttft_us) == [pytest.approx(value, rel=0, abs=0.0101 * value + 0.51)]


def test_reused_tokens_cost_the_same_where_no_price_says_less() -> None:
    used = Sums(prompt_tokens=3_000_000, cached_tokens=1_000_000, completion_tokens=500_000)

    assert Price(prompt=2, completion=4).of(used) == pytest.approx(8)
    assert Price(prompt=2, completion=4, cached=0).of(used) == pytest.approx(6)


def test_times_are_ages_or_dates() -> None:
    assert parse_since("30m", 10_000) == 10_000 - 1800
    assert parse_since("2w", 0) == -14 * 86_400
    day = datetime.fromisoformat("2026-11-01").timestamp()
    assert parse_since("2026-11-01", NOON) == day
    assert parse_since("2026-11-01T12:00:00+00:00", NOON) == 1793534400


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "1.5h", "7 days", "99999999d", "0001"])
def test_other_words_are_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="isn't a time"):
        parse_since(text, NOON)


def test_what_was_read_again_is_told_by_client_and_reason(tmp_path: Path) -> None:
    grown = replace(ROW, program="opencode", prefix="grown", reread_tokens=0)
    line = replace(grown, prefix="system", prefix_place=3, reread_tokens=900, reread_s=1.5)
    edited = replace(grown, program="aider", prefix="message", reread_tokens=100)
    path = ledger_with(
        tmp_path,
        replace(grown, prefix="new", reread_tokens=0), grown, *[line] * 4,
        replace(edited, prefix_place=7), replace(edited, prefix_place=9, reread_s=0.5),
        replace(line, at=NOON - 30 * DAY), ROW,
    )  # fmt: skip

    first, second = read_usage(path, since=NOON - 7 * DAY, until=NOON + 1).rereads

    assert first.words == "line 3 of opencode's system prompt changes each turn"
    assert (first.requests, first.turns, first.tokens, first.seconds) == (4, 5, 3600, 6.0)
    assert first.untimed == {}
    assert second.words == "an earlier message in aider's history changed"
    assert (second.requests, second.tokens, second.seconds) == (2, 200, 0.5)
    assert second.untimed == {"qwen3-8b": 100}, "whose time nobody measured"
    assert read_usage(path, since=NOON + 1, until=NOON + 2).rereads == ()
