"""What a panic of the Mac means for the tiers: the reports, the tier, and how it is started."""

import itertools
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup import ProcessIdentity, RunRecord, identify
from mlx_procsup.statefiles import readable_run, write_run
from mlx_procsup.testing import eventually
from mlx_stack import json_file
from mlx_stack.engines.vllm_mlx import Serving
from mlx_stack.errors import InvalidFileError
from mlx_stack.home import Home
from mlx_stack.services import panics
from mlx_stack.services.panic_reports import (
    FOLDER_VARIABLE,
    PanicReport,
    parse_report,
    read_reports,
)
from mlx_stack.services.panics import (
    Panic,
    Record,
    Standing,
    Suspect,
    decide_standing,
    forgive,
    smaller,
    smaller_serving,
    take,
    tie,
)
from mlx_stack.stack import Tier
from stack_testkit.home import define_stack
from stack_testkit.panic import panic_report
from stack_testkit.program import Program

DAY_S, HOUR_S = 86_400.0, 3_600.0
TIMES = st.lists(st.floats(0, 30 * DAY_S), max_size=8)
SUSPECTS = st.lists(
    st.builds(
        lambda tier, pid, began, for_s: Suspect(tier, pid, began, began + for_s),
        st.sampled_from(["standard", "fast", "longctx"]),
        st.integers(100, 105),
        st.floats(0, 1000),
        st.floats(0, 1000),
    ),
    max_size=6,
)


def test_one_panic_changes_nothing_two_in_a_day_make_a_tier_smaller_and_one_more_ends_it() -> None:
    assert decide_standing([]) is Standing.AS_DEFINED
    assert decide_standing([0]) is Standing.AS_DEFINED
    assert decide_standing([0, 23 * HOUR_S]) is Standing.SMALLER
    assert decide_standing([0, 25 * HOUR_S]) is Standing.AS_DEFINED
    assert decide_standing([0, 600, 1200]) is Standing.NOT_AT_ALL
    assert decide_standing([0, 600, 9 * DAY_S]) is Standing.NOT_AT_ALL, "being smaller was no help"


@given(TIMES)
def test_a_tier_that_is_started_at_all_has_not_panicked_the_mac_three_times_in_a_day(
    times: list[float],
) -> None:
    ordered = sorted(times)
    three = any(c - a <= DAY_S for a, c in zip(ordered, ordered[2:], strict=False))
    two = any(b - a <= DAY_S for a, b in itertools.pairwise(ordered))
    standing = decide_standing(times)
    assert standing is decide_standing(ordered), "reports may come in any order"
    assert not three or standing is Standing.NOT_AT_ALL
    assert two is (standing is not Standing.AS_DEFINED)


@given(TIMES, st.floats(0, 30 * DAY_S))
def test_another_panic_never_makes_it_better(times: list[float], more: float) -> None:
    ranks = list(Standing)
    before, after = decide_standing(times), decide_standing([*times, more])
    assert ranks.index(after) >= ranks.index(before)


@given(SUSPECTS, st.floats(0, 2100), st.none() | st.integers(98, 107))
def test_a_panic_is_held_against_a_tier_that_was_there_and_named_by_the_kernel_if_any(
    suspects: list[Suspect], at: float, pid: int | None
) -> None:
    panic = tie(PanicReport("panic-full-1.ips", at, pid, "words"), suspects)
    there = [each for each in suspects if each.started_at - 2 <= at <= each.seen_at]
    assert (panic.tier is None) is (not there)
    if panic.tier is not None:
        ours = [each for each in there if each.tier == panic.tier]
        assert ours
        named = [each for each in there if each.pid == pid]
        assert not named or any(each.tier == panic.tier for each in named)
        if not named:
            assert max(each.started_at for each in there) == max(each.started_at for each in ours)


def test_a_tier_that_was_just_started_is_the_one_and_was_loading() -> None:
    suspects = [Suspect("fast", 10, 0, 5000), Suspect("standard", 11, 3900, 5000)]
    panic = tie(PanicReport("a", 4000, None, "words"), suspects)
    assert (panic.tier, panic.was) == ("standard", "loading")
    panic = tie(PanicReport("a", 4000, 10, "words"), suspects)
    assert (panic.tier, panic.was) == ("fast", "running")


