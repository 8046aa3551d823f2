"""Room on the disk, before the first byte."""

import shutil
from pathlib import Path

from mlx_stack.store.errors import DiskSpaceError

_LARGEST_RESERVE_BYTES = 1 << 30
_RESERVE_PART = 50
GB = 1_000_000_000


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
            f"{what} needs {needed_bytes / GB:.1f} GB more, and the disk of {folder} has "
            f"{max(free, 0) / GB:.1f} GB to spare.",
            hint=f"Free {(needed_bytes - free) / GB:.1f} GB (`mlx-stack models --remove MODEL`), "
            "or put the models on another disk: `mlx-stack config set model-dir PATH`.",
        )
