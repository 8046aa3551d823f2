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
from typing import Protocol

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.routing import IDLE, NodeLoad, fewest_tokens
from mlx_gateway.settings import ModelSettings, Upstream

_SMOOTHING = 0.2
_RETRY_AFTER_MOST_S = 120
_LOYAL_S = 5.0
"""How long a turn waits for the upstream that is best for it while others have nothing to do."""
_REST_S = 5.0
"""How long an upstream gets nothing that is there and could not answer."""
PATIENCE_S = {Priority.INTERACTIVE: 0.0, Priority.AGENT: 30.0, Priority.BATCH: 120.0}
"""How much later a more urgent request may come and still go first: nobody waits for ever."""


class PromptToRead(Protocol):
    """A prompt that is to be read, where it matters by whom."""

    def unseen_tokens(self, upstream: Upstream) -> int:
        """How many of its tokens the upstream has not read."""
        ...

    def begin(self, upstream: Upstream) -> None:
        """Note that the upstream reads it from now on."""
        ...


@dataclass(slots=True, order=True)
class _Waiter:
    due: float
    number: int
    turn: "asyncio.Future[Turn]" = field(compare=False)
    excluded: frozenset[str] = field(compare=False)
    reading: PromptToRead | None = field(compare=False)
    came_at: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Turn:
    """A request's turn.

    Attributes:
        unread_tokens: What its upstream had not read of its prompt; 0 where nobody looked.
    """

    upstream: Upstream
    unread_tokens: int = 0


class WaitingLine:
    """The line in front of one model.

    Args:
        is_up: Whether the upstream at a root is worth a request.
        clock: Seconds that no change of the clock moves.

    """

    def __init__(
        self,
        model: ModelSettings,
        is_up: Callable[[str], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._loads: dict[str, NodeLoad] = {}
        self._model = model
        self._is_up = is_up
        self._clock = clock
        self._waiting: list[_Waiter] = []
        self._rest_until: dict[str, float] = {}
        self._number = 0
        self._seconds = 5.0

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        """Where they go."""
        return self._model.upstreams

    def running_at(self, root: str) -> int:
        """How many requests the upstream at a root works on."""
        return self._loads.get(root, IDLE).running

    @property
    def running(self) -> int:
        """How many requests all of them work on."""
        return sum(load.running for load in self._loads.values())

    def change(self, model: ModelSettings) -> None:
        """Go on with other settings of the model."""
        self._model = model
        self.advance()

    async def take(
        self,
        excluded: frozenset[str] = frozenset(),
        priority: Priority = Priority.INTERACTIVE,
        reading: PromptToRead | None = None,
    ) -> Turn:
        """A turn at an upstream that this request may go to; `release` ends it.

        Args:
            excluded: The roots of upstreams that have failed this request already.
            priority: How urgent it is.
            reading: Its prompt, if it matters who reads it.

        Raises:
            ApiError: When the line is full, of more urgent ones if it waited already.
            UpstreamFailedError: When no upstream is left, now or while it waited.
        """
        self._number += 1
        now, loop = self._clock(), asyncio.get_running_loop()
        due, turn = now + PATIENCE_S[priority], loop.create_future()
        waiter = _Waiter(due, self._number, turn, excluded, reading, now)
        bisect.insort(self._waiting, waiter)
        self.advance()
        if len(self._waiting) > self._model.queue:
            last = self._waiting.pop()
            if not last.turn.done():
                last.turn.set_exception(self._overloaded())
        loyalty = None
        if reading is not None and not turn.done():
            loyalty = loop.call_later(_LOYAL_S, self.advance)
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.turn.cancelled() and waiter.turn.exception() is None:
                self.release(waiter.turn.result())
            raise
        finally:
            if loyalty is not None:
                loyalty.cancel()

    def release(self, turn: Turn, seconds: float | None = None) -> None:
        """End a turn that took `seconds`, and begin the next."""
        root = turn.upstream.root
        self._loads[root] = self._loads.get(root, IDLE).without_one(turn.unread_tokens)
        if seconds is not None:
            self._seconds += _SMOOTHING * (seconds - self._seconds)
        self.advance()

    def rest(self, upstream: Upstream) -> None:
        """Let an upstream that is there and could not answer be the last choice for a while."""
        self._rest_until[upstream.root] = self._clock() + _REST_S

    def advance(self) -> None:
        """Begin every turn that can begin now, and send on those for whom no upstream is left."""
        now = self._clock()
        up = [each for each in self._model.upstreams if self._is_up(each.root)]
        fresh = [each for each in up if self._rest_until.get(each.root, now) <= now]
        for waiter in tuple(self._waiting):
            left = [each for each in fresh if each.root not in waiter.excluded]
            left = left or [each for each in up if each.root not in waiter.excluded]
            upstream = self._best(waiter, left, now) if left else None
            if upstream is None and left:
                continue
            self._waiting.remove(waiter)
            self._settle(waiter, upstream)

    def _best(self, waiter: _Waiter, left: list[Upstream], now: float) -> Upstream | None:
        """Where a request goes now; None where it has to wait."""
        free = [each for each in left if self._has_room(each)]
        if not free or len(left) == 1 or waiter.reading is None:
            return fewest_tokens(free, self._loads, {}) if free else None
        unseen = {each.root: waiter.reading.unseen_tokens(each) for each in left}
        is_loyal = now - waiter.came_at < _LOYAL_S * 0.99
        best = fewest_tokens(left if is_loyal else free, self._loads, unseen)
        return best if self._has_room(best) else None

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
            return
        unread_tokens = 0
        if waiter.reading is not None:
            unread_tokens = waiter.reading.unseen_tokens(upstream)
            waiter.reading.begin(upstream)
        load = self._loads.get(upstream.root, IDLE)
        self._loads[upstream.root] = load.with_one(unread_tokens)
        waiter.turn.set_result(Turn(upstream, unread_tokens))

    def _has_room(self, upstream: Upstream) -> bool:
        most = self._model.max_concurrent
        return most is None or self.running_at(upstream.root) < most

    def _overloaded(self) -> ApiError:
        return ApiError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"The model is busy: {len(self._waiting)} requests are already waiting for it.",
            code="overloaded",
            retry_after_s=self._retry_after_s(),
        )

    def _retry_after_s(self) -> int:
        """When the last of those who wait is likely to have begun."""
        at_once = (self._model.max_concurrent or 1) * len(self._model.upstreams)
        seconds = self._seconds * (len(self._waiting) + 1) / at_once
        return min(max(math.ceil(seconds), 1), _RETRY_AFTER_MOST_S)
