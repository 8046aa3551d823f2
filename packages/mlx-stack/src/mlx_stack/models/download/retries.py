"""How fast bytes arrive, when to ask again, when to give up. Pure: clock and chance are given."""

from collections import deque
from dataclasses import dataclass

from mlx_stack.models.errors import HubUnreachableError, TransientError
from mlx_stack.models.hub.client import pause_s

_SAMPLE_S = 0.25


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """When to wait, when to try elsewhere, when to give up.

    Attributes:
        attempts: A file is given up after so many failures without a block in between …
        patience_s: … but not before so long.
        longest_wait_s: A server that wants to be left alone for longer ends the pull.
        take_over_s: An idle connection takes over half of a run that would last longer.
        tick_s: How often the caller's thread looks.
    """

    connections: int = 24
    attempts: int = 5
    patience_s: float = 30.0
    longest_wait_s: float = 300.0
    take_over_s: float = 2.0
    tick_s: float = 0.2


@dataclass(slots=True)
class FileRetries:
    """The failures of one file since its last block.

    Attributes:
        failing_since: When the first of them was.
        not_before: When the file may be asked for again.
    """

    failures: int = 0
    failing_since: float = 0.0
    not_before: float = 0.0

    def failed(
        self, error: TransientError, now: float, jitter: float, policy: TransferPolicy
    ) -> float:
        """Count a failure; how long to wait before the next attempt.

        Args:
            jitter: From 0 to 1, by chance.

        Raises:
            HubUnreachableError: Another attempt has no point.
        """
        if self.failures == 0:
            self.failing_since = now
        self.failures += 1
        delay = max(pause_s(self.failures, jitter), error.retry_after_s or 0.0)
        hint = "The download so far is kept: pull again later to continue it."
        if delay > policy.longest_wait_s:
            message = f"{error.reason}: rate-limited; the server asks to wait {delay:.0f} s."
            raise HubUnreachableError(message, hint=hint)
        is_late = now - self.failing_since >= policy.patience_s
        if is_late and self.failures >= policy.attempts:
            message = f"{error.reason}, and didn't recover within {now - self.failing_since:.0f} s."
            raise HubUnreachableError(message, hint=hint)
        self.not_before = now + delay
        return delay

    def progressed(self) -> None:
        """A block has arrived: what failed before doesn't count any more."""
        self.failures = 0


class Meter:
    """Bytes a second over the last seconds.

    Attributes:
        total: All bytes since the start.
    """

    __slots__ = ("_samples", "_window_s", "total")

    def __init__(self, now: float, window_s: float = 5.0) -> None:
        """An empty meter that starts at `now`."""
        self._window_s = window_s
        self._samples: deque[tuple[float, int]] = deque([(now, 0)])
        self.total = 0

    def add(self, now: float, count: int) -> None:
        """Count bytes that have arrived."""
        self.total += count
        if now - self._samples[-1][0] >= _SAMPLE_S:
            self._samples.append((now, self.total))

    def rate(self, now: float) -> float | None:
        """Bytes a second over the window; None in the first instant."""
        while len(self._samples) > 1 and now - self._samples[1][0] >= self._window_s:
            self._samples.popleft()
        then, before = self._samples[0]
        elapsed = now - then
        return (self.total - before) / elapsed if elapsed >= _SAMPLE_S else None
