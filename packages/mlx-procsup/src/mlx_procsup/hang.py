"""When a live service counts as hung: pure, based on the last looks at it."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlx_procsup.state import ServiceState


@dataclass(frozen=True, slots=True)
class HangRule:
    """When a live process that doesn't answer counts as hung.

    Attributes:
        polls: It must have been down this many times in a row.
        cpu_share: It must have used less than this share of a core in that time. During a long
            prefill it doesn't answer either, but it works.
        start_grace_s: It never counts as hung within this time of its start, since loading looks
            the same.
    """

    polls: int = 3
    cpu_share: float = 0.005
    start_grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Observation:
    """What one look at a service showed.

    Attributes:
        at: When, on the monotonic clock.
        is_wanted: Whether it should run.
        was_started: Whether it has ever been started.
        max_memory_bytes: The memory that it may hold; None without a limit.
        wedged: Why it doesn't deliver even if it answers; None if nothing says so.
        silence_s: How long it may leave questions unanswered once it has answered, whatever its
            processor time; None for no limit.
        works_in_silence: Whether it may work although it doesn't answer and uses no processor time.
    """

    at: float
    state: ServiceState
    is_wanted: bool
    was_started: bool = True
    cpu_s: float | None = None
    uptime_s: float | None = None
    memory_bytes: int | None = None
    max_memory_bytes: int | None = None
    wedged: str | None = None
    silence_s: float | None = None
    works_in_silence: bool = False


def is_hung(down: Sequence[Observation], rule: HangRule, silent_since: float | None = None) -> bool:
    """Whether a service hangs that was `down` in each of these last looks, oldest first.

    Args:
        silent_since: When it was first `down` after it had answered.
    """
    if len(down) < rule.polls:
        return False
    first, last = down[0], down[-1]
    if silent_since is not None and last.silence_s is not None:
        if last.at - silent_since >= last.silence_s:
            return True
        if last.works_in_silence:
            return False
    if last.uptime_s is not None and last.uptime_s < rule.start_grace_s:
        return False
    seconds = last.at - first.at
    used_s = (last.cpu_s or 0.0) - (first.cpu_s or 0.0)
    return seconds <= 0 or used_s < rule.cpu_share * seconds
