"""Starting and stopping with real processes."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from mlx_procsup import (
    AlreadyRunningError,
    CommandNotFoundError,
    ExitedEarlyError,
    HttpReadiness,
    LastLook,
    LoadTimeout,
    ProbeTarget,
    ProcessSpec,
    ReadinessTimeoutError,
    ServiceState,
    StartFailedError,
    StartOutcome,
    StartPlan,
    StateDirs,
    StateFileError,
    StopOutcome,
    SupervisionError,
    WantedState,
    Wedge,
    bring_up,
    identify,
    is_alive,
    probe_service,
    read_pid,
    read_run,
    start_detached,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
)
from mlx_procsup.identity import reap
from mlx_procsup.located import group_members
from mlx_procsup.looks import write_last_look
from mlx_procsup.testing import eventually, free_port

SpecMaker = Callable[..., ProcessSpec]

PATH = {"PATH": os.defpath}


def shell(name: str, script: str, tmp_path: Path, **fields: object) -> ProcessSpec:
    spec = ProcessSpec(name, ("/bin/sh", "-c", script), PATH, tmp_path)
    return replace(spec, **fields)


def test_a_started_service_becomes_healthy_and_stops_gracefully(
    dirs: StateDirs, web: SpecMaker
) -> None:
    started = start_service(web(), dirs)
    ready = wait_for_healthy(started, 10)
    assert ready.seconds < 5
    assert dirs.pid_file("web").read_text() == f"{started.pid}\n"
    result = stop_service("web", dirs)
    assert result.outcome is StopOutcome.STOPPED
    assert result.pid == started.pid
    assert identify(started.pid) is None
    assert not dirs.pid_file("web").exists()
    record = read_run(dirs, "web")
    assert record is not None
    assert record.wanted is WantedState.STOPPED


def test_a_service_runs_in_its_own_session_with_closed_input(
    dirs: StateDirs, tmp_path: Path
) -> None:
    script = "read line; echo read returned $?; pwd; exec sleep 60"
    started = start_service(shell("own", script, tmp_path), dirs)
    assert os.getsid(started.pid) == started.pid
    assert eventually(lambda: str(tmp_path) in started.log_path.read_text())
    assert started.log_path.read_text() == f"read returned 1\n{tmp_path}\n"


def test_the_environment_is_exactly_what_was_given(dirs: StateDirs, tmp_path: Path) -> None:
    script = "import os,json,time; print(json.dumps(dict(os.environ)), flush=True); time.sleep(60)"
    spec = ProcessSpec("env", (sys.executable, "-I", "-c", script), {"ONLY": "this one"}, tmp_path)
    started = start_service(spec, dirs)
    assert eventually(lambda: started.log_path.read_text().endswith("}\n"))
    shown = started.log_path.read_text()
    # the interpreter itself may add LC_CTYPE
    assert shown.replace(', "LC_CTYPE": "C.UTF-8"', "") == '{"ONLY": "this one"}\n'


def test_no_file_descriptor_is_passed_on_or_kept(dirs: StateDirs, tmp_path: Path) -> None:
    own = psutil.Process()
    before = own.num_fds()
    leaked = os.open(tmp_path, os.O_RDONLY)
    os.set_inheritable(leaked, True)
    started = start_service(shell("fds", "sleep 60", tmp_path), dirs)
    try:
        service = psutil.Process(started.pid)  # the gate has short-lived children, too
        assert eventually(lambda: "sleep" in [child.name() for child in service.children()])
        assert service.num_fds() == 3
    finally:
        os.close(leaked)
    stop_service("fds", dirs)
    assert own.num_fds() == before


def died_s_ago(log: Path) -> float:
    """How long ago a process ended whose last words are in its log."""
    return time.time() - log.stat().st_mtime


def test_a_child_that_dies_at_start_is_reported_at_once_with_its_last_words(
    dirs: StateDirs, tmp_path: Path
) -> None:
    dirs.create()
    dirs.log_file("dies").write_text("words of an earlier run\n")
    script = "sleep 1.2; echo the model is missing; exit 7"
    readiness = HttpReadiness(f"http://127.0.0.1:{free_port()}/health")
    started = start_service(shell("dies", script, tmp_path, readiness=readiness), dirs)
    with pytest.raises(ExitedEarlyError) as caught:
        wait_for_healthy(started, 30)
    assert died_s_ago(started.log_path) < 0.6  # it would be asked again 0.8 s later
    assert caught.value.exit_code == 7
    assert caught.value.log_tail == ("the model is missing",)


def test_an_exit_during_a_hanging_request_is_reported_at_once(
    dirs: StateDirs, web: SpecMaker
) -> None:
    started = start_service(web(path="/hang", exit_after_s=1.0), dirs)
    with pytest.raises(ExitedEarlyError):
        wait_for_healthy(started, 30)
    assert died_s_ago(started.log_path) < 2  # the request would hang for 4 s more


def test_a_service_that_never_answers_is_given_up_after_its_timeout(
    dirs: StateDirs, web: SpecMaker
) -> None:
    started = start_service(web(ready_after_s=60), dirs)
    with pytest.raises(ReadinessTimeoutError) as caught:
        wait_for_healthy(started, 1.0)
    assert caught.value.last_answer == "HTTP 503"
    assert 1.0 <= caught.value.seconds < 5.0  # one that makes progress has 10 s
    assert is_alive(started.identity)


def test_a_load_whose_log_grows_is_not_cut_off(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(listen_after_s=1.6, print_lines=50), dirs)
    ready = wait_for_healthy(started, timeout=LoadTimeout(0.6, 1.0, 30))
    assert ready.seconds >= 1.5


def test_a_log_that_is_removed_during_a_load_ends_no_wait(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(listen_after_s=0.8), dirs)
    started.log_path.unlink()
    assert wait_for_healthy(started, timeout=LoadTimeout(30, 30, 30)).polls > 0


def test_the_first_connection_asks_at_once(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(listen_after_s=2.1), dirs)
    ready = wait_for_healthy(started, 30)
    assert 2.1 <= ready.seconds < 3.9  # the schedule alone would ask after 2 s and 4 s


def test_an_answer_from_a_stranger_on_the_port_does_not_count(
    dirs: StateDirs, web: SpecMaker, tmp_path: Path
) -> None:
    stranger = start_service(web("stranger"), dirs)
    wait_for_healthy(stranger, 10)
    victim = shell("victim", "exec sleep 60", tmp_path, readiness=stranger.spec.readiness)
    started = start_service(victim, dirs)
    with pytest.raises(ReadinessTimeoutError, match="another process answers on port"):
        wait_for_healthy(started, 1.0)


def test_sigterm_ignored_means_forced(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(ignore_sigterm=True), dirs)
    wait_for_healthy(started, 10)
    result = stop_service("web", dirs, grace_s=0.3)
    assert result.outcome is StopOutcome.FORCED
    assert identify(started.pid) is None


def test_a_suspended_process_is_stopped_gracefully(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(), dirs)
    wait_for_healthy(started, 10)
    os.kill(started.pid, signal.SIGSTOP)
    assert stop_service("web", dirs, grace_s=5).outcome is StopOutcome.STOPPED


def test_grandchildren_go_too(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(spawn_child=True), dirs)
    wait_for_healthy(started, 10)
    assert len(group_members(started.pid)) == 2
    stop_service("web", dirs)
    assert group_members(started.pid) == ()


def test_a_descendant_with_a_session_of_its_own_goes_too(dirs: StateDirs, tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "if os.fork() == 0:\n    os.setsid(); print(os.getpid(), flush=True)\n"
        "time.sleep(60)"
    )
    spec = ProcessSpec("escape", (sys.executable, "-I", "-S", "-c", script), PATH, tmp_path)
    started = start_service(spec, dirs)
    assert eventually(lambda: started.log_path.read_text().endswith("\n"))
    escaped = int(started.log_path.read_text())
    stop_service("escape", dirs)
    assert eventually(lambda: identify(escaped) is None)


def test_a_service_that_another_one_started_is_no_part_of_it(
    dirs: StateDirs, tmp_path: Path
) -> None:
    """A watchdog is the parent of what it restarts; stopping the watchdog stops nothing else."""
    program = f"""
