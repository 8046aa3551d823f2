"""The memory that all engines share: who may be started, and who makes room (decision 0089)."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from mlx_gateway.residency import Load, Refuse, Resident, RoomRule, WaitForRoom, decide_room
from mlx_stack.format import format_bytes
from mlx_stack.services.sleeper import CannotStartError, Sleeper

WAITS_AT_MOST_S = 120.0
_LOOK_EVERY_S = 1.0
_RETRY_AFTER_S = 30.0

_log = logging.getLogger("mlx_stack")


@dataclass(slots=True, eq=False)
class _Waiter:
    sleeper: Sleeper
    asked_at: float


class Room:
    """The door that every engine passes which a request starts. It lives in one event loop.

    Args:
        sleepers: All that may be in memory, whenever it is called.
        rule: The rule in force; None where the machine's memory is unknown, and all may start.
        clock: Seconds that no change of the clock moves.
    """

    def __init__(
        self,
        sleepers: Callable[[], Iterable[Sleeper]],
        rule: Callable[[], RoomRule | None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sleepers = sleepers
        self._rule = rule
        self._clock = clock
        self._line: list[_Waiter] = []
        self._entered: dict[str, int] = {}
        self._changed = asyncio.Event()
        self._deciding = asyncio.Lock()

    def changed(self) -> None:
        """Learn that a request has ended, or a process: those who wait look again."""
        self._changed.set()

    def leave(self, sleeper: Sleeper) -> None:
        """Learn that a start has ended, however it did."""
        self._entered.pop(sleeper.name, None)
        self.changed()

    async def enter(self, sleeper: Sleeper) -> None:
        """Return once there is room for `sleeper`, which has it from then on until `leave`.

        Raises:
            CannotStartError: When there will never be room, or not soon enough.
        """
        claim, rule = sleeper.plan.claim_bytes, self._rule()
        if claim is None or rule is None:
            return
        if claim > rule.budget_bytes:
            raise _too_large(claim, Refuse(claim - rule.budget_bytes, 0), rule)
        waiter = _Waiter(sleeper, self._clock())
        self._line.append(waiter)
        try:
            while not await self._is_let_in(waiter):
                self._changed.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), _LOOK_EVERY_S)
            self._entered[sleeper.name] = claim
        finally:
            self._line.remove(waiter)
            sleeper.waits_for = ()
            if not self._line:
                self._drain(())
            self.changed()

    @property
    def _first(self) -> _Waiter:
        """Whose turn it is: the one with the most urgent request, then the one that came first."""
        return min(self._line, key=lambda waiter: (waiter.sleeper.due, waiter.asked_at))

    async def _is_let_in(self, waiter: _Waiter) -> bool:
        """Whether it may start now; what makes room for it is gone by then.

        Raises:
            CannotStartError: When it will never have room, not soon enough, or no use for it.
        """
        if waiter.sleeper.in_use == 0:
            raise CannotStartError("no request waits for it any longer", is_failure=False)
        async with self._deciding:
            rule, claim = self._rule(), waiter.sleeper.plan.claim_bytes
            if rule is None or claim is None:
                return True
            await asyncio.to_thread(waiter.sleeper.process.ensure_wanted)  # else all is in vain
            residents = await self._residents(waiter.sleeper)
            now, first = self._clock(), self._first
            waiter.sleeper.waits_for = () if first is waiter else (first.sleeper.name,)
            verdict = decide_room(claim, residents, rule, asked_at=waiter.asked_at, now=now)
            match verdict:
                case Refuse():
                    raise _too_large(claim, verdict, rule)
                case WaitForRoom(for_whom, _, drain):
                    waiter.sleeper.waits_for = for_whom
                    if first is waiter:
                        self._drain(drain)
                    if now - waiter.asked_at > WAITS_AT_MOST_S:
                        raise CannotStartError(
                            "there is no room in memory while "
                            f"{' and '.join(for_whom)} work{'s' * (len(for_whom) == 1)}",
                            retry_after_s=_RETRY_AFTER_S,
                            is_failure=False,
                        )
                    return False
                case Load(()):
                    # who comes later may pass only while those in front of it have patience
                    return first is waiter or now - first.asked_at < rule.patience_s
                case Load(evict):
                    return first is waiter and await self._end(evict, waiter.sleeper)

    async def _residents(self, newcomer: Sleeper) -> list[Resident]:
        """Who is in memory, or will be, with what they claim or hold."""
        others = [
            each
            for each in self._sleepers()
            if each is not newcomer and each.plan.claim_bytes is not None
        ]
        entering = dict(self._entered)  # a start that ends while we look counts all the same
        held = await asyncio.to_thread(lambda: [each.process.held_bytes() for each in others])
        now, residents = self._clock(), list[Resident]()
        for each, held_bytes in zip(others, held, strict=True):
            entered = entering.get(each.name)
            if held_bytes is None and entered is None:
                continue
            since = each.since if each.since is not None else float("-inf")
            residents.append(
                Resident(
                    name=each.name,
                    claim_bytes=max(each.plan.claim_bytes or 0, held_bytes or 0),
                    since=now if entered is not None else since,
                    used_at=each.used_at if each.used_at is not None else float("-inf"),
                    is_busy=each.is_busy or entered is not None,
                    importance=each.plan.importance,
                    pinned=each.plan.pinned,
                )
            )
        return residents

    async def _end(self, names: tuple[str, ...], newcomer: Sleeper) -> bool:
        """Whether all of these have ended; one of them may have got a request meanwhile."""
        doomed = [each for each in self._sleepers() if each.name in names]
        _log.info("%s make room for %s", ", ".join(names), newcomer.name)
        gone = await asyncio.gather(*(each.rest() for each in doomed))
        return all(gone)

    def _drain(self, names: tuple[str, ...]) -> None:
        for each in self._sleepers():
            each.makes_room = each.name in names


def _too_large(claim_bytes: int, refusal: Refuse, rule: RoomRule) -> CannotStartError:
    missing, pinned = format_bytes(refusal.missing_bytes), format_bytes(refusal.pinned_bytes)
    beside = f" and {pinned} of it are for pinned tiers" if refusal.pinned_bytes else ""
    return CannotStartError(
        f"it needs {format_bytes(claim_bytes)} of memory: {missing} too much, since the budget is "
        f"{format_bytes(rule.budget_bytes)} (memory-budget-pct){beside}",
        is_failure=False,
    )
