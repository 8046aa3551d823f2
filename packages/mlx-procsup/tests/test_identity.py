"""A recycled PID is never taken for the service, shown with real processes."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup import (
    ProcessIdentity,
    ProcessSpec,
    StartedProcess,
    StateDirs,
    StopOutcome,
    identify,
    is_alive,
    start_service,
    stop_service,
)
from mlx_procsup.identity import reap, runs_command, same_command
from mlx_procsup.testing import eventually


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        yield process
        process.kill()


def start_sleeper(dirs: StateDirs, tmp_path: Path) -> StartedProcess:
    return start_service(
        ProcessSpec("svc", ("/bin/sleep", "60"), {"PATH": os.defpath}, tmp_path), dirs
    )


def start_in_a_later_tick(
    dirs: StateDirs, tmp_path: Path, than: subprocess.Popen[bytes]
) -> StartedProcess:
    """The kernel counts starts in hundredths of a second; no PID comes round in one."""
    other = identify(than.pid)
    assert other is not None
    while (started := start_sleeper(dirs, tmp_path)).identity.start_time == other.start_time:
        stop_service("svc", dirs)
    return started


def test_a_recycled_pid_in_both_files_is_not_signalled(
    dirs: StateDirs, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    started = start_in_a_later_tick(dirs, tmp_path, stranger)
    os.kill(started.pid, signal.SIGKILL)
    # the kernel gave the number to somebody else
    document = json.loads(dirs.run_file("svc").read_text()) | {"pid": stranger.pid}
    dirs.run_file("svc").write_text(json.dumps(document))
    dirs.pid_file("svc").write_text(f"{stranger.pid}\n")
    assert stop_service("svc", dirs).outcome is StopOutcome.STALE_REMOVED
    assert stranger.poll() is None
    assert eventually(lambda: reap(started.pid) is not None)


def test_a_pid_file_of_a_stranger_alone_is_not_signalled(
    dirs: StateDirs, stranger: subprocess.Popen[bytes]
) -> None:
    dirs.create()
    dirs.pid_file("svc").write_text(f"{stranger.pid}\n")
    assert stop_service("svc", dirs).outcome is StopOutcome.STALE_REMOVED
    assert stranger.poll() is None


def test_where_the_files_disagree_the_run_file_is_right(
    dirs: StateDirs, tmp_path: Path, stranger: subprocess.Popen[bytes]
) -> None:
    started = start_sleeper(dirs, tmp_path)
    dirs.pid_file("svc").write_text(f"{stranger.pid}\n")
    result = stop_service("svc", dirs)
    assert (result.outcome, result.pid) == (StopOutcome.STOPPED, started.pid)
    assert stranger.poll() is None
    assert identify(started.pid) is None


def test_a_zombie_counts_as_dead() -> None:
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert identify(child) is None
    os.waitpid(child, 0)


def test_no_pid_is_no_process() -> None:
    assert identify(0) is None
    assert identify(-1) is None
    assert identify(2**31 - 1) is None


@given(jump_s=st.floats(-1e9, 1e9))
def test_a_clock_jump_makes_no_stranger_on_linux(jump_s: float) -> None:
    before = ProcessIdentity(4711, 1_000_100.25, 1_000_000.0, "boot")
    after = replace(
        before, start_time=before.start_time + jump_s, boot_time=before.boot_time + jump_s
    )
    assert before.same_process(after)


@pytest.mark.parametrize(
    "change",
    [{"pid": 4712}, {"start_time": 1_000_100.27}, {"boot_id": "next boot"}],
)
def test_any_difference_makes_a_stranger(change: dict[str, float]) -> None:
    identity = ProcessIdentity(4711, 1_000_100.25, 1_000_000.0, "boot")
    assert not identity.same_process(replace(identity, **change))


def test_a_live_process_is_itself() -> None:
    own = identify(os.getpid())
    assert own is not None
    assert is_alive(own)


SERVE = ("vllm", "serve", "model", "--port", "8000")


@pytest.mark.parametrize(
    ("shown", "command", "same"),
    [
        (SERVE, SERVE, True),
        (("python3", *SERVE), SERVE, True),
        (("python3", "/venv/bin/vllm", *SERVE[1:]), SERVE, True),
        (SERVE, ("/bin/sh", "-c", 'exec "$0" "$@"', *SERVE), True),
        ((*SERVE[:-1], "8001"), SERVE, False),
        (("sleep", "60"), ("/bin/sh", "-c", "sleep 60"), False),
        (("sleep", "60"), ("/bin/sleep", "60"), True),
        (("bash",), ("/bin/sh", "-c", "bash"), False),
        (("/bin/true",), ("/bin/true",), True),
        ((), SERVE, False),
    ],
)
def test_a_command_is_recognized_from_its_end(
    shown: tuple[str, ...], command: tuple[str, ...], same: bool
) -> None:
    assert same_command(shown, command) is same


def test_a_process_in_the_middle_of_exec_is_still_recognized(tmp_path: Path) -> None:
    script = tmp_path / "again"
    script.write_text('#!/bin/sh\nexec "$0" "$@"\n')  # it never does anything else
    script.chmod(0o700)
    command = (str(script), "one", "two")
    with subprocess.Popen(command) as process:
        try:
            assert all(runs_command(process.pid, command) for _ in range(2000))
        finally:
            process.kill()
