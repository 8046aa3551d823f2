"""The lock: held by one, owner shown, freed by a crash."""

import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

from mlx_procsup import LockHeldError, acquire_lock
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
