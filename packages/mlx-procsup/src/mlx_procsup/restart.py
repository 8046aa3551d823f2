"""When to restart a service, and when to give up: pure, one service and one look at a time."""

from dataclasses import dataclass, replace
from enum import StrEnum

from mlx_procsup.defaults import MAX_RESTARTS, RESTART_DELAY_S
from mlx_procsup.hang import HangRule, Observation, is_hung
from mlx_procsup.state import ServiceState

_WINDOW_S = 600.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How patiently a service is restarted.

    Attributes:
        delay_s: The pause before the first restart; it doubles with each one that follows.
        max_delay_s: The longest pause.
        max_restarts: More restarts than this within the window mean flapping.
        stable_s: After a service has run for this long, its next pause is the first one again.
    """

    delay_s: float = RESTART_DELAY_S
    max_delay_s: float = 300.0
    max_restarts: int = MAX_RESTARTS
    window_s: float = _WINDOW_S
    stable_s: float = 120.0

    @classmethod
    def of(cls, max_restarts: int, delay_s: float) -> "RestartPolicy":
        """A policy whose window is long enough to notice that its own restarts are flapping.

        The pauses of `max_restarts` + 1 restarts fill at most half of the window.
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
    """What is remembered of a service from one look to the next.

    All times are on one monotonic clock, which sleep doesn't move.

    Attributes:
        restarts: When it was restarted, oldest first.
        attempts: Restarts since it last ran stably.
        running_since: When it was last seen to come up; None while it is not up.
        broken_since: When it was first seen dead or hung; None while it is neither.
        down: The last consecutive looks at which it didn't answer; up to `HangRule.polls` of them,
            so that work done before it hung doesn't count.
        is_flapping: Whether the watchdog has given up on it; only the user changes that.
        has_answered: Whether it has answered since it was started.
        silent_since: Since when it hasn't answered although it had before; None while it answers.
    """

    restarts: tuple[float, ...] = ()
    attempts: int = 0
    running_since: float | None = None
    broken_since: float | None = None
    down: tuple[Observation, ...] = ()
    is_flapping: bool = False
    has_answered: bool = False
    silent_since: float | None = None

    def restarted(self, now: float) -> "History":
        """The history after a restart."""
        return History((*self.restarts, now), self.attempts + 1)


class Action(StrEnum):
    """What to do about a service now."""

    NOTHING = "nothing"
    WAIT = "wait"
    START = "start"
    RESTART = "restart"
    RECYCLE = "recycle"
    GIVE_UP = "give-up"


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one service.

    Attributes:
        due_at: When, on the monotonic clock; in the future for WAIT.
    """

    action: Action
    reason: str
    due_at: float


def decide(
    history: History, seen: Observation, policy: RestartPolicy, hang: HangRule
) -> tuple[History, Decision]:
    """What to remember of a service after a look at it, and what to do about it."""
    if not seen.is_wanted:
        return History(), Decision(Action.NOTHING, "not wanted", seen.at)
    is_down = seen.state is ServiceState.DOWN
    history = _answering(history, seen, hang.polls)
    trouble = _trouble(history, seen, hang)
    if trouble is None:
        history = replace(history, broken_since=None)
        return history if is_down else _seen_up(history, policy, seen.at), _recycle(seen)
    if history.broken_since is None:
        history = replace(history, broken_since=seen.at, running_since=None)
    began = seen.at if history.broken_since is None else history.broken_since
    if seen.was_started and (history.is_flapping or _is_flapping(history, policy, seen.at)):
        reason = f"{trouble}; restarted {len(history.restarts)} times, giving up"
        return replace(history, is_flapping=True), Decision(Action.GIVE_UP, reason, seen.at)
    action = Action.RESTART if seen.was_started else Action.START
    due_at = began + policy.backoff_s(history.attempts)
    if seen.at < due_at:
        reason = f"{trouble}; {action} in {due_at - seen.at:.0f} s"
        return history, Decision(Action.WAIT, reason, due_at)
    return history, Decision(action, trouble, due_at)


def _answering(history: History, seen: Observation, polls: int) -> History:
    """The history with what the look says of whether it answers."""
    if seen.state is not ServiceState.DOWN:
        answers = seen.state in (ServiceState.HEALTHY, ServiceState.DEGRADED)
        return replace(history, down=(), silent_since=None, has_answered=answers)
    since = history.silent_since
    if since is None and history.has_answered:
        since = seen.at
    return replace(history, down=(*history.down, seen)[-polls:], silent_since=since)


def _seen_up(history: History, policy: RestartPolicy, now: float) -> History:
    """The history after the service was seen to answer; a stable period resets the pauses."""
    since = now if history.running_since is None else history.running_since
    return replace(
        history,
        restarts=tuple(at for at in history.restarts if now - at < policy.window_s),
        attempts=0 if now - since >= policy.stable_s else history.attempts,
        running_since=since,
    )


def _is_flapping(history: History, policy: RestartPolicy, now: float) -> bool:
    """Whether one more restart would be more than `max_restarts` within the window."""
    recent = [at for at in history.restarts if now - at < policy.window_s]
    return len(recent) >= policy.max_restarts


def _trouble(history: History, seen: Observation, hang: HangRule) -> str | None:
    if not seen.was_started:
        return "should run, and was never started"
    if seen.state is ServiceState.CRASHED:
        return "crashed"
    if seen.state is ServiceState.STOPPED:
        return "has no PID file"
    if seen.wedged is not None:
        return seen.wedged
    if is_hung(history.down, hang, history.silent_since):
        since = history.silent_since
        if since is not None and seen.at - since >= (seen.silence_s or float("inf")):
            return f"no answer for {seen.at - since:.0f} s"
        return f"no answer in {len(history.down)} polls and no processor time used"
    return None


def _recycle(seen: Observation) -> Decision:
    limit = seen.max_memory_bytes
    if limit is not None and seen.memory_bytes is not None and seen.memory_bytes > limit:
        used_mb, limit_mb = seen.memory_bytes >> 20, limit >> 20
        return Decision(Action.RECYCLE, f"uses {used_mb} MB, and may use {limit_mb} MB", seen.at)
    return Decision(Action.NOTHING, "fine", seen.at)
