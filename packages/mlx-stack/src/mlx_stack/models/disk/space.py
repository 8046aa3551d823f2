"""Room on the disk, before the first byte."""

import errno
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_stack.models.errors import DiskSpaceError

_LARGEST_RESERVE_BYTES = 1 << 30
_RESERVE_PART = 50
GB = 1_000_000_000
_MB = 1_000_000


def reserve_bytes(total_bytes: int) -> int:
    """What is left free on a disk of this size: a fiftieth of it, at most 1 GiB."""
    return min(_LARGEST_RESERVE_BYTES, total_bytes // _RESERVE_PART)


def ensure_room(folder: Path, needed_bytes: int, what: str) -> None:
    """Return where `needed_bytes` more fit on the disk of `folder`, which must exist.

    Raises:
        DiskSpaceError: They don't; the message says how much is missing.
    """
    usage = shutil.disk_usage(folder)
    free = usage.free - reserve_bytes(usage.total)
    if needed_bytes > free:
        raise DiskSpaceError(
            f"{what} needs {_amount(needed_bytes)} more, and the disk of {folder} has "
            f"{_amount(max(free, 0))} to spare.",
            hint=f"Free {_amount(needed_bytes - free)} (`mlx-stack models --remove MODEL`), "
            "or put the models on another disk: `mlx-stack config set model-dir PATH`.",
        )


@contextmanager
def naming_disk(folder: Path, what: str) -> Generator[None]:
    """Have every error of the disk in the `with` statement name a path; a full one helps itself.

    Raises:
        DiskSpaceError: When the disk fills up.
    """
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise DiskSpaceError(
                f"The disk of {folder} is full. What was downloaded of {what} is kept.",
                hint="Free some space (`mlx-stack models --remove MODEL`) and pull again.",
            ) from error
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(folder)) from error


def _amount(count: int) -> str:
    return f"{count / GB:.1f} GB" if count >= GB else f"{count / _MB:.1f} MB"
