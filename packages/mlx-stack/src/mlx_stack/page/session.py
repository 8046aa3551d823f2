"""Who looks at the page: a signed cookie that names a client and ends. Pure: the clock is given.

Nothing is kept in memory, so that a session outlives a restart of the gateway. The signature covers
the digest of the client's key: with the key, the session is gone as well (decision 0091).
"""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from mlx_gateway.keys import ADMIN, ClientKey

LASTS_S = 24 * 3600
HEADER = b"x-mlx-stack-page"
"""A header that no page of another origin can send without asking first, which is refused."""


@dataclass(frozen=True, slots=True)
class PageSession:
    """A client that looks at the page.

    Attributes:
        until: When it ends, in seconds since the epoch.
    """

    client: ClientKey
    until: int

    @property
    def is_admin(self) -> bool:
        """Whether it may change anything."""
        return self.client.name == ADMIN.name


def cookie_name(port: int) -> str:
    """The name of the cookie: browsers share cookies between the ports of a host."""
    return f"mlx-stack-page-{port}"


def sign(session: PageSession, key: str) -> str:
    """The value of a session's cookie.

    Args:
        key: The admin's.
    """
    said = f"{session.client.name}:{session.until}"
    return f"{said}:{_signature(session.client, session.until, key)}"


def read_session(
    headers: Mapping[bytes, bytes],
    name: str,
    key: str,
    find_client: Callable[[str], ClientKey | None],
    now: float,
) -> PageSession | None:
    """The session in the cookie of that name; None where there is none that holds."""
    try:
        found = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1")).get(name)
    except CookieError:
        return None
    who, _, rest = ("" if found is None else found.value).partition(":")
    until, _, signature = rest.partition(":")
    client = find_client(who)
    if client is None or not (until.isascii() and until.isdecimal()) or int(until[:12]) <= now:
        return None
    expected = _signature(client, int(until[:12]), key)
    if not hmac.compare_digest(expected.encode(), signature.encode()):
        return None
    return PageSession(client, int(until))


def set_cookie(name: str, value: str, *, lasts_s: int, is_secure: bool) -> bytes:
    """The header that gives the browser the cookie, or with 0 seconds takes it away."""
    words = f"{name}={value}; Path=/ui; Max-Age={lasts_s}; HttpOnly; SameSite=Strict"
    return f"{words}; Secure".encode() if is_secure else words.encode()


def is_own_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a request that changes something was made by this very page.

    Another page, also one on another port of this machine, has another origin.
    """
    origin = headers.get(b"origin", b"").decode("latin-1").lower()
    host = headers.get(b"host", b"").decode("latin-1").strip().lower()
    return host != "" and origin in (f"http://{host}", f"https://{host}") and HEADER in headers


def is_secure(headers: Mapping[bytes, bytes]) -> bool:
    """Whether the browser came by TLS, which ends in front of the gateway."""
    return headers.get(b"origin", b"").startswith(b"https://")


def _signature(client: ClientKey, until: int, key: str) -> str:
    words = f"page session {client.name} {until} {client.digest}".encode()
    return hmac.digest(key.encode(), words, "sha256").hex()
