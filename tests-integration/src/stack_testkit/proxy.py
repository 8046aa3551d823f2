"""A proxy on loopback: HTTP with `CONNECT` and without, and SOCKS5, on one port, with a log."""

import select
import socket
import socketserver
import threading
from dataclasses import dataclass
from typing import Literal, Self, override
from urllib.parse import urlsplit

_BLOCK_BYTES = 1 << 16
_USER, _PASSWORD = b"user", b"secret"


@dataclass(frozen=True, slots=True)
class Passage:
    """One connection that came through.

    Attributes:
        kind: How it was asked for.
        host: Where it went, as it was named.
        login: Whether a name and a password were given.
    """

    kind: Literal["http", "connect", "socks5"]
    host: str
    login: bool


class ServedProxy:
    """A proxy's server, in a thread until it is closed.

    Attributes:
        address: `127.0.0.1:PORT`.
    """

    def __init__(self, server: socketserver.TCPServer) -> None:
        self._listener = server
        self.address = f"127.0.0.1:{server.server_address[1]}"
        self._thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()


class Proxy(ServedProxy):
    """A proxy that listens until it is closed. It takes `user:secret`, and no login as well.

    Attributes:
        passages: What came through so far.
    """

    def __init__(self) -> None:
        self.passages: list[Passage] = []
        server = _Listener(("127.0.0.1", 0), _Handler)
        server.passages = self.passages
        super().__init__(server)


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64
    passages: list[Passage]

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are what this is for."""


class _Handler(socketserver.StreamRequestHandler):
    rbufsize = 0
    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    @override
    def handle(self) -> None:
        first = self.rfile.read(1)
        if first == b"\x05":
            self._socks()
        elif first:
            self._http(first + self.rfile.readline())

    def _socks(self) -> None:
        ways = self.rfile.read(self.rfile.read(1)[0])
        login = 2 in ways
        self.wfile.write(bytes([5, 2 if login else 0]))
        if login:
            self.rfile.read(1)
            user = self.rfile.read(self.rfile.read(1)[0])
            password = self.rfile.read(self.rfile.read(1)[0])
            is_right = (user, password) == (_USER, _PASSWORD)
            self.wfile.write(bytes([1, 0 if is_right else 1]))
            if not is_right:
                return
        kind = self.rfile.read(4)[3]
        if kind == 1:
            host = socket.inet_ntop(socket.AF_INET, self.rfile.read(4))
        elif kind == 4:
            host = socket.inet_ntop(socket.AF_INET6, self.rfile.read(16))
        else:
            host = self.rfile.read(self.rfile.read(1)[0]).decode()
        port = int.from_bytes(self.rfile.read(2))
        self.server.passages.append(Passage("socks5", host, login))
        try:
            there = socket.create_connection((host, port))
        except OSError:
            self.wfile.write(b"\x05\x05\x00\x01" + bytes(6))
            return
        self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
        self._carry(there)

    def _http(self, line: bytes) -> None:
        method, target, version = line.decode().split()
        headers: list[bytes] = []
        while (header := self.rfile.readline()).strip():
            headers.append(header)
        login = any(header.lower().startswith(b"proxy-authorization:") for header in headers)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            self.server.passages.append(Passage("connect", host, login))
            there = socket.create_connection((host.strip("[]"), int(port)))
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            parts = urlsplit(target)
            self.server.passages.append(Passage("http", parts.hostname or "", login))
            there = socket.create_connection((parts.hostname or "", parts.port or 80))
            path = parts._replace(scheme="", netloc="").geturl() or "/"
            kept = [each for each in headers if not each.lower().startswith(b"proxy-")]
            there.sendall(f"{method} {path} {version}\r\n".encode() + b"".join(kept) + b"\r\n")
        self._carry(there)

    def _carry(self, there: socket.socket) -> None:
        """Hand bytes on, both ways, until one side has gone.

        Over plain HTTP, too: a client's next request on the connection goes to the same server,
        which takes the whole address for a path's.
        """
        ends = {self.connection: there, there: self.connection}
        with there:
            while True:
                for end in select.select(list(ends), (), ())[0]:
                    data = end.recv(_BLOCK_BYTES)
                    if not data:
                        return
                    ends[end].sendall(data)
