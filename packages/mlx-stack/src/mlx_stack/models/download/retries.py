"""When to try again, when elsewhere, when not any more. Pure: clock and chance are given."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_stack.models.errors import HubUnreachableError, TransientError
from mlx_stack.models.hub.answers import pause_s

_TRICKLE_BYTES_S = 1024
"""Slower than this is as good as stalled."""
_FEWEST_TO_COMPARE = 3


@dataclass(frozen=True, slots=True)
class TransferPolicy:
    """When to wait, when to try elsewhere, when to give up.

    Attributes:
        connections: How many at most.
        stall_timeout_s: Without a byte for so long, a connection is broken off.
        attempts: A file is given up after so many failures without a byte in between …
        patience_s: … but not before so long.
        longest_wait_s: A server that wants to be left alone for longer ends the pull.
        slow_ratio: A connection below this part of the median rate is broken off …
        slow_after_s: … once it has been watched for so long.
        take_over_s: An idle connection takes over half of a piece that would last longer.
        sync_interval_s: How often what is there is brought to the disk.
        tick_s: How often the caller's thread looks.
    """

    connections: int = 24
    stall_timeout_s: float = 10.0
    attempts: int = 5
    patience_s: float = 30.0
    longest_wait_s: float = 300.0
    slow_ratio: float = 0.2
    slow_after_s: float = 5.0
    take_over_s: float = 4.0
    sync_interval_s: float = 15.0
    tick_s: float = 0.2


@dataclass(slots=True)
class FileRetries:
    """The failures of one file since its last byte.

    Attributes:
        failures: How many.
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
            error: What happened.
            now: The time.
            jitter: From 0 to 1, by chance.
            policy: When to give up.

        Raises:
            HubUnreachableError: Another attempt has no point.
        """
        if self.failures == 0:
            self.failing_since = now
        self.failures += 1
        delay = max(pause_s(self.failures, jitter), error.retry_after_s or 0.0)
        hint = "What was downloaded is kept: pull again later, and it continues there."
        if delay > policy.longest_wait_s:
            message = f"{error.reason}: the server wants to be left alone for {delay:.0f} s."
            raise HubUnreachableError(message, hint=hint)
        is_late = now - self.failing_since >= policy.patience_s
        if is_late and self.failures >= policy.attempts:
            message = f"{error.reason}, and so it stayed for {now - self.failing_since:.0f} s."
            raise HubUnreachableError(message, hint=hint)
        self.not_before = now + delay
        return delay

    def progressed(self) -> None:
        """A byte has arrived: what failed before doesn't count any more."""
        self.failures = 0


@dataclass(frozen=True, slots=True)
class Pace:
    """How a connection does with its piece.

    Attributes:
        age_s: For how long it has worked on it.
        rate_bytes_s: What arrived over the last seconds.
        remaining_bytes: What is left of it.
    """

    age_s: float
    rate_bytes_s: float
    remaining_bytes: int

    @property
    def lasts_s(self) -> float:
        """How long the rest will take."""
        if not self.rate_bytes_s:
            return float("inf")
        return self.remaining_bytes / self.rate_bytes_s


def find_stragglers(
    paces: Sequence[Pace], idle_rates: Sequence[float], policy: TransferPolicy
) -> list[int]:
    """Which connections should be broken off: far behind the others, or nearly standing still.

    Args:
        paces: The connections that are receiving.
        idle_rates: What connections without work did last, in bytes a second.
        policy: What counts as slow.
    """
    known = [pace.rate_bytes_s for pace in paces] + list(idle_rates)
    usual = statistics.median(known) if len(known) >= _FEWEST_TO_COMPARE else 0.0

    def is_straggler(pace: Pace) -> bool:
        is_behind = (
            pace.age_s > policy.slow_after_s and pace.rate_bytes_s < policy.slow_ratio * usual
        )
        trickles = pace.age_s > policy.stall_timeout_s and pace.rate_bytes_s < _TRICKLE_BYTES_S
        return (is_behind or trickles) and pace.lasts_s > policy.take_over_s

    return [number for number, pace in enumerate(paces) if is_straggler(pace)]
