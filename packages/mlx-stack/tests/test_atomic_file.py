"""Whole-file writes, on disks that can less than the usual ones too."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from mlx_stack import atomic_file

WRITE = """
import errno, os, resource, signal, stat, sys
from pathlib import Path
from mlx_stack import atomic_file

what, code, path, mode = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])

def fsync(descriptor):
    is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
    if what == ("fsync-folder" if is_folder else "fsync"):
        raise OSError(code, os.strerror(code))

def fchmod(descriptor, mode):
    if what == "fchmod":
        raise OSError(code, os.strerror(code))

os.fsync, os.fchmod = fsync, fchmod
if what == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4))
try:
    atomic_file.write_text(path, "the new text", mode=mode)
except OSError as error:
    print(errno.errorcode[error.errno], error.filename)
"""


def _write(what: str, code: int, path: Path, mode: int = atomic_file.PUBLIC) -> str:
    command = [sys.executable, "-c", WRITE, what, str(code), str(path), str(mode)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.parametrize("what", ["fsync", "fsync-folder", "fchmod"])
def test_a_disk_that_cannot_flush_folders_or_set_modes_takes_the_file(
    tmp_path: Path, what: str, code: int
) -> None:
    path = tmp_path / "inventory.json"
    assert _write(what, code, path) == ""
    assert path.read_text() == "the new text"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("what", "code", "name"),
    [("full", 0, "EFBIG"), ("fsync", errno.EIO, "EIO"), ("fchmod", errno.EACCES, "EACCES")],
)
def test_a_failed_write_names_its_path_and_leaves_the_old_text(
    tmp_path: Path, what: str, code: int, name: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("the old text")
    assert _write(what, code, path) == f"{name} {path}"
    assert path.read_text() == "the old text"
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_is_not_written_where_others_could_read_it(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    assert _write("fchmod", errno.EPERM, path, atomic_file.PRIVATE) == f"EPERM {path}"
    assert not path.exists()


def test_a_missing_folder_is_told_by_the_path_that_was_meant(tmp_path: Path) -> None:
    path = tmp_path / "none" / "config.yaml"
    with pytest.raises(FileNotFoundError) as caught:
        atomic_file.write_text(path, "text")
    assert caught.value.filename == str(path)
