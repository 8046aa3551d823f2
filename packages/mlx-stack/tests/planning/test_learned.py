"""What the requests to a stack's tiers tell of their speed, and whether it changed."""

import time
from dataclasses import replace
from typing import Any

import pytest

from mlx_catalog import Quant
from mlx_gateway.ledger import Ledger, LedgerEvent, RequestRow
from mlx_recommend import Basis
from mlx_stack.doctor.running import check_speed
from mlx_stack.gateway.events import START, UPGRADE
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import estimate_model
from mlx_stack.planning.recommend import Constraints, recommend
from mlx_stack.stack import Stack, Tier, save_stack

NOW = time.time()
DAY = 86_400
SERVES = "qwen3-8b int4"
ROW = RequestRow(
    at=NOW - DAY, key="laptop", program="claude-cli", model="qwen3-8b", tier="standard",
    protocol="messages", status=200, seconds=3.0, ttft_s=2.0, generation_tps=61.0,
    prompt_tokens=1024, cached_tokens=0, completion_tokens=200, was_alone=True,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _stack(home: Home) -> None:
    tier = Tier(
        name="standard", model="qwen3-8b", quant=Quant.INT4,
        source="mlx-community/Qwen3-8B-4bit", port=8000, vllm_flags={},
    )  # fmt: skip
    home.create()
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))


def note(home: Home, *rows: RequestRow | LedgerEvent) -> None:
    ledger = Ledger(home.ledger)
    for row in rows:
        ledger.note(row)
    ledger.close()


def some(count: int = 20, **changes: Any) -> list[RequestRow]:
    return [replace(ROW, **changes) for _ in range(count)]


def expected(home: Home, **options: Any) -> Any:
    return estimate_model(OpenStack(home), "qwen3-8b", **options).estimate


def test_requests_correct_the_estimate_and_the_recommendation(home: Home) -> None:
    note(home, *some())

    found = expected(home)

    assert (found.generation_tps.basis, found.prompt_tps.basis) == (Basis.MEASURED,) * 2
    assert found.generation_tps.value == pytest.approx(61.0)
    assert found.prompt_tps.value == pytest.approx(512.0)
    ranking = recommend(OpenStack(home), Constraints()).plan.ranking
    tier = next(each for each in ranking if each.candidate.model == "qwen3-8b")
    assert tier.generation_tps == pytest.approx(61.0)
    assert expected(home, use_measured=False).generation_tps.basis is Basis.ESTIMATE


@pytest.mark.parametrize(
    "changes",
    [{"count": 7}, {"was_alone": False}, {"queue_s": 3.0}, {"completion_tokens": 20},
     {"at": NOW - 40 * DAY}, {"status": 502}],
    ids=["few", "not-alone", "queued", "short", "old", "failed"],
)  # fmt: skip
def test_requests_that_tell_little_are_no_evidence(home: Home, changes: dict[str, Any]) -> None:
    note(home, *some(**changes))

    assert expected(home).generation_tps.basis is not Basis.MEASURED


def test_a_prompt_that_a_cache_helped_tells_nothing_of_reading(home: Home) -> None:
    note(home, *some(cached_tokens=900))

    found = expected(home)

    assert found.generation_tps.basis is Basis.MEASURED
    assert found.prompt_tps.basis is not Basis.MEASURED


def test_they_tell_of_this_machine_only(home: Home) -> None:
    note(home, *some())

    assert expected(home, hardware_spec="m4-max:40:128").generation_tps.basis is Basis.ESTIMATE


def test_what_the_tier_served_before_tells_nothing_of_what_it_serves_now(home: Home) -> None:
    before = LedgerEvent(NOW - 3 * DAY, START, "standard", "qwen3-8b int8")
    note(home, before, *some(at=NOW - 2 * DAY))
    assert expected(home).generation_tps.basis is not Basis.MEASURED, "not started yet"

    note(
        home,
        LedgerEvent(NOW - DAY, START, "standard", SERVES),
        *some(generation_tps=75.0, at=NOW - 60),
    )
    assert expected(home).generation_tps.value == pytest.approx(75.0)


def test_the_newest_of_requests_and_benchmarks_counts(home: Home) -> None:
    note(home, *some())
    home.benchmarks.mkdir()
    result = (
        '{"schema_version": 1, "target": "standard", "model": "qwen3-8b", "quant": "int4",'
        ' "parameters": {"iterations": 3, "prompt_tokens": 1024, "concurrency": 1}, "machine": {},'
        ' "started_at": "%s", "summary": {"generation_tps": {"value": 88.5}}, "runs": [],'
        ' "cautions": []}'
    )
    path = home.benchmarks / "one.json"

    path.write_text(result % "2020-01-01T00:00:00+00:00")
    assert expected(home).generation_tps.value == pytest.approx(61.0)
    path.write_text(result % "2999-01-01T00:00:00+00:00")
    assert expected(home).generation_tps.value == pytest.approx(88.5)


def test_a_damaged_ledger_leaves_the_estimate_as_it_was(home: Home) -> None:
    home.ledger.write_bytes(b"no database " * 50)

    assert expected(home).generation_tps.basis is not Basis.MEASURED


def findings(home: Home) -> list[str]:
    return [each.message for each in check_speed(OpenStack(home))]


def test_the_doctor_names_a_speed_that_fell_with_an_upgrade(home: Home) -> None:
    upgraded_at = NOW - 3 * DAY
    note(
        home,
        *some(at=upgraded_at - DAY),
        LedgerEvent(upgraded_at, UPGRADE, "", "vllm-mlx 0.5.0 → 0.6.0"),
        *some(at=upgraded_at + DAY, generation_tps=50.0),
    )

    (found,) = check_speed(OpenStack(home))

    day = time.strftime("%-d %B", time.localtime(upgraded_at))
    assert found.message == f"decode of `standard` fell 18 % since the engine upgrade of {day}."
    assert found.severity == "warning"
    assert "vllm-mlx 0.5.0 → 0.6.0" in found.reason
    assert expected(home).generation_tps.value == pytest.approx(50.0), "the old speed is gone"


def test_the_doctor_names_a_speed_that_changed_within_a_week(home: Home) -> None:
    note(home, *some(at=NOW - 20 * DAY), *some(generation_tps=90.0, ttft_s=4.0))

    assert findings(home) == [
        "prefill of `standard` fell 50 % in a week.",
        "decode of `standard` rose 48 % in a week.",
    ]


@pytest.mark.parametrize(
    "after",
    [{"generation_tps": 56.0}, {"count": 3, "generation_tps": 10.0},
     {"generation_tps": 30.0, "prompt_tokens": 9000, "ttft_s": 17.6}],
    ids=["a little", "few", "longer prompts"],
)  # fmt: skip
def test_the_doctor_is_silent_about_what_is_no_change(home: Home, after: dict[str, Any]) -> None:
    note(home, *some(at=NOW - 20 * DAY), *some(**after))

    assert findings(home) == ["No tier has become notably slower or faster."]


def test_without_a_stack_or_a_ledger_there_is_nothing_to_say(home: Home) -> None:
    assert findings(home) == ["No tier has become notably slower or faster."]
    home.stack.unlink()
    assert findings(home) == ["No tier has become notably slower or faster."]
