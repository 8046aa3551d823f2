"""Who may come in: requests that name this machine as their host, and carry a key. Pure."""

import hmac
import ipaddress
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256

KEY_VARIABLE = "MLX_GATEWAY_KEY"
"""The environment variable in which a program that serves the gateway finds its key."""

_ALWAYS = frozenset(
    {
        "localhost",
        "host.docker.internal",  # this machine, as containers on it call it
        "host.containers.internal",
        "host.lima.internal",
        "host.orb.internal",
    }
)


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which this machine may be asked.

    A page whose own name is made to mean this machine's address is not among them, so that it can't
    reach the gateway from its reader's browser.

    Attributes:
        names: Names besides the usual ones, in lower case.
    """

    names: frozenset[str] = frozenset()

    @staticmethod
    def of_this_machine(more: Iterable[str] = ()) -> "Hosts":
        """Its host name, with and without a domain, and `more`."""
        name = socket.gethostname().lower()
        short = name.partition(".")[0]
        return Hosts(frozenset({name, short, f"{short}.local", *(each.lower() for each in more)}))

    def allow(self, header: bytes | None, local_address: str | None) -> bool:
        """Whether a Host header names this machine.

        Args:
            header: The header; None where the request has none, as HTTP/1.0 allows.
            local_address: The address on which the connection arrived.
        """
        if header is None:
            return True
        host = _host_of(header.decode("latin-1").strip().lower())
        if host in _ALWAYS or host in self.names:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return address.is_loopback or host == (local_address or "")


class KeyRing:
    """The keys that open the gateway.

    They are compared as digests: random keys of this length can't be guessed, so a fast hash is as
    good as a slow one, and equal lengths tell nothing by the time that a comparison takes.

    Args:
        keys: The keys by the name of whoever holds them.
    """

    def __init__(self, keys: Mapping[str, str]) -> None:
        self._digests = {name: sha256(key.encode()).digest() for name, key in keys.items()}

    def holder(self, headers: Mapping[bytes, bytes]) -> str | None:
        """The name of whoever holds the key in these headers; None where no key is right."""
        for given in _keys_given(headers):
            digest = sha256(given).digest()
            for name, known in self._digests.items():
                if hmac.compare_digest(digest, known):
                    return name
        return None

    @staticmethod
    def is_given(headers: Mapping[bytes, bytes]) -> bool:
        """Whether there is any key in these headers."""
        return bool(_keys_given(headers))


def _keys_given(headers: Mapping[bytes, bytes]) -> list[bytes]:
    """The keys where OpenAI's and Anthropic's clients put them."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"")) if key]


def _host_of(header: str) -> str:
    """`[::1]:4000` → `::1`, `localhost:4000` → `localhost`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")