@pytest.mark.parametrize("form", ["ips", "panic"])
def test_apples_reports_say_when_over_which_process_and_in_which_words(form: str) -> None:
    name, text = panic_report(1_790_000_000.0, pid=4242, form=form)
    report = parse_report(name, text)
    assert report is not None
    assert report.at == 1_790_000_000.0
    assert report.pid == 4242
    assert report.reason.startswith('"completeMemory() prepare count underflow"')


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]\n{}",
        "panic(cpu 0 caller 0x1): words",
        '{"bug_type":"309","timestamp":"2026-01-02 03:04:05.00 +0100"}\npanic(cpu 0 caller 0x1): x',
        '{"bug_type":"210","timestamp":"2026-01-02 03:04:05.00"}\npanic(cpu 0 caller 0x1): x',
        '{"bug_type":"210","timestamp":"9999-99-99 03:04:05.00 +0100"}\npanic(cpu 0 caller 0x1): x',
        '{"bug_type":"210","timestamp":7}\npanic(cpu 0 caller 0x1): x',
        '{"bug_type":"210","timestamp":"2026-01-02 03:04:05.00 +0100"}\n{"panicString": [1]}',
        '{"bug_type":"210","timestamp":"2026-01-02 03:04:05.00 +0100"}\n{"panicStr',
    ],
)
def test_what_is_no_report_of_a_panic_or_only_half_of_one_tells_nothing(text: str) -> None:
    assert parse_report("panic-full-1.ips", text) is None


@given(st.text())
def test_no_text_upsets_the_reader(text: str) -> None:
    parse_report("a.panic", text)
    head = '{"bug_type":"210","timestamp":"2026-01-02 03:04:05.00 +0100"}\n'
    report = parse_report("a.panic", f"{head}panic(cpu 0 caller 0x1): {text}")
    assert report is None or report.reason.isprintable()


def test_only_panics_are_read_and_each_once(tmp_path: Path) -> None:
    name, text = panic_report(1_790_000_000.0, pid=None)
    (tmp_path / name).write_text(text)
    (tmp_path / "python3.13-2026-01-01-120000.ips").write_text(text)
    (tmp_path / "panic-full-folder.ips").mkdir()
    (tmp_path / "panic-full-damaged.ips").write_bytes(b"\xff\x00" * 50)
    assert [each.name for each in read_reports(tmp_path)] == [name]
    assert list(read_reports(tmp_path, {name})) == []


def test_a_folder_that_is_not_there_is_no_problem(tmp_path: Path) -> None:
    assert list(read_reports(tmp_path / "none")) == []


def _died(home: Home, tier: str, started_at: float, pid: int = 2**22 - 3) -> None:
    """Leave behind what a process leaves that was there when the machine went down."""
    identity = ProcessIdentity(pid, started_at, started_at - 50, "of another boot")
    home.state_dirs.create()
    write_run(home.state_dirs, tier, RunRecord(identity=identity, started_at=started_at))


def test_what_died_in_a_panic_stays_known_when_the_report_comes_after_the_next_start(
    tmp_path: Path,
) -> None:
    home, reports, now = Home(tmp_path / "home"), tmp_path / "reports", time.time()
    home.create()
    reports.mkdir()
    _died(home, "standard", now - 300)
    assert take(home, reports, now - 100) == ()

    alive = identify(1)
    assert alive is not None
    write_run(home.state_dirs, "standard", RunRecord(identity=alive, started_at=now - 90))
    name, text = panic_report(now - 200, pid=None)
    (reports / name).write_text(text)
    (panic,) = take(home, reports, now)
    assert (panic.tier, panic.was) == ("standard", "loading")
    assert take(home, reports, now) == (), "each panic is told once"
    assert panics.read(home).held_against("standard") == (panic,)


def test_a_panic_from_before_a_tier_was_started_is_not_held_against_it(tmp_path: Path) -> None:
    home, reports, now = Home(tmp_path / "home"), tmp_path / "reports", time.time()
    home.create()
    reports.mkdir()
    _died(home, "standard", now - 300)
    name, text = panic_report(now - 400, pid=None)
    (reports / name).write_text(text)
    assert take(home, reports, now) == ()
    assert panics.read(home).standing("standard") is Standing.AS_DEFINED


