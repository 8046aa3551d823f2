"""HTTP/1.1 to upstreams: pooled connections that pass a body on as it arrives.

Measured against aiohttp and httpcore, which spend most of a request's time on what a gateway
doesn't need: cookies, redirects, proxies, unpacking, URLs built from parts.

(decision 0080)
"""

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, cast, override
from urllib.parse import urlsplit

import httptools

from mlx_gateway.errors import UpstreamFailedError

_CONNECT_WITHIN_S = 5.0
_IDLE_AT_MOST_S = 4.0
"""Shorter than the five seconds after which uvicorn, which engines run on, hangs up."""
_MOST_BUFFERED_BYTES = 2**18
_LONGEST_HEAD_BYTES = 2**16
CHALLENGE_PATH = "/proof"
"""Where an upstream that has to prove itself does so."""


class Challenge(Protocol):
    """A request to which only the upstream itself can give the right answer."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What the request carries."""
        ...

    def is_answered(self, headers: Mapping[str, str], /) -> bool:
        """Whether the answer with these headers, names in lower case, is the upstream's own."""
        ...


type MakeChallenge = Callable[[str, str], Challenge]
"""The question for a method and a path, made anew for each request."""
type FindAsk = Callable[[], MakeChallenge | None]
"""What a new connection to an upstream is to use; None where nothing tells it from others."""

