"""One pull, conversion or removal of a model at a time; the kernel frees the lock on a crash."""

import fcntl
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hold(path: Path, on_wait: Callable[[], None]) -> Generator[None]:
    """Hold the lock at `path` in the `with` statement, after waiting for whoever has it.

    Args:
        path: The lock's file; it is made, with its folder, and removed again.
        on_wait: Called once where somebody else has it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = _acquire(path, on_wait)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path, on_wait: Callable[[], None]) -> int:
    has_waited = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not has_waited:
                on_wait()
                has_waited = True
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if _is_still(descriptor, path):
            return descriptor
        os.close(descriptor)  # the former holder removed the file: the lock is another one now


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
