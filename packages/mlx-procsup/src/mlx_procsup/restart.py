"""When to restart, and when to stop trying: pure arithmetic over a history of restarts."""

from dataclasses import dataclass

_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patiently a service is brought back.

    Attributes:
        delay_s: the pause before the first restart; it doubles with each one that follows.
        max_delay_s: the longest pause.
        max_restarts: more than these within the window mean flapping.
        window_s: the time in which restarts are counted.
        stable_s: a service that ran this long starts again with the first pause.
    """

    delay_s: float = 5.0
    max_delay_s: float = 300.0
    max_restarts: int = 5
    window_s: float = _WINDOW_S
    stable_s: float = 120.0

    @classmethod
    def of(cls, max_restarts: int, delay_s: float) -> "RestartPolicy":
        """A policy whose window is long enough to see its own restarts as flapping.

        The pauses alone of `max_restarts` + 1 restarts fill half of it at most.
        """
        policy = cls(delay_s=delay_s, max_restarts=max_restarts)
        pauses_s = sum(policy.backoff_s(attempt) for attempt in range(max_restarts + 1))
        return cls(
            delay_s=delay_s,
            max_restarts=max_restarts,
            window_s=max(_WINDOW_S, 2 * pauses_s),
            stable_s=max(policy.stable_s, 2 * delay_s),
        )

    def backoff_s(self, attempt: int) -> float:
        """The pause before a restart that follows `attempt` unstable ones."""
        doublings = min(attempt, 32)  # beyond it, only an overflow could happen
        return min(self.delay_s * 2.0**doublings, self.max_delay_s)


@dataclass(frozen=True, slots=True)
class History:
    """What was done for a service; all times on one monotonic clock, which sleep doesn't move.

    Attributes:
        restarts: when it was restarted, oldest first.
        attempts: restarts since it last ran stably.
        running_since: when it was last seen to come up; None while it is not up.
    """

    restarts: tuple[float, ...] = ()
    attempts: int = 0
    running_since: float | None = None


def seen_running(history: History, policy: RestartPolicy, now: float) -> History:
    """The history after the service was seen alive; a stable period resets the pauses."""
    since = now if history.running_since is None else history.running_since
    stable = now - since >= policy.stable_s
    return History(
        restarts=tuple(at for at in history.restarts if now - at < policy.window_s),
        attempts=0 if stable else history.attempts,
        running_since=since,
    )


def seen_broken(history: History) -> History:
    """The history after the service was seen dead or hung."""
    return History(history.restarts, history.attempts, None)


def restarted(history: History, now: float) -> History:
    """The history after a restart."""
    return History((*history.restarts, now), history.attempts + 1, None)


def is_flapping(history: History, policy: RestartPolicy, now: float) -> bool:
    """Whether one more restart would be more than `max_restarts` within the window."""
    recent = [at for at in history.restarts if now - at < policy.window_s]
    return len(recent) >= policy.max_restarts
