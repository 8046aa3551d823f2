"""Which requests may come in: those that name this machine as their host. Pure."""

import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass

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


def machine_name() -> str:
    """This machine's host name without a domain, in lower case; `mac` where it has none."""
    return socket.gethostname().partition(".")[0].lower() or "mac"


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
        name, short = socket.gethostname().lower(), machine_name()
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


def _host_of(header: str) -> str:
    """`[::1]:4000` → `::1`, `localhost:4000` → `localhost`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].rstrip(".")
