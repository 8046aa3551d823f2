"""Requests to one model: as many at work as its upstreams take, the others in order.

No request waits inside an engine, which works it off even when its client has left.
"""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field
from http import HTTPStatus

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.routing import least_busy
from mlx_gateway.settings import ModelSettings, Upstream

_SMOOTHING = 0.2
_RETRY_AFTER_MOST_S = 120


@dataclass(slots=True)
class _Waiter:
    turn: "asyncio.Future[Upstream]"
    excluded: frozenset[str]


@dataclass(slots=True)
class WaitingLine:
    """The line in front of one model.

    Attributes:
        model: What the settings say of the model; replaced when they are read again.
        running: How many requests each upstream works on, by its root.
    """

    model: ModelSettings
    running: dict[str, int] = field(default_factory=dict[str, int])
    _waiting: deque[_Waiter] = field(default_factory=deque[_Waiter])
    _seconds: float = 5.0

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._waiting)

    async def take(self, excluded: frozenset[str] = frozenset()) -> Upstream:
        """An upstream that this request may go to, once it is its turn; `release` ends the turn.

        Args:
            excluded: The roots of upstreams that have failed this request already.

        Raises:
            ApiError: When the line is full.
            UpstreamFailedError: When every upstream is excluded, or the model failed meanwhile.
        """
        if all(upstream.root in excluded for upstream in self.model.upstreams):
            raise UpstreamFailedError("every upstream of it has failed")
        upstream = None if self._waiting else self._free(excluded)
        if upstream is not None:
            return self._started(upstream)
        if len(self._waiting) >= self.model.queue:
            raise ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The model is busy: {len(self._waiting)} requests wait for it already.",
                code="overloaded",
                retry_after_s=self._retry_after_s(),
            )
        waiter = _Waiter(asyncio.get_running_loop().create_future(), excluded)
        self._waiting.append(waiter)
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif waiter.turn.done() and not waiter.turn.cancelled() and not waiter.turn.exception():
                self.release(waiter.turn.result())
            raise

    def release(self, upstream: Upstream, seconds: float | None = None) -> None:
        """End a turn that took `seconds`, and begin the next."""
        self.running[upstream.root] = max(self.running.get(upstream.root, 0) - 1, 0)
        if seconds is not None:
            self._seconds += _SMOOTHING * (seconds - self._seconds)
        self.advance()

    def advance(self) -> None:
        """Begin every turn that can begin now."""
        for waiter in tuple(self._waiting):
            upstream = self._free(waiter.excluded)
            if upstream is not None:
                self._waiting.remove(waiter)
                if not waiter.turn.done():
                    waiter.turn.set_result(self._started(upstream))

    def fail(self, reason: str) -> None:
        """Send everyone who waits here on to another model."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.turn.done():
                waiter.turn.set_exception(UpstreamFailedError(reason))

    def _free(self, excluded: frozenset[str]) -> Upstream | None:
        most = self.model.max_concurrent
        open_ones = [
            upstream
            for upstream in self.model.upstreams
            if upstream.root not in excluded
            and (most is None or self.running.get(upstream.root, 0) < most)
        ]
        return least_busy(open_ones, self.running) if open_ones else None

    def _started(self, upstream: Upstream) -> Upstream:
        self.running[upstream.root] = self.running.get(upstream.root, 0) + 1
        return upstream

    def _retry_after_s(self) -> int:
        """When the last of those who wait is likely to have begun."""
        at_once = (self.model.max_concurrent or 1) * len(self.model.upstreams)
        seconds = self._seconds * (len(self._waiting) + 1) / at_once
        return min(max(math.ceil(seconds), 1), _RETRY_AFTER_MOST_S)