type FindTls = Callable[[], ssl.SSLContext | None]
"""By what a new connection knows an upstream; None where any certificate authority will do."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class Address:
    """Where an upstream listens.

    Attributes:
        is_tls: Whether it speaks TLS.
        prefix: The path that its URL begins with, without a slash at the end.
    """

    host: str
    port: int
    is_tls: bool
    prefix: str

    @staticmethod
    def of(root: str) -> "Address":
        """The address in a URL."""
        parts = urlsplit(root)
        is_tls = parts.scheme == "https"
        port = parts.port or (443 if is_tls else 80)
        return Address(parts.hostname or "", port, is_tls, parts.path.rstrip("/"))


class Response:
    """An upstream's answer; its head has come, its body comes.

    Attributes:
        headers: The headers, names in lower case.
    """

    def __init__(self, connection: "_Connection", status: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, as it comes.

        Raises:
            UpstreamFailedError: When the connection breaks before its end.
        """
        while chunk := await self._connection.next_chunk():
            yield chunk

    async def read(self, most_bytes: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamFailedError: When it is larger than that, or the connection breaks.
        """
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > most_bytes:
                raise UpstreamFailedError("its answer is too long")
        return bytes(body)


class ConnectionPool:
    """Connections to upstreams, kept open for the next request."""

    def __init__(self) -> None:
        self._idle: dict[Address, deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    @asynccontextmanager
    async def request(
        self,
        address: Address,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        find_ask: FindAsk = _nothing,
        find_tls: FindTls = _nothing,
    ) -> AsyncGenerator[Response]:
        """One request; leaving the context before the answer's end closes its connection.

        Nothing of the request is sent on a connection before the upstream has proven itself there.

        Raises:
            UpstreamFailedError: When there is no answer.
        """
        connection, is_reused = await self._open(address, find_ask, find_tls)
        try:
            try:
                response = await connection.ask_for(address, method, path, headers, body)
            except UpstreamFailedError:
                # the upstream hung up on an idle connection just as it was used again
                if not is_reused or connection.has_heard:
                    raise
                connection.close()
                connection = await self._connect(address, find_ask, find_tls)
                response = await connection.ask_for(address, method, path, headers, body)
            yield response
        finally:
            if connection.is_reusable:
                connection.idle_since = time.monotonic()
                self._idle.setdefault(address, deque()).append(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close every idle connection."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _open(
        self, address: Address, find_ask: FindAsk, find_tls: FindTls
    ) -> "tuple[_Connection, bool]":
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if (
                connection.is_reusable
                and time.monotonic() - connection.idle_since < _IDLE_AT_MOST_S
            ):
                return connection, True
            connection.close()
        return await self._connect(address, find_ask, find_tls), False

    def _usual_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    async def _connect(
        self, address: Address, find_ask: FindAsk, find_tls: FindTls
    ) -> "_Connection":
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                _, connection = await loop.create_connection(
                    _Connection,
                    address.host,
                    address.port,
                    ssl=(find_tls() or self._usual_tls()) if address.is_tls else None,
                )
        except TimeoutError as error:
            raise UpstreamFailedError("it doesn't accept connections") from error
        except ssl.SSLCertVerificationError as error:
            raise UpstreamFailedError("its certificate isn't trusted") from error
        except OSError as error:
            raise UpstreamFailedError("nothing listens there") from error
        connection.ask = find_ask()
        if connection.ask is not None:
            await self._challenge(connection, connection.ask, address)
        return connection

    async def _challenge(
        self, connection: "_Connection", ask: MakeChallenge, address: Address
    ) -> None:
        """Return once the upstream has shown that it is what it should be."""
        try:
            question = ask("GET", address.prefix + CHALLENGE_PATH)
            head = _head(address, "GET", CHALLENGE_PATH, question.headers, 0)
            answer = await connection.send(head)
            await answer.read(_LONGEST_HEAD_BYTES)
            is_proven = question.is_answered(answer.headers)
        except BaseException:
            connection.close()
            raise
        if not is_proven:
            connection.close()
            raise UpstreamFailedError("another process answers there")


class _Connection(asyncio.Protocol):
    """One connection, one request at a time.

    Attributes:
        ask: What the upstream must be asked with; None for nothing.
        has_heard: Whether a byte of the answer has come.
        idle_since: When its last request ended.
    """

    def __init__(self) -> None:
        self.ask: MakeChallenge | None = None
        self.has_heard: bool = False
        self.idle_since: float = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._status = 0
        self._headers: dict[str, str] = {}
        self._head_bytes = 0
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._is_paused = False
        self._has_head = False
        self._is_complete = True
        self._keeps_alive = True
        self._broke: str | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def is_reusable(self) -> bool:
        """Whether another request may be sent on it."""
        transport = self._transport
        return (
            self._is_complete
            and self._keeps_alive
            and self._broke is None
            and transport is not None
            and not transport.is_closing()
        )

    async def ask_for(
        self, address: Address, method: str, path: str, headers: Mapping[str, str], body: bytes
    ) -> Response:
        """Send a request, signed if it has to be; its answer, once the head has come."""
        if self.ask is not None:
            headers = {**headers, **self.ask(method, address.prefix + path).headers}
        return await self.send(_head(address, method, path, headers, len(body)) + body)

    async def send(self, request: bytes) -> Response:
        """Send a request; its answer, once the head has come."""
        self.has_heard = self._has_head = self._is_complete = False
        self._headers, self._head_bytes = {}, 0
        self._parser = httptools.HttpResponseParser(self)
        assert self._transport is not None  # made by `create_connection`
        self._transport.write(request)
        while not self._has_head:
            await self._news()
        return Response(self, self._status, self._headers)

    async def next_chunk(self) -> bytes:
        """What has come of the body since last time; empty at its end."""
        while not self._chunks:
            if self._is_complete:
                return b""
            await self._news()
        chunks, self._chunks, self._buffered = self._chunks, [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    async def _news(self) -> None:
        """Wait until something has come.

        Raises:
            UpstreamFailedError: When the connection is broken.
        """
        if self._broke is not None:
            raise UpstreamFailedError(self._broke)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._broke is not None and not self._chunks and not self._is_complete:
            raise UpstreamFailedError(self._broke)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # asyncio.Protocol

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's
        self._transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.has_heard = True
        if self._parser is None or self._is_complete:
            self._fail("it sent more than it was asked for")
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(f"its answer is not HTTP: {error}")
        self._wake()

    @override
    def eof_received(self) -> bool:
        return False

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._keeps_alive = False
        if not self._is_complete:
            if (
                self._has_head
                and "content-length" not in self._headers
                and (self._headers.get("transfer-encoding", "").lower() != "chunked")
            ):
                self._is_complete = True  # a body that ends with its connection
            else:
                self._broke = self._broke or "its connection broke"
        self._wake()

    def _fail(self, reason: str) -> None:
        self._broke = reason
        self.close()

    # httptools

    def on_message_begin(self) -> None:
        """Refuse a second answer."""
        if self._is_complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note a header."""
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > _LONGEST_HEAD_BYTES:
            self._fail("the head of its answer is too long")
            return
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Note that the head has come, unless it says to go on."""
        assert self._parser is not None
        self._keeps_alive = self._parser.should_keep_alive()
        self._status = self._parser.get_status_code()
        self._has_head = self._status >= 200

    def on_body(self, data: bytes) -> None:
        """Keep a piece of the body; read no more while much of it waits."""
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > _MOST_BUFFERED_BYTES and not self._is_paused:
            assert self._transport is not None
            self._is_paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        """Note that the answer has come to its end."""
        if self._has_head:
            self._is_complete = True


def _head(
    address: Address, method: str, path: str, headers: Mapping[str, str], length: int
) -> bytes:
    lines = [f"{method} {address.prefix}{path} HTTP/1.1", f"host: {address.host}:{address.port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if length or method == "POST":
        lines.append(f"content-length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
