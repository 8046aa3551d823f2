"""The gateway as a process: it listens, reads its settings again on SIGHUP, and ends gracefully."""

import asyncio
import hashlib
import logging
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, override

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlx_gateway.app import Gateway
from mlx_gateway.errors import ConfigError, PortInUseError
from mlx_gateway.settings import GatewaySettings, load_settings

HEADERS_WITHIN_S = 10.0
KEEP_ALIVE_S = 75.0
_LONGEST_HEADERS_BYTES = 64 * 1024
_OPEN_FILES = 8192
_STREAMS_END_WITHIN_S = 600
_BACKLOG = 1024

_log = logging.getLogger("mlx_gateway")


def serve(
    make_gateway: Callable[[GatewaySettings, str], Gateway],
    config: Path,
    *,
    host: str | None = None,
    port: int | None = None,
) -> None:
    """Listen until SIGTERM or SIGINT; SIGHUP reads the file at `config` again.

    Args:
        make_gateway: Makes the application from the settings and their version.
        config: `gateway.yaml`.
        host: Listen there rather than where the settings say.
        port: The same.

    Raises:
        ConfigError: When the file can't be used.
        PortInUseError: When another program listens there.
    """
    settings = load_settings(config)
    gateway = make_gateway(settings, version_of(config))
    listener = _listen(host or settings.host, port or settings.port)
    raise_file_limit()
    server = uvicorn.Server(
        uvicorn.Config(
            gateway,  # pyright: ignore[reportArgumentType] - ASGI's messages are typed loosely here
            loop="uvloop",
            http=_PatientlessProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(KEEP_ALIVE_S),
            timeout_graceful_shutdown=_STREAMS_END_WITHIN_S,
        )
    )
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        runner.run(_run(server, listener, gateway, config))


def version_of(config: Path) -> str:
    """The digest of a settings file: which version of it is in force."""
    return hashlib.sha256(config.read_bytes()).hexdigest()


def raise_file_limit() -> None:
    """Let this process open as many files as a server needs: a Mac's terminal gives it 256."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _run(
    server: uvicorn.Server, listener: socket.socket, gateway: Gateway, config: Path
) -> None:
    def reload() -> None:
        try:
            version = version_of(config)
            gateway.reload(load_settings(config), version=version)
        except (ConfigError, OSError) as error:
            _log.error("the settings stay as they were: %s", error)
        else:
            _log.info("the settings were read again")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
    await server.serve(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens, or the reason why it can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortInUseError(host, port) from error
    listener.listen(_BACKLOG)
    return listener


class _PatientlessProtocol(HttpToolsProtocol):
    """uvicorn's connection, with limits to what a request's head may take in time and in bytes.

    uvicorn waits for a first request without end, so that 300 half-open connections would close the
    gateway to everyone.
    """

    _deadline: asyncio.TimerHandle | None = None
    _head_bytes = 0

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._set_deadline()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_deadline()
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
        super().on_header(name, value)
        self._count(len(name) + len(value))

    @override
    def on_headers_complete(self) -> None:
        self._clear_deadline()
        super().on_headers_complete()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > _LONGEST_HEADERS_BYTES and not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
                b"content-length: 0\r\nconnection: close\r\n\r\n"
            )
            self.transport.close()

    def _set_deadline(self) -> None:
        self._clear_deadline()
        self._deadline = self.loop.call_later(HEADERS_WITHIN_S, self._give_up)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
