"""Who may come in."""

import pytest

from mlx_gateway.access import Hosts


@pytest.mark.parametrize(
    "header",
    ["localhost", "localhost:4000", "LOCALHOST.", "127.0.0.1:4000", "127.8.8.8", "[::1]:4000",
     "host.docker.internal:4000", "mymac.local", "192.168.1.7:4000"],
)  # fmt: skip
def test_this_machine_may_be_asked_by_its_own_names(header: str) -> None:
    hosts = Hosts(frozenset({"mymac.local"}))

    assert hosts.allow(header.encode(), "192.168.1.7")


@pytest.mark.parametrize(
    "header",
    ["evil.example", "evil.example:4000", "localhost.evil.example", "127.0.0.1.evil.example", "",
     "192.168.1.8", "0x7f.1", "[::1", "169.254.169.254", "localhost@evil.example", "\xff"],
)  # fmt: skip
def test_a_page_whose_name_means_this_machine_stays_outside(header: str) -> None:
    # "[::1" lacks its bracket and still names this machine
    is_loopback = header == "[::1"

    assert Hosts().allow(header.encode("latin-1"), "192.168.1.7") is is_loopback


def test_a_request_without_a_host_comes_from_no_browser() -> None:
    assert Hosts().allow(None, "127.0.0.1")


def test_this_machine_knows_its_own_name() -> None:
    hosts = Hosts.of_this_machine({"Mac.Example"})

    assert hosts.allow(b"mac.example:4000", None)
    assert len(hosts.names) >= 2
