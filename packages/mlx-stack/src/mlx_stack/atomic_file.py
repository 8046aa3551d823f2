"""Whole-file writes: a reader sees the old content or the new one, never a part."""

import errno
import os
import tempfile
from pathlib import Path

PUBLIC = 0o644
PRIVATE = 0o600
"""For files that hold a key."""

# What exFAT, SMB, NFS and FUSE say to a call that they don't have.
_UNSUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


def write_text(path: Path, text: str, *, mode: int = PUBLIC) -> None:
    """Replace `path` by `text`, in UTF-8, atomically and as durably as the file system can.

    The folder must exist. The temporary file is made in it with its final mode, so that a secret
    is never readable by others for a moment, and is removed when anything goes wrong.

    Raises:
        OSError: When the disk is full, the folder is read-only or missing, or a secret can't be
            kept from other users there. It names `path`, which is as it was.
    """
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            _set_mode(file.fileno(), mode)
            file.write(text)
            file.flush()
            _sync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _set_mode(descriptor: int, mode: int) -> None:
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        # without its own permissions, the file system shows everything as it was mounted
        if mode != PUBLIC or error.errno not in (errno.EPERM, *_UNSUPPORTED):
            raise


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def _sync_directory(directory: Path) -> None:
    """Make a rename in `directory` survive a power cut, where that can be asked for."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return  # a folder that may be written to and not read
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)
