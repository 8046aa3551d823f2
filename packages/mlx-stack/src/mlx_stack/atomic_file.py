"""Whole-file writes: a reader sees the old content or the new one, never a part."""

import os
import tempfile
from pathlib import Path

PUBLIC = 0o644
PRIVATE = 0o600
"""For files that hold a key."""


def write_text(path: Path, text: str, *, mode: int = PUBLIC) -> None:
    """Replace `path` by `text`, in UTF-8, atomically and durably.

    The folder must exist. The temporary file is made beside `path` with its final mode, so that a
    secret is never readable by others for a moment, and is removed when anything goes wrong.

    Raises:
        OSError: The disk is full, the folder is read-only or missing; `path` is as it was.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
