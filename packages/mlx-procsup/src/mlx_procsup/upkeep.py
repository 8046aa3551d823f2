"""When an idle service is restarted although nothing is broken: pure, one look at a time.

Memory that grew while a service worked is often given back. The sign of a leak is the floor: the
least memory that the service held in a whole hour. A service may also say in its log that it has
run out of a resource that only its end releases. Either way it is restarted when it is idle.

(decision 0100)
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class UpkeepRule:
    """When an idle service is restarted.

    Attributes:
        window_s: A floor is the least memory that it held in this time.
        windows: This many floors in a row must be too high.
        growth: A floor is too high if it exceeds the first floor by this factor, and also the
            planned memory.
        idle_s: It must have been idle for this long.
        pause_s: The shortest time since the last such restart.
    """

    window_s: float = 3600.0
    windows: int = 2
    growth: float = 1.25
    idle_s: float = 60.0
    pause_s: float = 1800.0


@dataclass(frozen=True, slots=True)
class Condition:
    """What one look at a service showed.

    Attributes:
        at: When, on the monotonic clock.
        pid: Its process; None if it isn't up.
        is_idle: Whether it is known to be idle.
        has_worked: Whether it has done any work yet: memory that it loads late isn't growth.
        memory_bytes: The memory that it holds; None if unknown.
        planned_bytes: The memory that it may grow to; None if no one has planned it.
        exhausted: How many times its log has said since the last look that it ran out of a
            resource.
        said: What it said then.
    """

    at: float
    pid: int | None
    is_idle: bool = False
    has_worked: bool = True
    memory_bytes: int | None = None
    planned_bytes: int | None = None
    exhausted: int = 0
    said: str = ""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What is remembered of a service; times are on the monotonic clock.

    Attributes:
        pid: The process that the rest is about.
        idle_since: Since when it has been idle; None while it works.
        window_at: When the current window began; None before it has worked.
        least_bytes: The least memory that it held in that window.
        first_bytes: Its first floor.
        floor_bytes: Its last floor.
        high: How many floors in a row were too high.
        exhausted: How many times the log said that this process ran out of a resource.
        said: What it said last.
        done_at: When it was last restarted for this reason.
    """

    pid: int | None = None
    idle_since: float | None = None
    window_at: float | None = None
    least_bytes: int | None = None
    first_bytes: int | None = None
    floor_bytes: int | None = None
    high: int = 0
    exhausted: int = 0
    said: str = ""
    done_at: float = float("-inf")

    def done(self, now: float) -> "Upkeep":
        """What is remembered after it was restarted."""
        return Upkeep(done_at=now)


def look_after(before: Upkeep, seen: Condition, rule: UpkeepRule) -> tuple[Upkeep, str | None]:
    """What to remember of a service after a look, and why to restart it now; None for no reason."""
    if seen.pid is None or seen.pid != before.pid:
        before = Upkeep(pid=seen.pid, done_at=before.done_at)
    idle_since = before.idle_since if before.idle_since is not None else seen.at
    after = replace(
        _measured(before, seen, rule),
        idle_since=idle_since if seen.is_idle else None,
        exhausted=before.exhausted + seen.exhausted,
        said=seen.said or before.said,
    )
    has_rested = seen.is_idle and seen.at - idle_since >= rule.idle_s
    if seen.pid is None or not has_rested or seen.at - before.done_at < rule.pause_s:
        return after, None
    return after, _why(after, rule)


def _measured(before: Upkeep, seen: Condition, rule: UpkeepRule) -> Upkeep:
    """The history with what it holds now; a window that is over has a floor."""
    if seen.memory_bytes is None or not seen.has_worked:
        return before
    if before.window_at is None or before.least_bytes is None:
        return replace(before, window_at=seen.at, least_bytes=seen.memory_bytes)
    least_bytes = min(before.least_bytes, seen.memory_bytes)
    if seen.at - before.window_at < rule.window_s:
        return replace(before, least_bytes=least_bytes)
    first_bytes = least_bytes if before.first_bytes is None else before.first_bytes
    is_high = (
        seen.planned_bytes is not None
        and least_bytes > seen.planned_bytes
        and least_bytes > rule.growth * first_bytes
    )
    return replace(
        before,
        window_at=seen.at,
        least_bytes=seen.memory_bytes,
        first_bytes=first_bytes,
        floor_bytes=least_bytes,
        high=before.high + 1 if is_high else 0,
    )


def _why(upkeep: Upkeep, rule: UpkeepRule) -> str | None:
    if upkeep.exhausted:
        times = "once" if upkeep.exhausted == 1 else f"{upkeep.exhausted} times"
        return f"its log said {times}: {upkeep.said}"
    if upkeep.high >= rule.windows and upkeep.floor_bytes and upkeep.first_bytes:
        first_mb, floor_mb = upkeep.first_bytes >> 20, upkeep.floor_bytes >> 20
        hours = upkeep.high * rule.window_s / 3600
        return (
            f"its memory crept up: never less than {floor_mb} MB in {hours:.3g} h, more than was "
            f"planned, and {first_mb} MB at first"
        )
    return None
