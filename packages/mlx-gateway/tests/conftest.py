"""Engines that say what a test tells them to, and a gateway in front of them, on real sockets."""

import asyncio
import contextlib
import inspect
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from mlx_gateway.access import Hosts
from mlx_gateway.app import Gateway
from mlx_gateway.keys import KeyRing
from mlx_gateway.options import GatewayOptions
from mlx_gateway.server import GatewayServer, server_config
from mlx_gateway.settings import parse_settings

KEY = "a-key-of-the-test"
WITHIN_S = 30

type Handler = Callable[["Exchange"], Awaitable[None]]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run tests that are coroutines."""
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(inspect.unwrap(test)) or hasattr(test, "hypothesis"):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    given = {name: pyfuncitem.funcargs[name] for name in names}

    async def story() -> None:
        async with asyncio.timeout(WITHIN_S):
            await test(**given)

    asyncio.run(story())
    return True


@dataclass
class Exchange:
    """One request at an engine, and the means to answer it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    writer: asyncio.StreamWriter

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    async def json(self, document: object, status: int = 200) -> None:
        body = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n"
        self.writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()

    async def begin_events(self) -> None:
        self.writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n" % len(data) + data + b"\r\n")
        await self.writer.drain()

    async def end(self) -> None:
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def events(self, *documents: object, done: bool = True) -> None:
        await self.begin_events()
        for document in documents:
            await self.send(b"data: " + json.dumps(document).encode() + b"\n\n")
        if done:
            await self.send(b"data: [DONE]\n\n")
        await self.end()

    def hang_up(self) -> None:
        self.writer.transport.abort()


@dataclass
class ScriptedEngine:
    """An engine whose answers a test writes."""

    handler: Handler
    seen: list[Exchange] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    hears: asyncio.Event = field(default_factory=asyncio.Event)
    server: asyncio.Server | None = None
    port: int = 0
    questions: int = 0
    told: dict[str, object] = field(default_factory=dict[str, object])

    async def start(self) -> None:
        self.hears.set()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.split("\r\n")
                method, path, _ = first.split(" ")
                headers = {
                    name.lower(): value.strip()
                    for name, _, value in (line.partition(":") for line in lines if line)
                }
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                exchange = Exchange(method, path, headers, body, writer)
                await self.hears.wait()
                if method == "GET" and path in self.told:
                    await exchange.json(self.told[path])
                    continue
                if method == "GET":
                    self.questions += 1
                    await exchange.json({"object": "list", "data": []})
                    continue
                self.seen.append(exchange)
                self.asked.set()
                answer = asyncio.ensure_future(self.handler(exchange))
                watch = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({answer, watch}, return_when=asyncio.FIRST_COMPLETED)
                if watch.done():
                    self.left.set()
                    answer.cancel()
                    return
                watch.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watch
        except (asyncio.IncompleteReadError, ConnectionError):
            self.left.set()
        finally:
            writer.close()


@dataclass
class Answer:
    """What a client got."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of each event, and text where it is none."""
        found: list[Any] = []
        for event in self.body.decode().split("\n\n"):
            for line in event.splitlines():
                if line.startswith("data:"):
                    data = line[5:].strip()
                    found.append(json.loads(data) if data.startswith("{") else data)
        return found


@dataclass
class Client:
    """Asks the gateway over a socket, byte by byte if need be."""

    port: int

    async def ask(
        self,
        path: str,
        document: object = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        key: str | None = KEY,
    ) -> Answer:
        reader, writer = await self.open(
            path, document, method=method, headers=headers, body=body, key=key
        )
        try:
            return await asyncio.wait_for(self.read(reader), 30)
        finally:
            writer.close()

    async def open(
        self,
        path: str,
        document: object = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        key: str | None = KEY,
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if body is None:
            body = b"" if document is None else json.dumps(document).encode()
        method = method or ("POST" if body else "GET")
        lines = {"host": "localhost", "content-length": str(len(body)), "connection": "close"}
        if key is not None:
            lines["authorization"] = f"Bearer {key}"
        lines.update(headers or {})
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)
        await writer.drain()
        return reader, writer

    async def send(self, *pieces: bytes) -> bytes:
        """What comes back for bytes that are sent as they are, until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def read(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines if line)
        }
        body = b""
        if headers.get("transfer-encoding") == "chunked":
            while size := int(await reader.readline(), 16):
                body += await reader.readexactly(size)
                await reader.readline()
        else:
            body = await reader.read()
        return Answer(int(first.split(" ")[1]), headers, body)


@dataclass
class Bench:
    """A gateway, its engines and a client."""

    gateway: Gateway
    client: Client
    engines: list[ScriptedEngine]


type MakeBench = Callable[..., contextlib.AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def running(
    settings: str, *handlers: Handler, headers_within_s: float = 10.0, **options: Any
) -> AsyncIterator[Bench]:
    """A gateway with these settings; `PORT0`, `PORT1`, … stand for the engines' ports."""
    engines = [ScriptedEngine(handler) for handler in handlers]
    for number, engine in enumerate(engines):
        await engine.start()
        settings = settings.replace(f"PORT{number}", str(engine.port))
    given = GatewayOptions(**{"keys": KeyRing(KEY), "hosts": Hosts(), **options})
    gateway = Gateway(parse_settings(settings), given)
    config = server_config(gateway, headers_within_s=headers_within_s)
    config.timeout_graceful_shutdown = 1
    server = GatewayServer(gateway, config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    task = asyncio.ensure_future(server._serve([listener]))
    client = Client(listener.getsockname()[1])
    await client.ask("/health/liveliness", key=None)
    try:
        yield Bench(gateway, client, engines)
    finally:
        server.end()
        for engine in engines:
            await engine.stop()
        await task


@pytest.fixture
def bench() -> MakeBench:
    """Makes a gateway in front of scripted engines."""
    return running
