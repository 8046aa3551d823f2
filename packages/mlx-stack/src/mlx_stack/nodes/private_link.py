"""Whether a link between Macs is private: nothing protects what they exchange on it."""

import ipaddress
from collections.abc import Sequence

from mlx_stack.nodes.facts import InterfaceAddress
from mlx_stack.stack import Host

_PRIVATE = tuple(
    map(
        ipaddress.IPv4Network,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "127.0.0.0/8"),
    )
)


def is_private(address: str) -> bool:
    """Whether an IPv4 address can't be reached from the internet: private, link-local, loopback."""
    parsed = ipaddress.IPv4Address(address)
    return any(parsed in each for each in _PRIVATE)


def reaches(interface: InterfaceAddress, address: str) -> bool:
    """Whether an address is in the network of an interface, so that no router is on the way."""
    network = ipaddress.IPv4Network((interface.address, interface.prefix), strict=False)
    return ipaddress.IPv4Address(address) in network


def open_to_others(
    own: str, workers: Sequence[tuple[Host, str]], interfaces: Sequence[InterfaceAddress]
) -> str | None:
    """Why a model may not be divided over these addresses; None where it may. Asks no other Mac.

    Args:
        own: This Mac's address on the link.
        workers: The others, each with its address.
        interfaces: Of this Mac.
    """
    for name, address in (("this Mac", own), *((each.host, to) for each, to in workers)):
        if not is_private(address):
            return f"{address} of {name} is a public internet address"
    here = next((each for each in interfaces if each.address == own), None)
    if here is None:
        return f"this Mac has no address {own}"
    for host, address in workers:
        if not (reaches(here, address) or host.private_link):
            return f"{address} of {host.host} is not in the network of {own} ({here.interface})"
    return None
