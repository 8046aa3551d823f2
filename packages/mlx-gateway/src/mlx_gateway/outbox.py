"""The client's side of a request: one answer, whole or as events, and signs of life meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.protocols.api import Api

if TYPE_CHECKING:
    from mlx_gateway.protocols.events import Usage

type Scope = dict[str, Any]
type Message = dict[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Headers = list[tuple[bytes, bytes]]

_UNBUFFERED: Headers = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def _nothing() -> None: ...


class Outbox:
    """Sends one answer.

    Args:
        model: The name that the client asked for.

    Attributes:
        streams: Whether the client asked for events.
        sent_bytes: How long the answer is so far.
        events: How many events of the model's answer have gone out.
        headers: What the answer says of itself. Those that are set after a sign of life has gone
            out are said in the stream before the model's first event.
        first_at: When the first of the model's answer went out, by the monotonic clock, or None.
        on_first: Called then.
        problem: What went wrong after that, in a word; "" where nothing did.
        delivered: What a stream used whose last event has gone out; None before that.
        opening: What the engine has opened the answer with, while nothing of it has gone out.
        opened: What the answer was opened with by a sign of life.
    """

    def __init__(
        self,
        send: Send,
        api: Api,
        *,
        streams: bool = False,
        sign_of_life_s: float = 5.0,
        model: str = "",
    ) -> None:
        self._send = send
        self._api = api
        self.streams = streams
        self._sign_of_life_s = sign_of_life_s
        self._model = model
        self._timer: asyncio.TimerHandle | None = None
        self._sign: asyncio.Task[None] | None = None
        self._sent_at = 0.0
        self._is_open = False
        self._said: Headers = []
        self.sent_bytes: int = 0
        self.events: int = 0
        self.headers: Headers = []
        self.status: int | None = None
        self.first_at: float | None = None
        self.on_first: Callable[[], object] = _nothing
        self.problem = ""
        self.delivered: Usage | None = None
        self.opening: bytes = b""
        self.opened: bytes = b""

    def begin_waiting(self) -> None:
        """From now on, send a sign of life whenever a stream has been silent for long."""
        if self.streams:
            self._sent_at = time.monotonic()
            self._set_timer(self._sign_of_life_s)

    async def event(self, data: bytes) -> None:
        """Send events of the model's answer."""
        if self.first_at is None:
            self._note_first()
            if self.status is not None and self._said != self.headers:
                data = self._api.late_headers(self.headers, self._model) + data
        self.events += data.count(b"\n\n")
        await self._write(data)

    async def open(self) -> None:
        """Send what the engine has opened the answer with, before anything of the answer."""
        self.opened = self.opening
        await self._write(self.opened)

    async def whole(self, status: int, body: bytes, content_type: bytes) -> None:
        """Send a whole answer.

        Raises:
            UpstreamFailedError: When the answer was begun as a stream.
        """
        length = str(len(body)).encode()
        await self._begin(status, [(b"content-type", content_type), (b"content-length", length)])
        self.sent_bytes += len(body)
        await self._send({"type": "http.response.body", "body": body})
        self._is_open = False

    async def begin_raw(self, status: int, headers: Headers) -> None:
        """Begin an answer that is passed on as it comes.

        Raises:
            UpstreamFailedError: When the answer was begun as a stream.
        """
        await self._begin(status, headers)

    async def raw(self, data: bytes) -> None:
        """Send a piece of such an answer."""
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def fail(self, error: ApiError) -> None:
        """Say what went wrong, in the middle of a stream as an event."""
        self.stop_waiting()
        if self.status is None:
            if error.retry_after_s is not None:
                self.headers.append((b"retry-after", str(error.retry_after_s).encode()))
            if error.status == 401:
                self.headers.append((b"www-authenticate", b"Bearer"))
            await self.whole(error.status, self._api.error(error), b"application/json")
        elif self.streams:
            await self._write(self._api.error_event(error))
        else:
            self._is_open = False  # its connection breaks, so that it can't pass for a whole answer

    async def close(self) -> None:
        """End the answer."""
        self.stop_waiting()
        if self._is_open:
            self._is_open = False
            await self._send({"type": "http.response.body", "body": b""})

    def stop_waiting(self) -> None:
        """Send no more signs of life."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sign is not None:
            self._sign.cancel()

    async def _begin(self, status: int, headers: Headers) -> None:
        self.stop_waiting()
        if self.status is not None:
            raise UpstreamFailedError("it did not stream its answer")
        if status < 400:
            self._note_first()
        await self._start(status, headers)

    def _note_first(self) -> None:
        self.first_at = time.monotonic()
        self.on_first()

    async def _start(self, status: int, headers: Headers) -> None:
        self.status = status
        self._is_open = True
        self._said = self.headers
        both = [*headers, *self.headers]
        await self._send({"type": "http.response.start", "status": status, "headers": both})

    async def _write(self, data: bytes) -> None:
        if self.status is None:
            await self._start(200, [(b"content-type", self._api.content_type), *_UNBUFFERED])
        self._sent_at = time.monotonic()
        self.sent_bytes += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    def _set_timer(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._sent_at >= self._sign_of_life_s * 0.99:
            self._sent_at = now
            is_opened = bool(self.opened) or self.first_at is not None
            if not self.opened:
                opens = self._api.signs_open and self.opening
                self.opened = opens or self._api.sign_of_life(self._model)
            sign = _last_event(self.opened) if is_opened else self.opened
            self._sign = asyncio.get_running_loop().create_task(self._write(sign))
        self._set_timer(self._sent_at + self._sign_of_life_s - now)


def _last_event(events: bytes) -> bytes:
    return events[events.rfind(b"\n\n", 0, -2) + 1 :].lstrip(b"\n")
