"""Requests to one model: as many at work as its upstreams take, the others in order.

No request waits inside an engine, which works it off even when its client has left. Urgent ones go
before others, which are overtaken only by those that come soon enough after them.

(decisions 0081 and 0087)
"""

import asyncio
import bisect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.routing import least_busy
from mlx_gateway.settings import ModelSettings, Upstream

_SMOOTHING = 0.2
_RETRY_AFTER_MOST_S = 120
PATIENCE_S = {Priority.INTERACTIVE: 0.0, Priority.AGENT: 30.0, Priority.BATCH: 120.0}
"""How much later a more urgent request may come and still go first: nobody waits for ever."""


@dataclass(slots=True, order=True)
class _Waiter:
    due: float
    number: int
    turn: "asyncio.Future[Upstream]" = field(compare=False)
    excluded: frozenset[str] = field(compare=False)


class WaitingLine:
    """The line in front of one model.

    Args:
        is_up: Whether the upstream at a root is worth a request.
        clock: Seconds that no change of the clock moves.

    Attributes:
        running: How many requests each upstream works on, by its root.
    """

    def __init__(
        self,
        model: ModelSettings,
        is_up: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.running: dict[str, int] = {}
        self._model = model
        self._is_up = is_up
        self._clock = clock
        self._waiting: list[_Waiter] = []
        self._number = 0
        self._seconds = 5.0

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    def change(self, model: ModelSettings) -> None:
        """Go on with other settings of the model."""
        self._model = model
        self.advance()

    async def take(
        self,
        excluded: frozenset[str] = frozenset(),
        priority: Priority = Priority.INTERACTIVE,
    ) -> Upstream:
        """An upstream that this request may go to, once it is its turn; `release` ends the turn.

        Args:
            excluded: The roots of upstreams that have failed this request already.
            priority: How urgent it is.

        Raises:
            ApiError: When the line is full, of more urgent ones if it waited already.
            UpstreamFailedError: When no upstream is left, now or while it waited.
        """
        self._number += 1
        due, turn = self._clock() + PATIENCE_S[priority], asyncio.get_running_loop().create_future()
        waiter = _Waiter(due, self._number, turn, excluded)
        bisect.insort(self._waiting, waiter)
        self.advance()
        if len(self._waiting) > self._model.queue:
            last = self._waiting.pop()
            if not last.turn.done():
                last.turn.set_exception(self._overloaded())
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.release(waiter.turn.result())
            raise

    def release(self, upstream: Upstream, seconds: float | None = None) -> None:
        """End a turn that took `seconds`, and begin the next."""
        self.running[upstream.root] = max(self.running.get(upstream.root, 0) - 1, 0)
        if seconds is not None:
            self._seconds += _SMOOTHING * (seconds - self._seconds)
        self.advance()

    def advance(self) -> None:
        """Begin every turn that can begin now, and send on those for whom no upstream is left."""
        up = [each for each in self._model.upstreams if self._is_up(each.root)]
        for waiter in tuple(self._waiting):
            left = [each for each in up if each.root not in waiter.excluded]
            free = [each for each in left if self._has_room(each)]
            if free or not left:
                self._waiting.remove(waiter)
                self._settle(waiter, least_busy(free, self.running) if free else None)

    def fail(self, reason: str) -> None:
        """Send everyone who waits here on to another model."""
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not waiter.turn.done():
                waiter.turn.set_exception(UpstreamFailedError(reason))

    def _settle(self, waiter: _Waiter, upstream: Upstream | None) -> None:
        if waiter.turn.done():
            return
        if upstream is None:
            waiter.turn.set_exception(UpstreamFailedError("it does not answer"))
        else:
            self.running[upstream.root] = self.running.get(upstream.root, 0) + 1
            waiter.turn.set_result(upstream)

    def _has_room(self, upstream: Upstream) -> bool:
        most = self._model.max_concurrent
        return most is None or self.running.get(upstream.root, 0) < most

    def _overloaded(self) -> ApiError:
        return ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"The model is busy: {len(self._waiting)} requests wait for it already.",
            code="overloaded",
            retry_after_s=self._retry_after_s(),
        )

    def _retry_after_s(self) -> int:
        """When the last of those who wait is likely to have begun."""
        at_once = (self._model.max_concurrent or 1) * len(self._model.upstreams)
        seconds = self._seconds * (len(self._waiting) + 1) / at_once
        return min(max(math.ceil(seconds), 1), _RETRY_AFTER_MOST_S)
