"""The client's side of a request: one answer, whole or as events, and signs of life meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from mlx_gateway.errors import ApiError
from mlx_gateway.protocols.api import Api

type Message = dict[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Headers = list[tuple[bytes, bytes]]

_EVENT_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Outbox:
    """Sends one answer.

    Args:
        send: The ASGI server's.
        api: How errors and signs of life look.
        streams: Whether the client asked for events.
        sign_of_life_s: How long a stream may be silent.
        keeps: Whether events are kept and sent as one body: HTTP/1.0 has no chunks.

    Attributes:
        headers: What the answer says of itself; complete before its first byte.
        status: The status that was sent; None before.
        has_answered: Whether a part of the model's answer has gone out.
    """

    def __init__(
        self,
        send: Send,
        api: Api,
        *,
        streams: bool = False,
        keeps: bool = False,
        sign_of_life_s: float = 5.0,
    ) -> None:
        self._send = send
        self._api = api
        self._streams = streams
        self._sign_of_life_s = sign_of_life_s
        self._kept: list[bytes] | None = [] if keeps and streams else None
        self._timer: asyncio.TimerHandle | None = None
        self._sign: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._is_open = False
        self.headers: Headers = []
        self.status: int | None = None
        self.has_answered = False

    def begin_waiting(self) -> None:
        """From now on, send a sign of life whenever a stream has been silent for long."""
        if self._streams and self._kept is None:
            self._sent_at = asyncio.get_running_loop().time()
            self._set_timer()

    async def event(self, data: bytes) -> None:
        """Send events of the model's answer."""
        self.has_answered = True
        await self._write(data)

    async def whole(self, status: int, body: bytes, content_type: bytes) -> None:
        """Send a whole answer."""
        self.has_answered = True
        self.status = status
        length = str(len(body)).encode()
        headers = [(b"content-type", content_type), (b"content-length", length), *self.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def begin_raw(self, status: int, headers: Headers) -> None:
        """Begin an answer that is passed on as it comes."""
        self.has_answered = True
        self.status = status
        both = [*headers, *self.headers]
        self._is_open = True
        await self._send({"type": "http.response.start", "status": status, "headers": both})

    async def raw(self, data: bytes) -> None:
        """Send a piece of such an answer."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: ApiError) -> None:
        """Say what went wrong, in the middle of a stream as an event."""
        if self.status is not None:
            if self._streams:
                await self._write(self._api.error_event(error))
            return
        if error.retry_after_s is not None:
            self.headers.append((b"retry-after", str(error.retry_after_s).encode()))
        if error.status == 401:
            self.headers.append((b"www-authenticate", b"Bearer"))
        self._kept = None
        await self.whole(error.status, self._api.error(error), b"application/json")

    async def close(self) -> None:
        """End the answer."""
        self.stop_waiting()
        if self._kept:
            kept, self._kept = b"".join(self._kept), None
            await self.whole(200, kept, b"text/event-stream; charset=utf-8")
        elif self._is_open:
            self._is_open = False
            await self._send({"type": "http.response.body", "body": b""})

    def stop_waiting(self) -> None:
        """Send no more signs of life."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sign is not None:
            self._sign.cancel()

    async def _write(self, data: bytes) -> None:
        if self._kept is not None:
            self.status = 200
            self._kept.append(data)
            return
        if self.status is None:
            self.status = 200
            headers = [*_EVENT_STREAM, *self.headers]
            self._is_open = True
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._sent_at = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def _set_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._sent_at + self._sign_of_life_s, self._look)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() - self._sent_at >= self._sign_of_life_s - 0.01:
            self._sent_at = loop.time()
            self._sign = loop.create_task(self._write(self._api.sign_of_life()))
        self._set_timer()
