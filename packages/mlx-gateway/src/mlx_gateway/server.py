"""The gateway as a process: it listens, reads its settings again on SIGHUP, and ends gracefully.

(decision 0080)
"""

import asyncio
import errno
import logging
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, override

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlx_gateway.app import Gateway
from mlx_gateway.errors import ConfigError, PortInUseError
from mlx_gateway.settings import GatewaySettings, TlsSettings, load_version

HEADERS_WITHIN_S = 10.0
"""How long a client may take for a request's head, and how long it may read nothing of an answer
is six times that."""
KEEP_ALIVE_S = 75
_LONGEST_HEAD_BYTES = 64 * 1024
_OPEN_FILES = 10_240
_STREAMS_END_WITHIN_S = 600
_LOOK_EVERY_S = 0.01
_BACKLOG = 1024

_log = logging.getLogger("mlx_gateway")


def serve(
    make_gateway: Callable[[GatewaySettings, str], Gateway],
    config: Path,
    *,
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Listen until SIGTERM or SIGINT; SIGHUP reads the file at `config` and the certificate again.

    Args:
        make_gateway: Called before anything listens, and before the certificate is read.
        config: `gateway.yaml`.
        host: Listen there rather than where the settings say.

    Raises:
        ConfigError: When the file can't be used, or nothing can listen at that address. A door with
            TLS that can't be opened is logged only: those on this machine don't need it.
        PortInUseError: When another program listens there.
    """
    settings, version = load_version(config)
    gateway = make_gateway(settings, version)
    host, port = host or settings.host, port or settings.port
    ports = [port] if settings.ollama_port is None else [port, settings.ollama_port]
    with ExitStack() as stack:
        listeners = [stack.enter_context(_listen(config, host, each)) for each in ports]
        door = _door(config, settings.tls)
        if door is not None:
            stack.enter_context(door.listener)
        raise_file_limit()
        server = GatewayServer(gateway, server_config(gateway), door)
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(_run(server, listeners, gateway, config))


def server_config(
    gateway: Gateway, *, headers_within_s: float = HEADERS_WITHIN_S
) -> uvicorn.Config:
    """How uvicorn serves the gateway."""
    return uvicorn.Config(
        gateway,  # pyright: ignore[reportArgumentType] - ASGI's messages are typed loosely here
        loop="uvloop",
        # any callable that makes a protocol will do
        http=partial(BoundedHttpProtocol, headers_within_s=headers_within_s),  # pyright: ignore[reportArgumentType]
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=_STREAMS_END_WITHIN_S,
    )


def raise_file_limit() -> None:
    """Let this process open as many files as a server needs: a Mac's terminal gives it 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(
    server: "GatewayServer", listeners: list[socket.socket], gateway: Gateway, config: Path
) -> None:
    def reload() -> None:
        try:
            settings, version = load_version(config)
            if server.tls is not None and settings.tls is not None:
                server.tls.read(config, settings.tls)
            gateway.reload(settings, version=version)
        except ConfigError as error:
            _log.error("the settings were not reloaded: %s", error)
        else:
            _log.info("the settings were reloaded")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await server.serve(sockets=listeners)


def _listen(config: Path, host: str, port: int) -> socket.socket:
    """A socket that listens, or the reason why it can't be had."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from error
        raise ConfigError(config, f"can't listen on {host}, port {port}: {error}") from error
    return listener


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["http/1.1"])
    return context


class TlsDoor:
    """A socket that listens, and the certificate that is shown to whoever comes in by it."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext) -> None:
        self.listener = listener
        self.context = context

    def read(self, config: Path, settings: TlsSettings) -> None:
        """Show what the files hold now to whoever connects from now on.

        Raises:
            ConfigError: When they can't be used.
        """
        try:
            self.context.load_cert_chain(settings.certificate, settings.key)
        except OSError as error:  # ssl's own errors are among them
            problem = f"the certificate {settings.certificate} can't be used: {error}"
            raise ConfigError(config, problem) from error


