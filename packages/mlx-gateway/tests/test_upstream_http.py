"""HTTP to upstreams: bytes however they come, connections kept and given up."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from itertools import pairwise

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.upstream_http import Address, ConnectionPool

type Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
type Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[Address]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    try:
        yield Address.of(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    finally:
        server.close()


def answering(*pieces: bytes, times: int = 1) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(times):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)

    return serve


async def ask(address: Address, pool: ConnectionPool | None = None) -> tuple[int, bytes]:
    pool = pool or ConnectionPool()
    async with pool.request(address, "GET", "/", {}) as response:
        return response.status, await response.read(2**20)


@pytest.mark.parametrize(
    ("root", "address"),
    [
        ("http://127.0.0.1:8000", Address("127.0.0.1", 8000, is_tls=False, prefix="")),
        ("http://h", Address("h", 80, is_tls=False, prefix="")),
        ("https://h/api/", Address("h", 443, is_tls=True, prefix="/api")),
        ("http://[::1]:9", Address("::1", 9, is_tls=False, prefix="")),
    ],
)
def test_an_address_is_read_from_a_url(root: str, address: Address) -> None:
    assert Address.of(root) == address


@pytest.mark.parametrize(
    "answer",
    [
        HELLO,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",  # until the connection ends
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
    ],
)
@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 120), max_size=6))
def test_an_answer_is_the_same_however_it_comes(answer: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(answer), *(cut % len(answer) for cut in cuts)})
    pieces = [answer[a:b] for a, b in pairwise(places)]

    async def story() -> None:
        async with listening(answering(*pieces)) as address:
            assert await ask(address) == (200, b"hello")

    asyncio.run(story())


@pytest.mark.parametrize("at", range(0, len(HELLO), 7))
async def test_an_answer_that_breaks_off_anywhere_is_a_failure(at: int) -> None:
    async with listening(answering(HELLO[:at])) as address:
        with pytest.raises(UpstreamFailedError, match="broke"):
            await ask(address)


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-OpenSSH\r\n\r\n", b"\x00\x01\x02\x03", b"HTTP/1.1 abc\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 5\r\n\r\nhello",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"],
)  # fmt: skip
async def test_what_is_no_http_is_a_failure(answer: bytes) -> None:
    async with listening(answering(answer)) as address:
        with pytest.raises(UpstreamFailedError):
            await ask(address)


async def test_a_head_without_end_is_a_failure() -> None:
    lines = [b"X-Header-%d: %s\r\n" % (number, b"x" * 1000) for number in range(100)]
    async with listening(answering(b"HTTP/1.1 200 OK\r\n", *lines)) as address:
        with pytest.raises(UpstreamFailedError, match="is too long"):
            await ask(address)


async def test_an_answer_without_end_is_a_failure() -> None:
    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 2**16)
            await writer.drain()

    async with listening(talks) as address:
        with pytest.raises(UpstreamFailedError, match="is too long"):
            await ask(address)


async def test_where_nothing_listens_it_is_said() -> None:
    async with listening(answering()) as address:
        pass

    with pytest.raises(UpstreamFailedError, match="nothing listens"):
        await ask(address)


async def test_a_connection_is_kept_for_the_next_request() -> None:
    connections = 0

    async def counts(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await answering(HELLO, times=10)(reader, writer)

    async with listening(counts) as address:
        pool = ConnectionPool()
        for _ in range(5):
            assert await ask(address, pool) == (200, b"hello")
        pool.close()

    assert connections == 1


async def test_a_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    closed = asyncio.Event()

    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(HELLO)(reader, writer)
        if not closed.is_set():
            await reader.readuntil(b"\r\n\r\n")  # the next request, which it will not answer
            closed.set()
            writer.transport.abort()

    async with listening(hangs_up) as address:
        pool = ConnectionPool()
        assert await ask(address, pool) == (200, b"hello")
        assert await ask(address, pool) == (200, b"hello")
        assert closed.is_set()


async def test_a_request_that_broke_on_a_new_connection_is_not_sent_again() -> None:
    requests = 0

    async def breaks(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1

    async with listening(breaks) as address:
        with pytest.raises(UpstreamFailedError):
            await ask(address)

    assert requests == 1


async def test_leaving_an_answer_in_the_middle_closes_its_connection() -> None:
    left = asyncio.Event()

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()
        left.set()

    async with listening(talks) as address:
        pool = ConnectionPool()
        async with pool.request(address, "GET", "/", {}) as response:
            async for chunk in response.chunks():
                assert chunk == b"x"
                break
        await left.wait()


async def test_an_engine_that_talks_faster_than_its_client_reads_is_held_back() -> None:
    written = 0

    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 2**16)
            await writer.drain()
            written += 2**16

    async with listening(talks) as address:
        pool = ConnectionPool()
        async with pool.request(address, "GET", "/", {}) as response:
            await anext(response.chunks())
            before = -1
            while before != written:
                before = written
                await asyncio.sleep(0.1)
            assert written < 2**25, "most of it waits at the engine"
            total = [len(chunk) async for chunk in response.chunks()]
    assert sum(total) > 2**25


async def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    async def goes_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(HELLO)(reader, writer)
        writer.write(HELLO)
        await reader.read()

    async with listening(goes_on) as address:
        pool = ConnectionPool()
        assert await ask(address, pool) == (200, b"hello")
        await asyncio.sleep(0.05)
        assert await ask(address, pool) == (200, b"hello")


async def test_the_request_reaches_the_engine_as_it_was_meant() -> None:
    seen = b""

    async def notes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(2)
        writer.write(HELLO)

    async with listening(notes) as address:
        behind = Address(address.host, address.port, is_tls=False, prefix="/api")
        async with ConnectionPool().request(behind, "POST", "/v1/x", {"a": "b"}, b"{}") as response:
            await response.read(10)

    assert (
        seen
        == (
            f"POST /api/v1/x HTTP/1.1\r\nhost: 127.0.0.1:{address.port}\r\na: b\r\n"
            "content-length: 2\r\n\r\n{}"
        ).encode()
    )


class _Asked:
    """A question whose right answer is the secret, and how often it was asked."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.asked: list[str] = []

    def __call__(self, method: str, path: str) -> "_Question":
        self.asked.append(f"{method} {path}")
        return _Question(self.secret)


