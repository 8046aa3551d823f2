"""Several services brought up together."""

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_procsup import (
    Loading,
    ProcessSpec,
    ServiceState,
    StartOutcome,
    StartPlan,
    StartResult,
    StateDirs,
    SupervisionError,
    WaitsForMemory,
    WantedState,
    identify,
    probe_service,
    read_pid,
    read_run,
    set_wanted,
    start_all,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
    write_run,
)
from mlx_procsup.service import bring_up
from mlx_procsup.testing import eventually

SpecMaker = Callable[..., ProcessSpec]


def test_a_failing_service_leaves_the_others_alone(dirs: StateDirs, web: SpecMaker) -> None:
    plans = [StartPlan(web("a")), StartPlan(web("b", exit_after_s=0.1, listen_after_s=9))]
    told: list[str] = []
    results = start_all(plans, dirs, on_event=lambda event: told.append(event.name))
    assert [r.outcome for r in results] == [StartOutcome.STARTED, StartOutcome.FAILED]
    assert "exited with status 3" in str(results[1].error)
    assert sorted(told) == ["a", "b"]
    assert probe_service(target_of(plans[0].spec), dirs).state is ServiceState.HEALTHY


def test_starting_again_changes_nothing(dirs: StateDirs, web: SpecMaker) -> None:
    plans = [StartPlan(web("a")), StartPlan(web("b"))]
    first = start_all(plans, dirs)
    again = start_all(plans, dirs)
    assert {r.outcome for r in again} == {StartOutcome.ALREADY_RUNNING}
    assert [r.pid for r in first] == [r.pid for r in again]


def test_starting_again_needs_no_room_on_the_disk(dirs: StateDirs, web: SpecMaker) -> None:
    plan = StartPlan(web("a"))
    bring_up(plan, dirs)
    files = [*dirs.pids.iterdir(), *dirs.run.iterdir()]
    before = [path.stat().st_ino for path in files]
    assert bring_up(plan, dirs).outcome is StartOutcome.ALREADY_RUNNING
    assert [path.stat().st_ino for path in files] == before


def test_services_start_side_by_side(dirs: StateDirs, web: SpecMaker) -> None:
    plans = [StartPlan(web(f"web{n}", listen_after_s=1.0)) for n in range(3)]
    running_at_first_result: list[int] = []

    def look(_: object) -> None:
        running_at_first_result.append(len(list(dirs.pids.iterdir())))

    start_all(plans, dirs, on_event=look)
    assert running_at_first_result[0] == 3


def test_a_service_that_does_not_fit_waits_for_the_other(dirs: StateDirs, web: SpecMaker) -> None:
    gb = 1 << 30
    plans = [StartPlan(web("a", listen_after_s=0.6), 6 * gb), StartPlan(web("b"), 6 * gb)]
    events: list[StartResult | WaitsForMemory] = []
    start_all(plans, dirs, on_event=events.append, read_available_bytes=lambda: 10 * gb)
    assert events[0] == WaitsForMemory("b")
    assert [event.name for event in events[1:]] == ["a", "b"]


def test_how_far_each_is_can_be_followed(dirs: StateDirs, web: SpecMaker) -> None:
    seen: list[Loading] = []
    plans = [StartPlan(web("a", listen_after_s=1.0), 1 << 20), StartPlan(web("b"))]
    start_all(plans, dirs, on_loading=seen.append)
    of_a = [event for event in seen if event.name == "a"]
    assert {event.needs_bytes for event in of_a} == {1 << 20}
    assert of_a[-1].memory_bytes > 0
    assert 0.5 < of_a[-1].seconds < 30


