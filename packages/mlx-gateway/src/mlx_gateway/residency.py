"""Which models are in memory: whether one more fits, and which make room for it. Pure.

What is loaded has a claim on the memory that it may come to hold, and no plan exceeds the budget.
Room is made by models that are idle: the least important first, among these the one that was used
longest ago. A model that was loaded stays for a while, or two that exclude each other would be
loaded in turns, each for one request. One that waits in vain for busy models makes them take no
new requests, so that it isn't shut out for ever (decision 0089).
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """A model that is loaded or loading.

    Attributes:
        claim_bytes: What it may come to hold, or holds already if that is more.
        since: When it was loaded; all times are on one monotonic clock.
        used_at: When it last had a request.
        is_busy: Whether it works on a request, is loading, or is waited for.
        importance: The less important make room first.
        pinned: Whether it never makes room.
    """

    name: str
    claim_bytes: int
    since: float
    used_at: float
    is_busy: bool = False
    importance: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRule:
    """How room is made.

    Attributes:
        budget_bytes: What all models together may hold.
        min_stay_s: How long a model stays, once it was loaded.
        patience_s: How long one waits for busy models before they take no new requests.
    """

    budget_bytes: int
    min_stay_s: float = 10.0
    patience_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Load:
    """It may be loaded now, once those in `evict` are gone."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WaitForRoom:
    """It has to wait.

    Attributes:
        for_whom: Who would have to go, and stays for now.
        until: When another look is worth it though nothing else has happened.
        drain: Those that are to take no new requests meanwhile.
    """

    for_whom: tuple[str, ...]
    until: float | None = None
    drain: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never be loaded: `missing_bytes` are missing even if all others were gone.

    Attributes:
        pinned_bytes: What the pinned ones hold.
    """

    missing_bytes: int
    pinned_bytes: int


type RoomDecision = Load | WaitForRoom | Refuse


def decide_room(
    claim_bytes: int,
    residents: Sequence[Resident],
    rule: RoomRule,
    *,
    asked_at: float,
    now: float,
) -> RoomDecision:
    """Whether a model that will hold `claim_bytes` may be loaded next to the others.

    Args:
        asked_at: Since when it has waited.
    """
    movable = [each for each in residents if not each.pinned]
    pinned_bytes = sum(each.claim_bytes for each in residents if each.pinned)
    if claim_bytes + pinned_bytes > rule.budget_bytes:
        return Refuse(claim_bytes + pinned_bytes - rule.budget_bytes, pinned_bytes)
    held_bytes = sum(each.claim_bytes for each in residents)
    missing_bytes = held_bytes + claim_bytes - rule.budget_bytes
    if missing_bytes <= 0:
        return Load()
    stays = [each for each in movable if now < each.since + rule.min_stay_s]
    free = [each for each in movable if not each.is_busy and each not in stays]
    evicted = _making_room(free, missing_bytes)
    if evicted is not None:
        return Load(_names(evicted))
    has_patience = now < asked_at + rule.patience_s
    drained = None
    if not has_patience:
        drained = _making_room([each for each in movable if each not in stays], missing_bytes)
    times = [each.since + rule.min_stay_s for each in stays]
    times += [asked_at + rule.patience_s] if has_patience else []
    in_the_way = [each for each in movable if each.is_busy or each in stays]
    return WaitForRoom(_names(in_the_way), min(times, default=None), _names(drained or ()))


def decide_relief(residents: Sequence[Resident], *, may_be_busy: bool) -> str | None:
    """Who goes when the machine itself is short of memory, whatever the budget says; None for none.

    It is who would make room for a model: the least important one that is idle. No stay protects
    it, since what was just loaded may be what was too much.

    Args:
        may_be_busy: Whether one that works on a request may go, where none is idle.
    """
    movable = [each for each in residents if not each.pinned]
    idle = [each for each in movable if not each.is_busy]
    chosen = _making_room(idle or (movable if may_be_busy else ()), 1)
    return chosen[0].name if chosen else None


def _making_room(choice: Sequence[Resident], missing_bytes: int) -> list[Resident] | None:
    """Those that make enough room, none of them in vain; None where all together don't."""
    chosen: list[Resident] = []
    freed_bytes = 0
    for each in sorted(choice, key=lambda each: (each.importance, each.used_at, each.name)):
        if freed_bytes >= missing_bytes:
            break
        chosen.append(each)
        freed_bytes += each.claim_bytes
    if freed_bytes < missing_bytes:
        return None
    for each in reversed(chosen[:]):
        if freed_bytes - each.claim_bytes >= missing_bytes:
            chosen.remove(each)
            freed_bytes -= each.claim_bytes
    return chosen


def _names(residents: Sequence[Resident]) -> tuple[str, ...]:
    return tuple(each.name for each in residents)
