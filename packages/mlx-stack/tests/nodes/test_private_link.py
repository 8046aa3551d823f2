"""A model is only divided over links that nobody else can use."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.nodes.facts import InterfaceAddress
from mlx_stack.nodes.private_link import is_private, open_to_others
from mlx_stack.stack import Host

CABLE = InterfaceAddress(interface="bridge0", address="10.0.0.1", prefix=24)
CAFE = InterfaceAddress(interface="en0", address="192.168.7.20", prefix=24)
STUDIO, KNOWN = Host(host="studio"), Host(host="studio", private_link=True)


@given(st.ip_addresses(v=4))
def test_only_addresses_without_a_way_from_the_internet_are_private(
    address: ipaddress.IPv4Address,
) -> None:
    if is_private(str(address)):
        assert not address.is_global
        assert not address.is_multicast


def test_an_address_on_the_cable_is_fine() -> None:
    assert open_to_others("10.0.0.1", [(STUDIO, "10.0.0.2")], [CAFE, CABLE]) is None


@pytest.mark.parametrize(
    ("own", "worker", "address", "words"),
    [
        ("10.0.0.1", STUDIO, "8.8.8.8", "8.8.8.8 of studio is a public internet address"),
        ("10.0.0.1", KNOWN, "8.8.8.8", "internet"),
        ("203.0.113.9", KNOWN, "10.0.0.2", "203.0.113.9 of this Mac is a public internet address"),
        ("10.0.0.9", STUDIO, "10.0.0.2", "this Mac has no address 10.0.0.9"),
        ("192.168.7.20", STUDIO, "10.0.0.2", "not in the network of 192.168.7.20 (en0)"),
    ],
)
def test_others_could_use_such_a_link(own: str, worker: Host, address: str, words: str) -> None:
    why = open_to_others(own, [(worker, address)], [CAFE, CABLE])
    assert why is not None
    assert words in why


def test_a_user_who_knows_may_use_a_routed_one() -> None:
    assert open_to_others("192.168.7.20", [(KNOWN, "10.0.0.2")], [CAFE]) is None


@given(st.ip_addresses(v=4), st.ip_addresses(v=4), st.booleans())
def test_no_address_of_the_internet_ever_passes(
    own: ipaddress.IPv4Address, other: ipaddress.IPv4Address, is_known: bool
) -> None:
    interface = InterfaceAddress(interface="en0", address=str(own), prefix=0)
    host = Host(host="studio", private_link=is_known)
    if open_to_others(str(own), [(host, str(other))], [interface]) is None:
        assert is_private(str(own))
        assert is_private(str(other))
