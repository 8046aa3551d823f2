"""A connection through a SOCKS5 proxy (RFC 1928, RFC 1929), which looks names up itself."""

import http.client
import ipaddress
import socket
import ssl
from typing import override
from urllib.parse import SplitResult, unquote

_DEFAULT_PORT = 1080
_VERSION, _CONNECT, _NO_LOGIN, _PASSWORD = 5, 1, 0, 2
_IPV4, _NAME, _IPV6 = 1, 3, 4
_ADDRESS_BYTES = {_IPV4: 4, _IPV6: 16}


class SocksConnection(http.client.HTTPConnection):
    """An HTTP connection whose bytes a SOCKS proxy carries, encrypted where there is a context."""

    def __init__(
        self,
        proxy: SplitResult,
        host: str,
        port: int,
        *,
        timeout_s: float,
        tls: ssl.SSLContext | None,
    ) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._proxy = proxy
        self._timeout_s = timeout_s
        self._tls = tls

    @override
    def connect(self) -> None:
        """Connect to the proxy, and through it.

        Raises:
            OSError: When the proxy can't be reached, or refuses.
        """
        place = (self._proxy.hostname or "", self._proxy.port or _DEFAULT_PORT)
        sock = socket.create_connection(place, self._timeout_s)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _log_in(sock, self._proxy)
            _ask_for(sock, self.host, self.port)
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_hostname=self.host)
        except BaseException:
            sock.close()
            raise
        self.sock = sock


def _log_in(sock: socket.socket, proxy: SplitResult) -> None:
    ways = [_NO_LOGIN] if proxy.username is None else [_NO_LOGIN, _PASSWORD]
    sock.sendall(bytes([_VERSION, len(ways), *ways]))
    _, way = _exactly(sock, 2)
    if way not in ways:
        raise OSError("the SOCKS proxy wants another login")
    if way == _PASSWORD:
        user, password = (unquote(part or "").encode() for part in (proxy.username, proxy.password))
        sock.sendall(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        if _exactly(sock, 2)[1] != 0:
            raise OSError("the SOCKS proxy does not accept the password")


def _ask_for(sock: socket.socket, host: str, port: int) -> None:
    try:
        address = ipaddress.ip_address(host)
        target = bytes([_IPV4 if address.version == 4 else _IPV6]) + address.packed
    except ValueError:
        name = host.encode("idna")
        target = bytes([_NAME, len(name)]) + name
    sock.sendall(bytes([_VERSION, _CONNECT, 0]) + target + port.to_bytes(2))
    _, refusal, _, kind = _exactly(sock, 4)
    if refusal:
        raise OSError(f"the SOCKS proxy can't connect (code {refusal})")
    _exactly(sock, (_ADDRESS_BYTES.get(kind) or _exactly(sock, 1)[0]) + 2)


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        if not part:
            raise OSError("the SOCKS proxy broke the connection off")
        data += part
    return data
