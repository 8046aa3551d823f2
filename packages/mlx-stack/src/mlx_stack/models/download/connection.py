"""One HTTP connection that streams byte ranges and can be broken off from another thread.

Over `http.client`: its reads go from the socket into one `bytes` object, at three times the rate
of httpx, whose parser copies every 64 KB in Python (decision 0050). Proxies and certificates are
those of the `HubEnvironment`.
"""

import base64
import http.client
import socket
import ssl
import time
from collections.abc import Mapping
from urllib.parse import SplitResult, unquote, urlsplit

from mlx_stack.models.download.socks import SocksConnection
from mlx_stack.models.errors import TransientError
from mlx_stack.models.hub.environment import HubEnvironment, Origin, origin_of

_SMALLEST_BUFFER_BYTES = 64 * 1024
_LARGEST_BUFFER_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES_PER_S = 32_000_000
"""The kernel's buffer for one connection is what it carries in a round trip at 32 MB/s: larger
ones are no faster, and what a killed process leaves unread in them is lost."""


class Connection:
    """A connection to one origin at a time, opened where it is needed and kept while it is good."""

    def __init__(self, environment: HubEnvironment, timeout_s: float) -> None:
        """A closed connection; `timeout_s` bounds connecting and every wait for bytes."""
        self._environment = environment
        self._timeout_s = timeout_s
        self._origin: Origin | None = None
        self._http: http.client.HTTPConnection | None = None
        self._socket: socket.socket | None = None
        self._prefix = ""
        self._extra: Mapping[str, str] = {}

    def get(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """The answer to a GET, its body unread.

        Raises:
            TransientError: No connection, no answer in time, or a broken one.
        """
        is_reused = self._is_open_to(origin_of(url))
        try:
            return self._get(url, headers)
        except TransientError:
            if not is_reused:
                raise
            return self._get(url, headers)  # the server had closed the idle connection

    def abort(self) -> None:
        """Break the connection off, from any thread: whoever reads from it is let go at once."""
        connected = self._socket
        if connected is not None:
            try:
                # not `SSLSocket.shutdown`, which takes the TLS state from under the reader
                socket.socket.shutdown(connected, socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._http is not None:
            self._http.close()
        self._http = self._socket = self._origin = None

    def _is_open_to(self, origin: Origin) -> bool:
        """Whether the last answer left a connection behind that the next request can use."""
        return self._http is not None and self._http.sock is not None and self._origin == origin

    def _get(self, url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        try:
            http_connection = self._connected(parts)
            all_headers = {**headers, **self._extra}
            http_connection.request("GET", self._prefix + target, headers=all_headers)
            return http_connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise TransientError(describe(error, parts.hostname)) from error

    def _connected(self, parts: SplitResult) -> http.client.HTTPConnection:
        origin = origin_of(parts.geturl())
        if self._is_open_to(origin):
            assert self._http is not None
            return self._http
        self.close()
        connection, self._prefix, self._extra = self._unopened(parts, origin)
        began = time.monotonic()
        connection.connect()
        self._socket = connection.sock
        buffer_bytes = receive_buffer_bytes(time.monotonic() - began)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._http, self._origin = connection, origin
        return connection

    def _unopened(
        self, parts: SplitResult, origin: Origin
    ) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
        """A connection, what stands before its requests' paths, and headers for them all."""
        scheme, host, port = origin
        timeout_s, tls = self._timeout_s, self._environment.tls()
        proxy = self._environment.proxy_of(parts.geturl())
        if proxy is None:
            if scheme == "https":
                direct = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=tls)
                return direct, "", {}
            return http.client.HTTPConnection(host, port, timeout=timeout_s), "", {}
        through = urlsplit(proxy)
        if through.scheme.startswith("socks"):
            context = tls if scheme == "https" else None
            return SocksConnection(through, host, port, timeout_s=timeout_s, tls=context), "", {}
        headers = _proxy_credentials(through)
        place = (through.hostname or "", through.port or 80)
        if scheme == "https":
            tunnel = http.client.HTTPSConnection(*place, timeout=timeout_s, context=tls)
            tunnel.set_tunnel(host, port, headers)
            return tunnel, "", {}
        plain = http.client.HTTPConnection(*place, timeout=timeout_s)
        return plain, f"http://{parts.netloc}", headers


def receive_buffer_bytes(round_trip_s: float) -> int:
    """The size of the kernel's buffer for a connection of so long a way."""
    needed = int(round_trip_s * _BUFFER_BYTES_PER_S)
    return min(max(needed, _SMALLEST_BUFFER_BYTES), _LARGEST_BUFFER_BYTES)


def describe(error: BaseException, host: str | None) -> str:
    """A connection's failure in words that a person knows."""
    match error:
        case TimeoutError():
            return f"no answer from {host}"
        case socket.gaierror():
            return f"the name {host} can't be resolved"
        case ssl.SSLCertVerificationError():
            return f"the certificate of {host} can't be verified: {error.verify_message}"
        case ConnectionRefusedError():
            return f"{host} refuses connections"
        case http.client.HTTPException() | ConnectionError():
            return f"{host} broke the connection off"
        case _:
            return f"no connection to {host}: {error}"


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
