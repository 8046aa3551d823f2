"""A lock on a file that shows its holder, and that the kernel releases after a crash."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_procsup.errors import SupervisionError, WaitCancelledError

_OWNER_BYTES = 4096
_RETRY_S = 0.1
# What `flock` says on file systems without locks: ENOTSUP and EOPNOTSUPP differ on macOS only.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@dataclass(frozen=True, slots=True)
class LockOwner:
    """The holder of a lock: what it does, its PID, and since when (seconds since the epoch)."""

    doing: str
    pid: int
    since: float

    def describe(self) -> str:
        """A description such as "`up`, PID 4711, since 12:03", in local time."""
        since = datetime.fromtimestamp(self.since, UTC).astimezone()
        return f"`{self.doing}`, PID {self.pid}, since {since:%H:%M}"


class LockHeldError(SupervisionError):
    """Another process holds the lock.

    Attributes:
        owner: The holder; None if the file doesn't say.
    """

    def __init__(self, path: Path, owner: LockOwner | None) -> None:
        held_by = owner.describe() if owner else "another process"
        super().__init__(f"{path} is held by {held_by}")
        self.path = path
        self.owner = owner


class LockUnsupportedError(SupervisionError):
    """The file system of the lock file doesn't support locks."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path} can't be locked: the file system has no locks ({problem})")
        self.path = path


@contextmanager
def acquire_lock(
    path: Path,
    owner: str,
    *,
    on_wait: Callable[[LockOwner | None], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    on_unsupported: Callable[[LockUnsupportedError], None] | None = None,
    remove: bool = False,
    clock: Callable[[], float] = time.time,
) -> Generator[LockOwner]:
    """Hold an exclusive `flock` while the block runs.

    Args:
        path: The lock file, created (mode 0600) if missing, with its folder.
        owner: What the holder does, shown to other processes that find the lock held.
        on_wait: Wait for another holder, and call this once with it. Without it, a lock that is
            held is an error.
        cancelled: Called every tenth of a second while waiting; the wait ends when it returns true.
        on_unsupported: Continue without a lock if the file system doesn't support locks, and call
            this with a description. Without it, that is an error.
        remove: Remove the file at the end; by default it stays, empty.

    Raises:
        LockHeldError: Another process holds it, and there is no `on_wait`.
        LockUnsupportedError: There are no locks on this file system, and there is no
            `on_unsupported`.
        WaitCancelledError: `cancelled` returned true.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    holder = LockOwner(doing=owner, pid=os.getpid(), since=clock())
    try:
        handle = _open_locked(path, on_wait, cancelled)
    except LockUnsupportedError as error:
        if on_unsupported is None:
            raise
        on_unsupported(error)
        yield holder
        return
    try:
        _write_owner(handle, json.dumps(asdict(holder)) + "\n")
        try:
            yield holder
        finally:
            if remove:
                path.unlink(missing_ok=True)
            _write_owner(handle, "")
    finally:
        os.close(handle)


def try_flock(handle: int, path: Path, *, wait: bool = False) -> bool:
    """Whether the open file is locked now; without `wait`, False if there is another holder.

    Raises:
        LockUnsupportedError: Its file system doesn't support locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise LockUnsupportedError(path, str(error.strerror)) from error
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def _open_locked(
    path: Path,
    on_wait: Callable[[LockOwner | None], None] | None,
    cancelled: Callable[[], bool],
) -> int:
    """The open lock file, locked."""
    has_waited = False
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, mode=0o600)
        try:
            is_locked = try_flock(handle, path)
            if is_locked and _is_still(handle, path):
                return handle
            held_by = _read_owner(handle)
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if is_locked:  # its last holder has just removed it, so that another file is the lock now
            continue
        if on_wait is None:
            raise LockHeldError(path, held_by)
        if not has_waited:
            on_wait(held_by)
            has_waited = True
        if cancelled():
            raise WaitCancelledError(f"{path} is held, and the wait for it was cancelled")
        time.sleep(_RETRY_S)


def _is_still(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _write_owner(handle: int, text: str) -> None:
    """Note the owner. The lock itself doesn't depend on it, so a full disk doesn't stop it."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, text.encode(), 0)
    except OSError:
        return


def _read_owner(handle: int) -> LockOwner | None:
    """The noted owner; None while the holder is just writing it, or couldn't."""
    try:
        note = json.loads(os.pread(handle, _OWNER_BYTES, 0))
        owner = LockOwner(str(note["doing"]), int(note["pid"]), float(note["since"]))
        owner.describe()  # a time that no calendar knows was not noted by a holder
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError, OSError):
        return None
    return owner