import time
from pathlib import Path
from mlx_procsup import ProcessSpec, StateDirs, run_as, start_service
home = Path({str(tmp_path)!r})
dirs = StateDirs(home / "pids", home / "run", home / "logs")
with run_as("parent", dirs):
    start_service(ProcessSpec("child", ("/bin/sleep", "60"), {{}}, home), dirs)
    time.sleep(60)
"""
    parent = ProcessSpec("parent", (sys.executable, "-c", program), PATH, tmp_path)
    start_detached(parent, dirs)
    assert eventually(lambda: read_pid(dirs, "child") is not None)
    child = read_pid(dirs, "child")
    assert child is not None
    own = psutil.Process(read_pid(dirs, "parent"))
    memory_bytes = probe_service(ProbeTarget("parent"), dirs).memory_bytes
    assert memory_bytes is not None
    assert abs(memory_bytes - own.memory_info().rss) < 500_000

    stop_service("parent", dirs)

    assert identify(child) is not None
    assert stop_service("child", dirs).outcome is StopOutcome.STOPPED


def test_what_a_crashed_service_left_behind_is_stopped(dirs: StateDirs, web: SpecMaker) -> None:
    started = start_service(web(spawn_child=True), dirs)
    wait_for_healthy(started, 10)
    os.kill(started.pid, signal.SIGKILL)
    assert eventually(lambda: reap(started.pid) is not None or identify(started.pid) is None)
    assert len(group_members(started.pid)) == 1
    assert stop_service("web", dirs).outcome is StopOutcome.STOPPED
    assert group_members(started.pid) == ()


def test_a_pid_that_cannot_be_written_kills_the_process(dirs: StateDirs, tmp_path: Path) -> None:
    dirs.create()
    dirs.pid_file("nopid").mkdir()  # a folder stands where the file should
    with pytest.raises(StartFailedError, match="can't be recorded"):
        start_service(shell("nopid", "touch ran; sleep 60", tmp_path), dirs)
    record = read_run(dirs, "nopid")
    assert record is not None
    assert record.identity is not None
    assert identify(record.identity.pid) is None
    assert not (tmp_path / "ran").exists()
    dirs.pid_file("nopid").rmdir()


def test_a_starter_that_is_killed_leaves_no_unrecorded_process(tmp_path: Path) -> None:
    """The starter stops itself just before it would write the PID, and is killed there."""
    program = f"""