def _door(config: Path, settings: TlsSettings | None) -> TlsDoor | None:
    """The door with TLS; None where there is to be none, or it can't be opened now."""
    if settings is None:
        return None
    try:
        door = TlsDoor(_listen(config, settings.host, settings.port), _context())
        try:
            door.read(config, settings)
        except BaseException:
            door.listener.close()
            raise
    except (ConfigError, PortInUseError) as error:
        _log.warning("other machines can't connect with TLS: %s", error)
        return None
    return door


class GatewayServer(uvicorn.Server):
    """uvicorn, which would end by the signal that asked it to, after all was well.

    It also looks only ten times a second whether it is to end and what is left to do; this one
    ends as soon as nothing is left.

    Args:
        gateway: It is told when the server is asked to end.
        config: What `server_config` makes.
        tls: Another door, if there is one: uvicorn has TLS everywhere or nowhere.
    """

    def __init__(
        self, gateway: Gateway, config: uvicorn.Config, tls: TlsDoor | None = None
    ) -> None:
        super().__init__(config)
        self._gateway = gateway
        self.tls = tls
        self._ending = asyncio.Event()

    def end(self) -> None:
        """End once every answer has ended; only from the server's own thread."""
        self._gateway.end_soon()
        self.should_exit = True
        self._ending.set()

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.tls is None:
            return
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            self._protocol,
            sock=self.tls.listener,
            ssl=self.tls.context,
            ssl_handshake_timeout=HEADERS_WITHIN_S,
            backlog=_BACKLOG,
        )
        self.servers.append(server)

    def _protocol(self) -> asyncio.Protocol:
        make: Any = self.config.http_protocol_class
        state = self.lifespan.state
        return make(config=self.config, server_state=self.server_state, app_state=state)

    @override
    async def main_loop(self) -> None:
        await self.on_tick(0)  # which sets the headers of every answer
        await self._ending.wait()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for door in (*self.servers, *(sockets or ())):
            door.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                # uvicorn says nothing when the last of them has ended
                while (state.connections or state.tasks) and not self.force_exit:  # noqa: ASYNC110
                    await asyncio.sleep(_LOOK_EVERY_S)
        for task in state.tasks:
            task.cancel()
        if not self.force_exit:
            await self.lifespan.shutdown()

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.end()

    @contextmanager
    @override
    def capture_signals(self) -> Generator[None]:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                loop = asyncio.get_running_loop()
                loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's connection, with bounds to what a client may take of it.

    uvicorn waits for a request's head without end and reads one of any size, so that 300 half-open
    connections would close the gateway to everyone; it waits as long for a client that reads
    nothing of its answer, which keeps an engine busy; and it frames answers to HTTP/1.0 in chunks.
    """

    def __init__(self, *args: Any, headers_within_s: float, **more: Any) -> None:
        super().__init__(*args, **more)
        self._headers_within_s = headers_within_s
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._set_deadline()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
        self.resume_writing()
        super().connection_lost(exc)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = 0
        self._set_deadline()

    @override
    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        if self._head_bytes <= _LONGEST_HEAD_BYTES:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        self._clear_deadline()
        if self._head_bytes > _LONGEST_HEAD_BYTES:
            return
        super().on_headers_complete()
        if self.scope["http_version"] == "1.0":
            self.cycle.transport = _WithoutChunks(self.transport)  # pyright: ignore[reportAttributeAccessIssue]

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body:
            self._set_deadline()  # for the rest of a body that nobody waits for any more

    @override
    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._clear_deadline()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(6 * self._headers_within_s, self.transport.abort)

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _LONGEST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(self._headers_within_s, self.transport.abort)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _WithoutChunks:
    """Takes what uvicorn writes in chunks, and passes it on as HTTP/1.0 has it: up to the end."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._is_body = self._is_chunked = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Pass on a head, or a piece of a body."""
        if not self._is_body:
            self._is_body = True
            framing = b"transfer-encoding: chunked\r\n"
            self._is_chunked = framing in data
            data = data.replace(framing, b"", 1)
        elif self._is_chunked:
            size, _, rest = data.partition(b"\r\n")
            data = rest[: int(size, 16)]
        self._transport.write(data)
