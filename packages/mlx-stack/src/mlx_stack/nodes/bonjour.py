"""Bonjour: saying that this Mac can be a node, and hearing which others say so.

Nothing that is heard is true before a pairing says so: any program on the network can say anything.
"""

import ipaddress
import re
import socket
import time
from dataclasses import dataclass

import psutil
from zeroconf import (
    Error,
    IPVersion,
    ServiceBrowser,
    ServiceInfo,
    ServiceStateChange,
    Zeroconf,
)

from mlx_stack.gateway.endpoint import EVERY_ADDRESS

SERVICE = "_mlx-stack._tcp.local."
LISTEN_S = 0.8
_MOST_FOUND = 64
_MOST_ADDRESSES = 8
_LONGEST_NAME = 63
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.local", re.IGNORECASE)
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+-]{0,31}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Said:
    """What a machine said of itself, without what could harm: a suggestion. Unknown is None.

    Attributes:
        name: How it is called.
        host: Its name in `.local`, by which it may be asked.
        addresses: Where it says it is, at most eight.
        port: Where it says its gateway speaks TLS.
        fingerprint: Of the authority that it says it has.
    """

    name: str
    host: str | None
    addresses: tuple[str, ...]
    port: int
    version: str | None
    fingerprint: str | None


@dataclass(frozen=True, slots=True)
class Own:
    """What this Mac says: a name, where it can be reached, its version and its authority."""

    name: str
    host: str
    port: int
    version: str
    fingerprint: str


def said(
    name: str,
    addresses: tuple[str, ...],
    port: int | None,
    properties: dict[bytes, bytes | None],
) -> Said | None:
    """What came from the network, as far as it can be shown; None where nothing could be asked."""
    label = "".join(each for each in name.removesuffix(f".{SERVICE}") if each.isprintable())
    label = " ".join(label.split())[:_LONGEST_NAME]
    usable = tuple(each for each in addresses[:_MOST_ADDRESSES] if _is_address(each))
    host = _matching(_HOST, properties.get(b"host"))
    if not label or port is None or not 0 < port < 2**16 or not (usable or host):
        return None
    return Said(
        label,
        host.lower() if host is not None else None,
        usable,
        port,
        _matching(_VERSION, properties.get(b"version")),
        _matching(_FINGERPRINT, properties.get(b"fingerprint")),
    )


def listen(listen_s: float = LISTEN_S) -> tuple[Said, ...]:
    """What machines on the networks of this one say, by their names, at most 64; takes that long.

    Raises:
        OSError, zeroconf.Error: When there is no network, or this program may not use it.
    """
    until = time.monotonic() + listen_s
    addresses = own_addresses()
    if not addresses:
        return ()
    names: dict[str, None] = {}

    # zeroconf passes these by name
    def heard(
        zeroconf: Zeroconf,  # noqa: ARG001
        service_type: str,  # noqa: ARG001
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if state_change is not ServiceStateChange.Removed and len(names) < _MOST_FOUND:
            names.setdefault(name)

    with Zeroconf(interfaces=[*addresses], ip_version=IPVersion.V4Only) as network:
        browser = ServiceBrowser(network, SERVICE, handlers=[heard])
        time.sleep(max(until - time.monotonic(), 0))
        found = said_by(network, tuple(names))
        browser.cancel()
    return found


def said_by(network: Zeroconf, names: tuple[str, ...]) -> tuple[Said, ...]:
    """What came from the network under these names, ordered by what they are shown as."""
    found = (_said_by(network, name) for name in names)
    return tuple(sorted((each for each in found if each is not None), key=lambda each: each.name))


def _said_by(network: Zeroconf, name: str) -> Said | None:
    try:
        info = ServiceInfo(SERVICE, name)
        info.load_from_cache(network)
    except Error:  # a name that no service may have
        return None
    addresses = tuple(info.parsed_scoped_addresses())
    return said(name, addresses, info.port, info.properties)


def own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine on networks."""
    found = (each for addresses in psutil.net_if_addrs().values() for each in addresses)
    own = {each.address for each in found if each.family is socket.AF_INET}
    return tuple(sorted(each for each in own if not ipaddress.ip_address(each).is_loopback))


class Advertiser:
    """Says that this Mac can be a node, on the networks that it has at the time."""

    def __init__(self, own: Own) -> None:
        self._own = own
        self._network: Zeroconf | None = None
        self._addresses: tuple[str, ...] = ()

    def refresh(self) -> None:
        """Say it where the networks are now; nothing where only this machine could come.

        Raises:
            OSError, RuntimeError, zeroconf.Error: When it can't be said there now.
        """
        host = self._own.host
        if host in EVERY_ADDRESS:
            addresses = own_addresses()
        else:
            addresses = (host,) if _is_address(host) else ()
        addresses = tuple(each for each in addresses if not ipaddress.ip_address(each).is_loopback)
        if addresses == self._addresses:
            return
        self.close()
        if not addresses:
            return
        try:
            self._network = Zeroconf(interfaces=[*addresses])
            self._network.register_service(self.info(addresses), allow_name_change=True)
        except BaseException:
            self.close()
            raise
        self._addresses = addresses

    def close(self) -> None:
        """Say that this Mac can't be one any more."""
        if self._network is not None:
            self._network.close()
        self._network, self._addresses = None, ()

    def info(self, addresses: tuple[str, ...]) -> ServiceInfo:
        """What is said of it at these addresses."""
        return ServiceInfo(
            SERVICE,
            f"{self._own.name}.{SERVICE}",
            port=self._own.port,
            properties={
                "version": self._own.version,
                "fingerprint": self._own.fingerprint,
                "host": f"{self._own.name}.local",
            },
            # not the Mac's own name: macOS gives itself another if it hears that from a second one
            server=f"mlx-stack-{self._own.fingerprint[:8]}.local.",
            parsed_addresses=[*addresses],
        )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _matching(pattern: re.Pattern[str], value: bytes | None) -> str | None:
    text = (value or b"").decode("ascii", errors="replace")
    return text if pattern.fullmatch(text) else None