class _Question:
    def __init__(self, secret: str) -> None:
        self._secret = secret

    @property
    def headers(self) -> dict[str, str]:
        return {"x-proof": "nonce"}

    def is_answered(self, headers: Mapping[str, str], /) -> bool:
        return headers.get("x-proof") == self._secret


def _proving(secret: str, got: list[bytes]) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            got.append(await reader.readuntil(b"\r\n\r\n"))
            proof = f"x-proof: {secret}\r\n".encode()
            if b"GET /proof " in got[-1]:
                writer.write(b"HTTP/1.1 204 No Content\r\n" + proof + b"\r\n")
            else:
                writer.write(HELLO)

    return serve


async def test_nothing_is_sent_before_the_upstream_has_proven_itself() -> None:
    got: list[bytes] = []
    wanted = _Asked("right")
    async with listening(_proving("wrong", got)) as address:
        pool = ConnectionPool()
        with pytest.raises(UpstreamFailedError, match="another process answers there"):
            async with pool.request(address, "POST", "/v1/x", {}, b"a prompt", lambda: wanted):
                pass
    assert len(got) == 1
    assert got[0].startswith(b"GET /proof ")
    assert b"a prompt" not in got[0]


async def test_a_proof_is_asked_once_a_connection_and_every_request_is_signed() -> None:
    got: list[bytes] = []
    wanted = _Asked("right")
    async with listening(_proving("right", got)) as address:
        pool = ConnectionPool()
        for _ in range(3):
            async with pool.request(address, "GET", "/v1/x", {}, find_ask=lambda: wanted) as answer:
                assert await answer.read(99) == b"hello"
        pool.close()
    assert wanted.asked == ["GET /proof", *["GET /v1/x"] * 3]
    assert all(b"x-proof: nonce" in head for head in got)


async def test_an_upstream_that_was_started_again_is_asked_with_its_new_secret() -> None:
    secret, pool = "first", ConnectionPool()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 204 No Content\r\nx-proof: {secret}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HELLO)  # and hangs up, as one that is stopped

    async with listening(serve) as address:
        for secret in ("first", "second"):
            find = _finding(secret)
            async with pool.request(address, "GET", "/", {}, find_ask=find) as answer:
                assert await answer.read(99) == b"hello"


def _finding(secret: str) -> Callable[[], _Asked]:
    return lambda: _Asked(secret)


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    authority.configure_trust(context)
    return context


async def test_an_upstream_with_another_authority_gets_not_a_byte_of_a_request() -> None:
    own, other, got = trustme.CA(), trustme.CA(), list[bytes]()

    async def greets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await reader.read(4096))
        if got[-1]:
            writer.write(HELLO)
            await writer.drain()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.issue_cert("upstream.invalid").configure_cert(context)
    server = await asyncio.start_server(greets, "127.0.0.1", 0, ssl=context)
    address = Address.of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    pool = ConnectionPool()
    for trusted in (trusting(other), None):
        with pytest.raises(UpstreamFailedError, match="certificate isn't trusted"):
            async with pool.request(address, "GET", "/", {}, find_tls=lambda it=trusted: it):
                pass
    assert not any(got)

    async with pool.request(address, "GET", "/", {}, find_tls=lambda: trusting(own)) as response:
        assert await response.read(100) == b"hello"
    pool.close()
    server.close()
