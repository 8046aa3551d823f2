"""What a watchdog makes of what it sees: pure decisions, one service and one look at a time."""

from dataclasses import dataclass, field, replace
from enum import StrEnum

from mlx_procsup.restart import History, RestartPolicy, is_flapping, seen_broken, seen_running
from mlx_procsup.state import ServiceState


class Action(StrEnum):
    """What to do about a service now."""

    NOTHING = "nothing"
    WAIT = "wait"
    RESTART = "restart"
    RECYCLE = "recycle"
    FLAPPING = "flapping"


@dataclass(frozen=True, slots=True)
class HangRule:
    """When a live process that doesn't answer counts as hung.

    Attributes:
        polls: it must have been down this many times in a row.
        cpu_share: with less than this share of a core used meanwhile. A long prefill doesn't
            answer either, but it works.
        start_grace_s: never within this time of its start: loading looks the same.
    """

    polls: int = 3
    cpu_share: float = 0.005
    start_grace_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Sight:
    """One look at a service.

    Attributes:
        at: when, on the monotonic clock.
        state: what state it was in.
        wanted: whether it should run.
        pid: its process.
        cpu_s: processor time used so far.
        uptime_s: how long it has run.
        memory_bytes: what it holds.
        max_memory_bytes: what it may hold; None without a limit.
    """

    at: float
    state: ServiceState
    wanted: bool
    pid: int | None = None
    cpu_s: float | None = None
    uptime_s: float | None = None
    memory_bytes: int | None = None
    max_memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """What is remembered of a service from one look to the next.

    Attributes:
        history: its restarts.
        broken_since: when it was first seen dead or hung; None while it isn't.
        down: the last looks, in a row, at which it didn't answer; as many as `HangRule.polls`, so
            that the work it did before it hung doesn't count.
        flapping: it was given up; only the user changes that.
    """

    history: History = field(default_factory=History)
    broken_since: float | None = None
    down: tuple[Sight, ...] = ()
    flapping: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about one service.

    Attributes:
        action: what to do.
        reason: why, in words that stand in a log.
        due_at: when, on the monotonic clock; it lies ahead for WAIT.
    """

    action: Action
    reason: str
    due_at: float


def judge(case: Case, sight: Sight, policy: RestartPolicy, hang: HangRule) -> tuple[Case, Verdict]:
    """What to do about a service, and what to remember of it."""
    if not sight.wanted:
        return Case(), Verdict(Action.NOTHING, "not wanted", sight.at)
    case = _note_down(case, sight, hang)
    trouble = _trouble(case, sight, hang)
    if trouble is None:
        case = replace(case, broken_since=None)
        if sight.state is not ServiceState.DOWN:
            case = replace(case, history=seen_running(case.history, policy, sight.at))
        return case, _recycle(sight)
    if case.broken_since is None:
        case = replace(case, broken_since=sight.at, history=seen_broken(case.history))
    began = case.broken_since if case.broken_since is not None else sight.at
    if case.flapping or is_flapping(case.history, policy, sight.at):
        reason = f"{trouble}; restarted {len(case.history.restarts)} times, giving up"
        return replace(case, flapping=True), Verdict(Action.FLAPPING, reason, sight.at)
    due_at = began + policy.backoff_s(case.history.attempts)
    if sight.at < due_at:
        return case, Verdict(
            Action.WAIT, f"{trouble}; restart in {due_at - sight.at:.0f} s", due_at
        )
    return case, Verdict(Action.RESTART, trouble, due_at)


def clock_jumped(case: Case) -> Case:
    """The case after the machine slept: whoever didn't answer then gets another chance."""
    return replace(case, down=())


def _note_down(case: Case, sight: Sight, hang: HangRule) -> Case:
    if sight.state is not ServiceState.DOWN:
        return replace(case, down=())
    return replace(case, down=(*case.down, sight)[-hang.polls :])


def _trouble(case: Case, sight: Sight, hang: HangRule) -> str | None:
    if sight.state is ServiceState.CRASHED:
        return "crashed"
    if sight.state is ServiceState.STOPPED:
        return "has no PID file"
    if sight.state is not ServiceState.DOWN or len(case.down) < hang.polls:
        return None
    if sight.uptime_s is not None and sight.uptime_s < hang.start_grace_s:
        return None
    first = case.down[0]
    seconds = sight.at - first.at
    used_s = (sight.cpu_s or 0.0) - (first.cpu_s or 0.0)
    if seconds > 0 and used_s >= hang.cpu_share * seconds:
        return None
    return f"no answer in {len(case.down)} polls and no processor time used"


def _recycle(sight: Sight) -> Verdict:
    limit = sight.max_memory_bytes
    if limit is not None and sight.memory_bytes is not None and sight.memory_bytes > limit:
        used_mb, limit_mb = sight.memory_bytes >> 20, limit >> 20
        return Verdict(Action.RECYCLE, f"holds {used_mb} MB, may hold {limit_mb} MB", sight.at)
    return Verdict(Action.NOTHING, "fine", sight.at)
