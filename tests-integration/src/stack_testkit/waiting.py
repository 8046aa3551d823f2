"""Waiting for something to become true, with a deadline that fails loudly."""

import time
from collections.abc import Callable

_EVERY_S = 0.02


def wait_until[T](look: Callable[[], T], *, deadline_s: float = 30.0) -> T:
    """What `look` returns as soon as it is true.

    Raises:
        TimeoutError: It wasn't until the deadline.
    """
    end = time.monotonic() + deadline_s
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() >= end:
            raise TimeoutError(f"not within {deadline_s} s: last seen {seen!r}")
        time.sleep(_EVERY_S)