import os, signal
from pathlib import Path
from mlx_procsup import ProcessSpec, StateDirs, spawn, start_service
home = Path({str(tmp_path)!r})
def die(child, *rest):
    (home / "child").write_text(str(child.pid))
    os.kill(os.getpid(), signal.SIGKILL)
spawn._record_start = die
spec = ProcessSpec("x", ("/bin/sh", "-c", "touch ran; sleep 60"), {{}}, home)
start_service(spec, StateDirs(home / "pids", home / "run", home / "logs"))
"""
    subprocess.run([sys.executable, "-c", program], check=False, timeout=30)
    child = int((tmp_path / "child").read_text())
    assert eventually(lambda: identify(child) is None)
    assert not (tmp_path / "ran").exists()


def test_a_missing_program_is_an_error_before_anything_is_made(
    dirs: StateDirs, tmp_path: Path
) -> None:
    with pytest.raises(CommandNotFoundError):
        start_service(ProcessSpec("no", ("/no/such/program",), PATH, tmp_path), dirs)
    assert not dirs.pids.exists()


def test_a_running_service_is_not_started_twice(dirs: StateDirs, tmp_path: Path) -> None:
    spec = shell("once", "sleep 60", tmp_path)
    started = start_service(spec, dirs)
    with pytest.raises(AlreadyRunningError) as caught:
        start_service(spec, dirs)
    assert caught.value.pid == started.pid


def test_a_lost_pid_file_loses_no_process(dirs: StateDirs, tmp_path: Path) -> None:
    started = start_service(shell("lost", "sleep 60", tmp_path), dirs)
    dirs.pid_file("lost").unlink()
    assert stop_service("lost", dirs).outcome is StopOutcome.STOPPED
    assert identify(started.pid) is None


def test_a_lost_run_file_leaves_the_command_as_proof(dirs: StateDirs, tmp_path: Path) -> None:
    spec = shell("lost", "sleep 60", tmp_path)
    started = start_service(spec, dirs)
    dirs.run_file("lost").write_text("{ half a rec")
    assert stop_service("lost", dirs).outcome is StopOutcome.STALE_REMOVED
    assert identify(started.pid) is not None  # nothing proved that it is ours
    dirs.pid_file("lost").write_text(f"{started.pid}\n")
    dirs.run_file("lost").unlink()
    result = stop_service("lost", dirs, command=spec.command)
    assert result.outcome is StopOutcome.STOPPED
    assert identify(started.pid) is None


@pytest.mark.parametrize("content", ["", "abc\n", "-5\n", "0\n", "\x00\xff", "1 2\n", "9" * 40])
def test_a_damaged_pid_file_is_stale_and_harms_nobody(dirs: StateDirs, content: str) -> None:
    dirs.create()
    dirs.pid_file("bad").write_text(content)
    assert stop_service("bad", dirs).outcome is StopOutcome.STALE_REMOVED
    assert read_pid(dirs, "bad") is None


@pytest.mark.parametrize(
    "damage",
    [
        {"pid": 0, "start_time": 0.0},
        {"pid": -1},
        {"pid": True},
        {"pid": 10**30},
        {"pid": float("inf")},
        {"start_time": float("nan")},
        {"start_time": 10**400},
        {"log_offset": float("inf")},
        {"restarts": [{"at": float("nan"), "reason": ""}]},
    ],
    ids=str,
)
def test_a_run_file_with_numbers_that_mean_nothing_loses_no_process_and_harms_nobody(
    dirs: StateDirs, tmp_path: Path, damage: dict[str, object]
) -> None:
    spec = shell("svc", "sleep 60", tmp_path)
    started = start_service(spec, dirs)
    whole = json.loads(dirs.run_file("svc").read_text())
    dirs.run_file("svc").write_text(json.dumps(whole | damage))
    with pytest.raises(StateFileError, match="isn't a run file"):
        read_run(dirs, "svc")
    assert stop_service("svc", dirs, command=spec.command).outcome is StopOutcome.STOPPED
    assert not is_alive(started.identity)


def test_files_that_are_no_services_are_passed_over(dirs: StateDirs) -> None:
    dirs.create()
    for name in ("web.pid", "._web.pid", "two words.pid", "-x.pid"):
        (dirs.pids / name).write_text("1\n")
    (dirs.run / "other.json").write_text("{}")
    (dirs.run / "ö.json").write_text("{}")
    assert dirs.names() == ("other", "web")


def test_stopping_what_never_ran_says_so_and_writes_nothing(dirs: StateDirs) -> None:
    assert stop_service("never", dirs).outcome is StopOutcome.NOT_RUNNING
    assert not dirs.run.exists()


def test_services_can_be_started_from_several_threads(dirs: StateDirs, web: SpecMaker) -> None:
    specs = [web(f"web{n}") for n in range(4)]
    problems: list[Exception] = []

    def run(spec: ProcessSpec) -> None:
        try:
            wait_for_healthy(start_service(spec, dirs), 15)
        except SupervisionError as error:
            problems.append(error)

    threads = [threading.Thread(target=run, args=(spec,)) for spec in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def test_secrets_reach_the_process_but_no_file(dirs: StateDirs, tmp_path: Path) -> None:
    spec = ProcessSpec(
        "secret",
        ("/bin/sh", "-c", "test $KEY = sk-12345 && echo got it; exit 4"),
        PATH | {"KEY": "sk-12345"},
        tmp_path,
        HttpReadiness(f"http://127.0.0.1:{free_port()}/"),
        frozenset({"KEY"}),
    )
    with pytest.raises(ExitedEarlyError) as caught:
        wait_for_healthy(start_service(spec, dirs), 10)
    assert caught.value.log_tail == ("got it",)
    assert "sk-12345" not in dirs.run_file("secret").read_text()
    assert "sk-12345" not in spec.shell_line(frozenset({"KEY"}))
    assert "sk-12345" not in repr(replace(spec, command=("true",)))


def test_a_service_that_was_found_wedged_is_replaced_and_until_then_not_healthy(
    dirs: StateDirs, web: SpecMaker
) -> None:
    spec = web()
    first = bring_up(StartPlan(spec), dirs)
    assert bring_up(StartPlan(spec), dirs).pid == first.pid
    assert first.pid is not None
    wedge = Wedge(first.pid, "nothing moves", time.time() - 60)
    write_last_look(dirs, LastLook(time.time(), 30, os.getpid(), {"web": wedge}))
    status = probe_service(target_of(spec), dirs)
    assert (status.state, status.wedged) == (ServiceState.DEGRADED, "nothing moves")

    second = bring_up(StartPlan(spec), dirs)

    assert second.outcome is StartOutcome.STARTED
    assert second.pid != first.pid
    assert probe_service(target_of(spec), dirs).state is ServiceState.HEALTHY
    stop_service("web", dirs)