def test_where_macos_keeps_no_reports_nothing_is_written(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    _died(home, "standard", time.time() - 300)
    assert take(home, tmp_path / "reports", time.time()) == ()
    assert not home.panics.exists()


def test_what_the_user_names_to_start_it_begins_anew(tmp_path: Path) -> None:
    home = Home(tmp_path)
    old = tuple(Panic(str(at), at, "words", tier) for at in (1, 2, 9) for tier in ("a", "b"))
    json_file.write(home.panics, Record(panics=old))
    forgive(home, ["a"], now=5.0)  # the clock went back: the panic of 9 has happened all the same
    record = panics.read(home)
    assert (record.standing("a"), record.standing("b")) == (
        Standing.AS_DEFINED,
        Standing.NOT_AT_ALL,
    )


def test_a_damaged_record_is_named_with_what_to_do(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.panics.write_text("{")
    with pytest.raises(InvalidFileError) as caught:
        panics.read(home)
    assert "Delete it" in (caught.value.hint or "")


@given(st.none() | st.integers(1, 2**20), st.integers(1, 64))
def test_smaller_is_never_larger(context: int | None, concurrency: int) -> None:
    tier = Tier(
        name="standard",
        model="m",
        quant=None,
        source="/m",
        port=8000,
        vllm_flags={},
        context_tokens=context,
        concurrency=concurrency,
    )
    less = smaller(tier)
    assert less.concurrency == 1
    assert less.context_tokens is not None
    assert context is None or less.context_tokens <= context


def test_smaller_serves_with_less_memory_for_prefixes_and_shorter_pieces() -> None:
    less = smaller_serving(Serving(cache_bytes=2**30, prefill_step=2048))
    assert (less.cache_bytes, less.prefill_step) == (2**29, 256)
    assert smaller_serving(Serving(prefill_step=128)).prefill_step == 128


def test_words_say_how_often_and_what_follows() -> None:
    def record(count: int) -> Record:
        return Record(panics=tuple(Panic(str(at), at, "words", "a") for at in range(count)))

    assert panics.words_of("a", record(0)) == ""
    assert panics.words_of("a", record(1)).endswith(
        "panicked once while it was running, last with words"
    )
    assert "half its context" in panics.words_of("a", record(2))
    assert "`mlx-stack up --tier a`" in panics.words_of("a", record(3))


@contextmanager
def _booted(program: Program) -> Iterator[None]:
    """The stack as launchd starts it at boot, until the whole Mac goes down."""
    log = program.home.state_dirs.log_file("watchdog")
    boots = log.read_text().count(": watching ") if log.exists() else 0
    watch = program.start("watch", "--up", "--interval", "0.2", "--quiet")
    try:
        assert eventually(
            lambda: log.exists() and log.read_text().count(": watching ") > boots, 120
        ), "what it could start is ready then"
        yield
    finally:
        watch.kill()
        watch.communicate()
        for path in program.home.pids.glob("*.pid"):
            with suppress(OSError, ValueError):
                pid = int(path.read_text())
                os.killpg(pid, signal.SIGKILL)
                assert eventually(lambda pid=pid: identify(pid) is None)


def _panic(program: Program, reports: Path) -> None:
    """What macOS leaves behind when it has panicked over the tier `standard`."""
    record = readable_run(program.home.state_dirs, "standard")
    assert record is not None
    assert record.identity is not None
    name, text = panic_report(time.time(), pid=record.identity.pid)
    (reports / name).write_text(text)


def _row(program: Program, name: str) -> dict[str, object]:
    document = program.run("status", "--json").document
    return next(row for row in document["services"] if row["name"] == name)


def _command(program: Program) -> str:
    record = readable_run(program.home.state_dirs, "standard")
    assert record is not None
    return " ".join(record.command)


@pytest.mark.story
def test_a_tier_that_panics_the_mac_at_each_boot_is_started_smaller_and_then_not_at_all(
    served: Program, tmp_path: Path
) -> None:
    reports = tmp_path / "reports"
    reports.mkdir()
    served = replace(served, variables={**served.variables, FOLDER_VARIABLE: str(reports)})
    sizes = {"context_tokens": 32_768, "concurrency": 4}
    define_stack(served.home, {"standard": {}, "fast": {}}, fields={"standard": sizes})
    with _booted(served):
        assert "--max-num-seqs 4" in _command(served)
    _panic(served, reports)
    with _booted(served):
        assert "--max-num-seqs 4" in _command(served)
        assert "panic 1" in served.run("usage").out
    time.sleep(1.1)  # a report has the second of its panic in its name
    _panic(served, reports)
    with _booted(served):
        assert "--max-num-seqs 4" not in _command(served)
        assert "--prefill-step-size 256" in _command(served)
        assert "half its context" in served.run("status").out
        assert "context_tokens: 16384" in served.home.gateway_settings.read_text()
    time.sleep(1.1)
    _panic(served, reports)
    with _booted(served):
        shown = served.run("status")
        assert shown.code == 3
        assert "`mlx-stack up --tier standard`" in shown.out
        assert "panicked 3 times" in served.run("doctor").out
        assert "the Mac panicked while it was loading" in served.run("logs", "watchdog").out

        plain = served.run("up")
        assert plain.code == 1
        assert "the Mac panicked 3 times" in plain.out + plain.err
        assert _row(served, "standard")["loaded"] is False
        named = served.run("up", "--tier", "standard")
        assert named.code == 0, named.err
        assert "--max-num-seqs 4" in _command(served)
        assert _row(served, "standard")["after_panics"] is None
