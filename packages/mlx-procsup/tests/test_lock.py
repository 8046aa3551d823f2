"""The lock: held by one, owner shown, freed by a crash, waited for where that is asked."""

import os
import signal
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from mlx_procsup import LockHeldError, LockOwner, WaitCancelledError, acquire_lock
from mlx_procsup.testing import eventually

HOLDER = """
import sys, time
from pathlib import Path
from mlx_procsup import acquire_lock
with acquire_lock(Path(sys.argv[1]), "up"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_holder_is_told_who_has_it(tmp_path: Path) -> None:
    since = datetime(2026, 3, 1, 12, 3).astimezone().timestamp()
    path = tmp_path / "lock"
    with (
        acquire_lock(path, "up", clock=lambda: since),
        pytest.raises(LockHeldError, match=f"`up`, PID {os.getpid()}, since 12:03"),
        acquire_lock(path, "down"),
    ):
        pass


@pytest.mark.parametrize(
    "note",
    ["", "[]", "[" * 4000, '{"doing": "up", "pid": 1, "since": 1e300}', '{"pid": 1e999}', "\x00"],
)
def test_a_note_that_no_holder_wrote_names_nobody(tmp_path: Path, note: str) -> None:
    path = tmp_path / "lock"
    with acquire_lock(path, "up"):
        path.write_text(note)
        with (
            pytest.raises(LockHeldError, match="held by another process"),
            acquire_lock(path, "down"),
        ):
            pass


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "lock"
    for _ in range(2):
        with acquire_lock(path, "up") as owner:
            assert owner.doing == "up"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text() == ""


def test_a_killed_holder_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LockHeldError) as caught, acquire_lock(path, "down"):
            pass
        assert caught.value.owner is not None
        assert caught.value.owner.pid == holder.pid
        holder.send_signal(signal.SIGKILL)
    with acquire_lock(path, "down"):
        pass


def test_a_started_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with acquire_lock(path, "up"):
        child = subprocess.Popen(["sleep", "60"])
    try:
        assert eventually(lambda: child.poll() is None)
        with acquire_lock(path, "down"):
            pass
    finally:
        child.kill()
        child.wait()


def test_who_waits_is_told_once_for_whom_and_gets_the_lock_next(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    seen: list[LockOwner | None] = []
    is_waiting, released = threading.Event(), threading.Event()

    def wait() -> None:
        def note(owner: LockOwner | None) -> None:
            seen.append(owner)
            is_waiting.set()

        with acquire_lock(path, "second", on_wait=note):
            assert released.is_set()

    with acquire_lock(path, "first") as first:
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert is_waiting.wait(10)
        released.set()
    waiter.join(10)
    assert not waiter.is_alive()
    assert seen == [first]


def test_waiting_ends_when_the_caller_gives_up(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        acquire_lock(path, "first"),
        pytest.raises(WaitCancelledError, match="is held, and the wait for it was cancelled"),
        acquire_lock(path, "second", on_wait=lambda _: None, cancelled=lambda: True),
    ):
        pass


def test_a_lock_file_that_each_holder_removes_is_still_held_by_one_at_a_time(
    tmp_path: Path,
) -> None:
    path = tmp_path / "lock"
    inside: list[int] = []
    most: list[int] = []

    def hold(number: int) -> None:
        for _ in range(20):
            with acquire_lock(path, "turn", on_wait=lambda _: None, remove=True):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    turns = [threading.Thread(target=hold, args=(number,)) for number in range(4)]
    for turn in turns:
        turn.start()
    for turn in turns:
        turn.join(60)
    assert most == [1] * 80
    assert not path.exists()


WITHOUT_LOCKS = """
import errno, fcntl, os, sys
from pathlib import Path

def flock(*_):
    raise OSError(getattr(errno, sys.argv[1]), os.strerror(getattr(errno, sys.argv[1])))

fcntl.flock = flock
from mlx_procsup import LockUnsupportedError, acquire_lock
path = Path(sys.argv[2])
try:
    with acquire_lock(path, "up"):
        print("held")
except (LockUnsupportedError, OSError) as error:
    print(type(error).__name__, str(path) in str(error))
with acquire_lock(path, "pull", on_unsupported=lambda error: print(error.path == path)):
    print("goes on")
"""


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"])
def test_a_disk_without_locks_is_an_error_that_names_the_path_unless_the_caller_goes_on(
    tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-c", WITHOUT_LOCKS, name, str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["LockUnsupportedError True", "True", "goes on"]


def test_any_other_trouble_with_a_lock_names_its_path_too(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_LOCKS, "EIO", str(tmp_path / "lock")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["OSError True"]
    assert "Input/output error" in done.stderr
