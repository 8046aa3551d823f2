"""How fast something arrives. Pure: the clock is given."""

from collections import deque

_SAMPLE_S = 0.25


class Meter:
    """Bytes a second over the last seconds."""

    __slots__ = ("_samples", "_started", "_total", "_window_s")

    def __init__(self, now: float, window_s: float = 5.0) -> None:
        """An empty meter that starts at `now`."""
        self._started = now
        self._window_s = window_s
        self._total = 0
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])

    def add(self, now: float, count: int) -> None:
        """Count bytes that have arrived."""
        self._total += count
        if now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, self._total))
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()

    @property
    def total(self) -> int:
        """All bytes since the start."""
        return self._total

    def age_s(self, now: float) -> float:
        """Since when it measures."""
        return now - self._started

    def rate(self, now: float) -> float | None:
        """Bytes a second over the window; None in the first instant."""
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        then, before = self._samples[0]
        elapsed = now - then
        return (self._total - before) / elapsed if elapsed >= _SAMPLE_S else None
