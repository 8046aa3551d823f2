"""Notices from a separate thread that a loop has stalled."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager


class StallGuard:
    """Calls `on_stall` if a loop hasn't reported a turn for `limit_s`.

    Time in which this process did not run (the machine slept, the process was suspended) doesn't
    count, because the guard didn't run then, either.

    Args:
        on_stall: Called from another thread, with the seconds since the last turn.
        step_s: How often it looks.
    """

    def __init__(
        self, limit_s: float, on_stall: Callable[[float], None], step_s: float = 5.0
    ) -> None:
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._step_s = min(step_s, limit_s / 2)
        self._has_turned = threading.Event()
        self._is_over = threading.Event()

    def turn(self) -> None:
        """Report a turn of the loop."""
        self._has_turned.set()

    @contextmanager
    def watching(self) -> Generator[None]:
        """Watch the loop that runs in the block."""
        thread = threading.Thread(target=self._watch, name="stall-guard", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _watch(self) -> None:
        still_s, looked_at = 0.0, time.monotonic()
        while not self._is_over.wait(self._step_s):
            now = time.monotonic()
            still_s += min(now - looked_at, 2 * self._step_s)
            looked_at = now
            if self._has_turned.is_set():
                self._has_turned.clear()
                still_s = 0.0
            elif still_s >= self._limit_s:
                self._on_stall(still_s)
                return
