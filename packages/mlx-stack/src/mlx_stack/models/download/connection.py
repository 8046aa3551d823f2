"""One HTTP connection that streams byte ranges and can be broken off from another thread.

Over `http.client`: its reads go from the socket into one `bytes` object, at three times the rate
of httpx, whose parser copies every 64 KB in Python (docs/decisions/0050). Proxies, certificates
and time limits are as in huggingface_hub: the environment's and, on macOS, the system's.
"""

import base64
import http.client
import os
import socket
import ssl
import sys
import time
import urllib.request
from collections.abc import Mapping
from functools import cache
from urllib.parse import SplitResult, unquote, urlsplit

from mlx_stack.models.errors import PullError, TransientError

_SMALLEST_BUFFER_BYTES = 64 * 1024
_LARGEST_BUFFER_BYTES = 4 * 1024 * 1024
_BUFFER_BYTES_PER_S = 32_000_000
"""The kernel's buffer for one connection is what it carries in a round trip at 32 MB/s: larger
ones are no faster, and what a killed process leaves unread in them is lost."""

type Origin = tuple[str, str, int]


def origin_of(url: str) -> Origin:
    """Scheme, host and port: credentials go to no other."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, (parts.hostname or "").lower(), port


def is_web_address(url: str) -> bool:
    """Whether a connection can be made to `url`: HTTP or HTTPS, a host, a port that exists."""
    try:
        scheme, host, _ = origin_of(url)
    except ValueError:
        return False
    return bool(host) and scheme in {"http", "https"}


class Connection:
    """A connection to one origin at a time, opened where it is needed and kept while it is good."""

    def __init__(self, timeout_s: float) -> None:
        """A closed connection; `timeout_s` bounds connecting and every wait for bytes."""
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
        connection, self._prefix, self._extra = _through_proxy(parts, origin, self._timeout_s)
        began = time.monotonic()
        connection.connect()
        self._socket = connection.sock
        buffer_bytes = receive_buffer_bytes(time.monotonic() - began)
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self._http, self._origin = connection, origin
        return connection


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


def _through_proxy(
    parts: SplitResult, origin: Origin, timeout_s: float
) -> tuple[http.client.HTTPConnection, str, Mapping[str, str]]:
    """An unopened connection, what stands before its requests' paths, and headers for them all."""
    scheme, host, port = origin
    proxy = urllib.request.getproxies().get(scheme)
    if not proxy or urllib.request.proxy_bypass(f"{host}:{port}"):
        if scheme == "https":
            context = _tls()
            direct = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
            return direct, "", {}
        return http.client.HTTPConnection(host, port, timeout=timeout_s), "", {}
    through = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if through.scheme != "http" or not through.hostname:
        raise PullError(
            f"The proxy {through.scheme}://{through.hostname} is of a kind that can't be used.",
            hint="Set HTTPS_PROXY to an http:// proxy, or unset it.",
        )
    headers = _proxy_credentials(through)
    place = (through.hostname, through.port or 80)
    if scheme == "https":
        tunnel = http.client.HTTPSConnection(*place, timeout=timeout_s, context=_tls())
        tunnel.set_tunnel(host, port, headers)
        return tunnel, "", {}
    plain = http.client.HTTPConnection(*place, timeout=timeout_s)
    return plain, f"http://{parts.netloc}", headers


def _proxy_credentials(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


@cache
def _tls() -> ssl.SSLContext:
    """The system's trust, or `SSL_CERT_FILE`'s."""
    if os.environ.get("SSL_CERT_FILE") or sys.platform != "darwin":
        return ssl.create_default_context()
    import truststore

    return truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
