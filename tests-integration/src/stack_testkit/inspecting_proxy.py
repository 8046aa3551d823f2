"""A proxy that reads TLS, as companies have.

Each connection ends in it, with a certificate of its own authority, and continues in plain HTTP to
a server on this machine, or in TLS to the real one.
"""

import datetime as dt
import socket
import socketserver
import ssl
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import override

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from stack_testkit.proxy import ServedProxy

_BLOCK_BYTES = 1 << 16
_LONGEST_HEAD_BYTES = 1 << 16


class InspectingProxy(ServedProxy):
    """A proxy that listens until it is closed.

    Attributes:
        authority: The file with its authority's certificate, which nobody trusts by default.
        hosts: The names that clients trusted it as, in order.
    """

    def __init__(self, folder: Path, upstream: Mapping[str, str] | None = None) -> None:
        """A proxy that keeps its certificates in `folder`, which must exist.

        Args:
            upstream: The `HOST:PORT` that answers for a name in plain HTTP; the others are asked
                themselves.
        """
        self.hosts: list[str] = []
        self.upstream = dict(upstream or {})
        self._folder = folder
        self._lock = threading.Lock()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority_key = ec.generate_private_key(ec.SECP256R1())
        self._authority = self._certificate("An inspecting proxy", is_authority=True)
        self.authority = folder / "authority.pem"
        self.authority.write_bytes(self._authority.public_bytes(serialization.Encoding.PEM))
        server = _Listener(("127.0.0.1", 0), _Handler)
        server.proxy = self
        super().__init__(server)

    def context_for(self, host: str) -> ssl.SSLContext:
        """What makes a connection believe that it is with `host`."""
        path = self._folder / f"{host}.pem"
        with self._lock:
            if not path.exists():
                content = self._certificate(host).public_bytes(serialization.Encoding.PEM)
                key = self._key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
                path.write_bytes(key + content)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def _certificate(self, name: str, *, is_authority: bool = False) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = subject if is_authority else self._authority.subject
        key = self._authority_key if is_authority else self._key
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if not is_authority:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False
            )
        return builder.sign(self._authority_key, hashes.SHA256())

    def connect(self, host: str, port: int) -> socket.socket:
        """A connection to whatever answers for `host`."""
        if host in self.upstream:
            name, _, number = self.upstream[host].rpartition(":")
            return socket.create_connection((name, int(number)), timeout=30)
        plain = socket.create_connection((host, port), timeout=30)
        return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


class _Listener(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64
    proxy: InspectingProxy

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that don't trust it go away: that is what this is for."""


class _Handler(socketserver.BaseRequestHandler):
    server: _Listener  # pyright: ignore[reportIncompatibleVariableOverride]
    request: socket.socket

    @override
    def handle(self) -> None:
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _LONGEST_HEAD_BYTES:
            block = self.request.recv(_BLOCK_BYTES)
            if not block:
                return
            head += block
        method, target, _ = head.split(b" ", 2)
        if method != b"CONNECT":
            self.request.sendall(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n")
            return
        host, _, port = target.decode("ascii").rpartition(":")
        self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        context = self.server.proxy.context_for(host)
        with context.wrap_socket(self.request, server_side=True) as client:
            self.server.proxy.hosts.append(host)
            with self.server.proxy.connect(host, int(port)) as server:
                back = threading.Thread(target=_pass_on, args=(server, client), daemon=True)
                back.start()
                _pass_on(client, server)
                back.join()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Everything from one connection to the other, until either ends."""
    try:
        while block := source.recv(_BLOCK_BYTES):
            sink.sendall(block)
    except OSError:
        pass
    for each in (source, sink):
        try:
            # not `SSLSocket.shutdown`, which takes the TLS state from under the other thread
            socket.socket.shutdown(each, socket.SHUT_RDWR)
        except OSError:
            continue
