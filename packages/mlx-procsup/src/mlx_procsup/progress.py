"""Whether a load visibly progresses, so that a timeout doesn't end it: pure (decision 0014)."""

from collections.abc import Sequence
from dataclasses import dataclass

# What must grow within the window to count. A Python process that only waits uses well below a
# hundredth of a core; a load keeps at least a tenth busy or pulls pages in.
_CPU_SHARE = 0.10
_MEMORY_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class LoadSample:
    """The values of a loading process at one moment.

    Attributes:
        at_s: When, on a monotonic clock.
        log_bytes: The size of its log.
        cpu_s: The processor time that it has used.
        memory_bytes: Its resident memory.
        answers_http: It already answers, if not with 200: then its log grows with our polls and
            says nothing about progress.
    """

    at_s: float
    log_bytes: int
    cpu_s: float
    memory_bytes: int
    answers_http: bool


def progressed(earlier: LoadSample, later: LoadSample) -> str | None:
    """What grew between two samples: "log", "CPU" or "memory"; None if nothing visibly did."""
    seconds = later.at_s - earlier.at_s
    if seconds <= 0:
        return None
    if later.log_bytes > earlier.log_bytes and not later.answers_http:
        return "log"
    if later.cpu_s - earlier.cpu_s >= _CPU_SHARE * seconds:
        return "CPU"
    if later.memory_bytes - earlier.memory_bytes >= _MEMORY_BYTES:
        return "memory"
    return None


@dataclass(frozen=True, slots=True)
class LoadTimeout:
    """How long to wait for a service.

    Attributes:
        timeout_s: The time that it has in any case.
        window_s: After that, it must have progressed within the last `window_s`.
        limit_s: The final limit, with or without progress, because a busy loop looks like a load.
    """

    timeout_s: float
    window_s: float
    limit_s: float

    @classmethod
    def of(cls, timeout_s: float) -> "LoadTimeout":
        """The usual values: a window of half the timeout, at most 30 s, and ten timeouts."""
        return cls(timeout_s, min(30.0, timeout_s / 2), timeout_s * 10)

    def is_over(self, samples: Sequence[LoadSample], now_s: float) -> bool:
        """Whether to give up at `now_s`, given the samples of the last window, oldest first.

        All times count from the start.
        """
        if now_s < self.timeout_s:
            return False
        if now_s >= self.limit_s or len(samples) < 2:
            return True
        return progressed(samples[0], samples[-1]) is None
