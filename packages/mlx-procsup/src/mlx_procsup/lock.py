"""One lock for everything that changes running services, freed by the kernel on a crash."""

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_procsup.errors import SupervisionError

_OWNER_BYTES = 4096


@dataclass(frozen=True, slots=True)
class LockOwner:
    """Who holds a lock: what it does, its PID, and since when (seconds since the epoch)."""

    doing: str
    pid: int
    since: float

    def describe(self) -> str:
        """Such as "`up`, PID 4711, since 12:03", in local time."""
        since = datetime.fromtimestamp(self.since, UTC).astimezone()
        return f"`{self.doing}`, PID {self.pid}, since {since:%H:%M}"


class LockHeldError(SupervisionError):
    """Another process holds the lock.

    Attributes:
        path: the lock file.
        owner: who holds it; None where the file doesn't say.
    """

    def __init__(self, path: Path, owner: LockOwner | None) -> None:
        held_by = owner.describe() if owner else "another process"
        super().__init__(f"{path} is held by {held_by}")
        self.path = path
        self.owner = owner


@contextmanager
def acquire_lock(
    path: Path, owner: str, *, clock: Callable[[], float] = time.time
) -> Generator[LockOwner]:
    """Hold an exclusive `flock` while the block runs; never waits for it.

    Args:
        path: the lock file, made (mode 0600) if missing and never removed.
        owner: what the holder does, shown to whoever meets the lock.
        clock: seconds since the epoch.

    Raises:
        LockHeldError: somebody else holds it.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, mode=0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LockHeldError(path, _read_owner(handle)) from error
        holder = LockOwner(doing=owner, pid=os.getpid(), since=clock())
        _write_owner(handle, json.dumps(asdict(holder)) + "\n")
        try:
            yield holder
        finally:
            _write_owner(handle, "")
    finally:
        os.close(handle)


def _write_owner(handle: int, text: str) -> None:
    """Note the owner. The lock itself doesn't depend on it, so a full disk is no reason to stop."""
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