def test_a_changed_command_or_configuration_is_restarted(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web("a")
    first = bring_up(StartPlan(spec), dirs)
    louder = replace(spec, command=(*spec.command, "print-lines=1"))
    second = bring_up(StartPlan(louder), dirs)
    assert second.outcome is StartOutcome.STARTED
    assert second.pid != first.pid
    configured = StartPlan(replace(spec, fingerprint="new configuration"))
    third = bring_up(configured, dirs)
    assert third.outcome is StartOutcome.STARTED
    assert bring_up(configured, dirs).pid == third.pid


def test_a_service_that_is_still_loading_is_waited_for(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web("a", ready_after_s=1.2)
    started = start_service(spec, dirs)
    result = bring_up(StartPlan(spec), dirs)
    assert (result.outcome, result.pid) == (StartOutcome.ALREADY_RUNNING, started.pid)
    assert probe_service(target_of(spec), dirs).state is ServiceState.HEALTHY


def test_a_service_that_is_ready_but_does_no_work_has_failed(
    dirs: StateDirs, web: SpecMaker
) -> None:
    def verify() -> None:
        raise SupervisionError("it answers nonsense")

    result = bring_up(StartPlan(web("a"), verify=verify), dirs)
    assert (result.outcome, str(result.error)) == (StartOutcome.FAILED, "it answers nonsense")
    assert read_pid(dirs, "a") == result.pid


def test_a_hung_service_is_replaced(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web("a")
    started = start_service(spec, dirs)
    wait_for_healthy(started, 10)
    os.kill(started.pid, 19)
    assert eventually(
        lambda: (probe_service(target_of(spec), dirs, timeout_s=0.2).uptime_s or 0) > 1
    )
    result = bring_up(StartPlan(spec), dirs, timeout_s=1.0)
    assert result.outcome is StartOutcome.STARTED
    assert result.pid != started.pid


def test_a_lost_pid_file_is_written_again(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web("a")
    first = bring_up(StartPlan(spec), dirs)
    dirs.pid_file("a").write_text("garbage")
    result = bring_up(StartPlan(spec), dirs)
    assert (result.outcome, result.pid) == (StartOutcome.ALREADY_RUNNING, first.pid)
    assert read_pid(dirs, "a") == first.pid
    dirs.pid_file("a").unlink()
    dirs.run_file("a").write_text("garbage")
    dirs.pid_file("a").write_text(f"{first.pid}\n")
    assert bring_up(StartPlan(spec), dirs).pid == first.pid
    record = read_run(dirs, "a")
    assert record is not None
    assert record.identity is not None


def test_a_stolen_port_is_named_with_its_owner(dirs: StateDirs, web: SpecMaker) -> None:
    thief = web("thief")
    bring_up(StartPlan(thief), dirs)
    victim = replace(web("victim"), readiness=thief.readiness)
    result = bring_up(StartPlan(victim), dirs)
    assert result.outcome is StartOutcome.FAILED
    assert f"is taken by PID {read_pid(dirs, 'thief')} (python" in str(result.error)
    assert read_pid(dirs, "victim") is None


def test_a_user_start_forgets_the_flapping(dirs: StateDirs, web: SpecMaker) -> None:
    spec = web("a")
    bring_up(StartPlan(spec), dirs)
    record = read_run(dirs, "a")
    assert record is not None
    write_run(dirs, "a", replace(record, flapping=True))
    bring_up(StartPlan(spec), dirs)
    record = read_run(dirs, "a")
    assert record is not None
    assert not record.flapping


def test_an_interrupted_start_keeps_what_is_ready_and_stops_the_rest(
    dirs: StateDirs, web: SpecMaker
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    plans = [StartPlan(web("quick")), StartPlan(web("slow", listen_after_s=60))]
    with pytest.raises(KeyboardInterrupt):
        start_all(plans, dirs, on_event=interrupt)
    assert read_pid(dirs, "quick") is not None
    assert read_pid(dirs, "slow") is None


def test_giving_up_while_a_service_is_asked_for_its_work_stops_it_at_once(
    dirs: StateDirs, web: SpecMaker
) -> None:
    gave_up, asked_for_ever = threading.Event(), threading.Event()

    def verify() -> None:
        gave_up.set()
        asked_for_ever.wait()

    result = bring_up(StartPlan(web("a"), verify=verify), dirs, cancelled=gave_up)
    asked_for_ever.set()
    assert result.outcome is StartOutcome.SKIPPED
    assert read_pid(dirs, "a") is None


def test_giving_up_before_the_start_is_skipped(dirs: StateDirs, web: SpecMaker) -> None:
    gave_up = threading.Event()
    gave_up.set()
    assert bring_up(StartPlan(web("a")), dirs, cancelled=gave_up).outcome is StartOutcome.SKIPPED


def test_stopped_stays_stopped_in_the_record(dirs: StateDirs, tmp_path: Path) -> None:
    spec = ProcessSpec("s", ("/bin/sleep", "60"), {"PATH": os.defpath}, tmp_path)
    result = bring_up(StartPlan(spec), dirs)
    assert result.pid is not None
    stop_service("s", dirs)
    assert identify(result.pid) is None
    record = read_run(dirs, "s")
    assert record is not None
    assert record.wanted is WantedState.STOPPED
    set_wanted(dirs, "s", WantedState.RUNNING)
    record = read_run(dirs, "s")
    assert record is not None
    assert record.wanted is WantedState.RUNNING


def test_a_service_whose_files_are_both_lost_is_found_by_port_and_command(
    dirs: StateDirs, web: SpecMaker
) -> None:
    spec = web("a")
    first = bring_up(StartPlan(spec), dirs)
    assert first.pid is not None
    dirs.pid_file("a").unlink()
    dirs.run_file("a").write_text("garbage")
    second = bring_up(StartPlan(spec), dirs)
    assert second.outcome is StartOutcome.STARTED
    assert identify(first.pid) is None
    assert read_pid(dirs, "a") == second.pid
