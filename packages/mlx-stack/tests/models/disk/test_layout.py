import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mlx_stack.models.disk.layout import ModelPlaces, ensure_room, naming_disk, reserve_bytes
from mlx_stack.models.errors import DiskSpaceError
from mlx_stack.models.events import Waiting

GB = 10**9


def test_a_model_that_does_not_fit_is_refused_with_the_missing_amount(tmp_path: Path):
    ensure_room(tmp_path, 1, "org/a")
    with pytest.raises(DiskSpaceError, match="org/a needs 9000000") as refused:
        ensure_room(tmp_path, 9 * 10**15, "org/a")
    assert "Free" in str(refused.value.hint)


def test_a_disk_that_fills_up_is_told_with_what_helps(tmp_path: Path):
    with pytest.raises(DiskSpaceError, match="full") as told, naming_disk(tmp_path, "org/a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "pull again" in str(told.value.hint)


def test_an_error_of_the_disk_names_a_path(tmp_path: Path):
    with pytest.raises(OSError, match="Input/output") as broken, naming_disk(tmp_path, "org/a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))  # as `os.pwrite` does
    assert broken.value.filename == str(tmp_path)
    with pytest.raises(FileNotFoundError) as missing, naming_disk(tmp_path, "org/a"):
        (tmp_path / "sub" / "model").open("x")
    assert missing.value.filename == str(tmp_path / "sub" / "model")


def test_a_part_of_the_disk_stays_free():
    assert reserve_bytes(100 * 10**6) == 2 * 10**6
    assert reserve_bytes(10**12) == 1 << 30


def test_a_second_pull_of_a_model_waits_for_the_first(tmp_path: Path):
    places = ModelPlaces(tmp_path / "models", "org--a")
    order: list[object] = []
    waits, released = threading.Event(), threading.Event()

    def second() -> None:
        with places.hold("org/a", lambda event: (order.append(event), waits.set())):
            assert released.is_set()
            order.append("second")

    with places.hold("org/a", order.append):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        order.append("first")
        released.set()
    thread.join(10)
    assert order == [Waiting("org/a"), "first", "second"]
    assert not places.lock.exists()


PULLS_WITHOUT_LOCKS = """
import errno, fcntl, os, sys
from pathlib import Path

def flock(*_):
    raise OSError(getattr(errno, sys.argv[1]), os.strerror(getattr(errno, sys.argv[1])))

fcntl.flock = flock
from mlx_stack.models.disk.layout import ModelPlaces
with ModelPlaces(Path(sys.argv[2]), "org--a").hold("org/a", print):
    print("pulled")
"""


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "ENOTSUP", "EOPNOTSUPP"])
def test_a_pull_to_a_disk_without_locks_goes_on_with_a_warning_that_names_the_folder(
    tmp_path: Path, name: str
):
    done = subprocess.run(
        [sys.executable, "-c", PULLS_WITHOUT_LOCKS, name, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"Unlocked(folder={str(tmp_path)!r})\npulled\n"
