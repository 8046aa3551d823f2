"""A program that is a service itself, detached and only once."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

import psutil
import pytest

from mlx_procsup import (
    AlreadyRunningError,
    ExitedEarlyError,
    ProcessSpec,
    StateDirs,
    identify,
    pid_running_as,
    read_pid,
    run_as,
    start_detached,
    stop_service,
)
from mlx_procsup.testing import eventually

PROGRAM = """
import sys, time
from pathlib import Path
from mlx_procsup import StateDirs, run_as
home = Path(sys.argv[1])
with run_as("dog", StateDirs(home / "pids", home / "run", home / "logs")):
    print("here", flush=True)
    time.sleep(60)
"""


def dog(tmp_path: Path) -> ProcessSpec:
    return ProcessSpec(
        "dog", (sys.executable, "-c", PROGRAM, str(tmp_path)), {"PATH": os.defpath}, tmp_path
    )


def test_a_detached_program_has_a_session_of_its_own(dirs: StateDirs, tmp_path: Path) -> None:
    pid = start_detached(dog(tmp_path), dirs)
    assert read_pid(dirs, "dog") == pid
    assert os.getsid(pid) == pid
    stop_service("dog", dirs)
    assert identify(pid) is None
    assert read_pid(dirs, "dog") is None


def test_an_interrupted_start_leaves_no_program(dirs: StateDirs, tmp_path: Path) -> None:
    starter = """
import sys
from pathlib import Path
from mlx_procsup import ProcessSpec, StateDirs, start_detached
home = Path(sys.argv[1])
never_present = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
spec = ProcessSpec("dog", (sys.executable, "-c", never_present), {}, home)
start_detached(spec, StateDirs(home / "pids", home / "run", home / "logs"))
"""
    process = subprocess.Popen(
        (sys.executable, "-c", starter, str(tmp_path)), stderr=subprocess.DEVNULL
    )
    log = dirs.log_file("dog")
    assert eventually(lambda: log.exists() and log.read_text().endswith("\n"))
    process.send_signal(signal.SIGINT)
    process.wait(10)

    assert identify(int(log.read_text())) is None


def test_a_start_that_is_interrupted_while_it_forks_leaves_no_program(tmp_path: Path) -> None:
    starter = """
import signal, sys
from pathlib import Path
from mlx_procsup import ProcessSpec, StateDirs, start_detached
home = Path(sys.argv[1])
command = (sys.executable, "-c", "import time; time.sleep(60)", str(home))
spec = ProcessSpec("dog", command, {}, home)
def interrupt(frame, event, function):
    if event == "c_return" and function.__name__ == "fork_exec":
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)
sys.setprofile(interrupt)
start_detached(spec, StateDirs(home / "pids", home / "run", home / "logs"))
"""
    done = subprocess.run(
        (sys.executable, "-c", starter, str(tmp_path)), stderr=subprocess.PIPE, check=False
    )

    assert b"KeyboardInterrupt" in done.stderr
    assert eventually(lambda: not running_with(str(tmp_path)))


def test_a_start_ends_its_program_whenever_it_is_interrupted(
    dirs: StateDirs, tmp_path: Path
) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)", str(tmp_path))
    spec = ProcessSpec("dog", command, {}, tmp_path)
    for calls in range(1, 60):
        left: int | None = None

        def interrupt(frame: FrameType, event: str, _: object, calls: int = calls) -> None:
            nonlocal left
            if event == "return" and frame.f_code.co_name == "open_gate":
                left = calls
            elif event == "c_return" and left is not None:
                left -= 1
                if left == 0:
                    sys.setprofile(None)
                    raise KeyboardInterrupt

        sys.setprofile(interrupt)
        try:
            with pytest.raises(KeyboardInterrupt):
                start_detached(spec, dirs)
        finally:
            sys.setprofile(None)
        assert eventually(lambda: not running_with(str(tmp_path))), f"after {calls} calls"


def running_with(word: str) -> list[int]:
    """The processes that have a word on their command line."""
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if word in process.cmdline():
                found.append(process.pid)
    return found


def test_a_second_one_is_refused_and_the_first_stays(dirs: StateDirs, tmp_path: Path) -> None:
    pid = start_detached(dog(tmp_path), dirs)
    with pytest.raises(ExitedEarlyError) as caught:
        start_detached(dog(tmp_path), dirs)
    assert f"dog already runs as PID {pid}" in caught.value.log_tail[-1]
    assert read_pid(dirs, "dog") == pid


def test_whoever_is_present_is_known_whatever_became_of_its_files(
    dirs: StateDirs, tmp_path: Path
) -> None:
    dirs.create()
    dirs.pid_file("dog").write_text("garbage left by an earlier one")
    assert pid_running_as("dog", dirs) is None
    pid = start_detached(dog(tmp_path), dirs)
    dirs.run_file("dog").unlink()
    assert pid_running_as("dog", dirs) == pid
    stop_service("dog", dirs, command=dog(tmp_path).command)
    assert pid_running_as("dog", dirs) is None


def test_the_own_process_is_present_while_the_block_runs(dirs: StateDirs) -> None:
    with run_as("own", dirs):
        assert read_pid(dirs, "own") == os.getpid()
        with pytest.raises(AlreadyRunningError) as caught, run_as("own", dirs):
            pass
        assert caught.value.pid == os.getpid()
    assert read_pid(dirs, "own") is None
