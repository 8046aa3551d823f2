"""What is heard on the network: shown without harm, never believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zeroconf import DNSAddress, DNSRecord, DNSService, Zeroconf

from mlx_stack.nodes.bonjour import SERVICE, Advertiser, Own, Said, said, said_by
from mlx_stack.nodes.discover import suggestions

MARK = "a" * 64
TXT: dict[bytes, bytes | None] = {
    b"version": b"0.1.0",
    b"fingerprint": MARK.encode(),
    b"host": b"Studio.local",
}


def heard(name: str = "studio", **changed: object) -> Said | None:
    given: dict[str, object] = {
        "addresses": ("10.0.0.2",),
        "port": 4443,
        "properties": TXT,
    }
    return said(f"{name}.{SERVICE}", **{**given, **changed})  # pyright: ignore[reportArgumentType]


def test_what_a_mac_says_is_kept() -> None:
    assert heard() == Said("studio", "studio.local", ("10.0.0.2",), 4443, "0.1.0", MARK)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("\x1b[2J\x07studio", "[2Jstudio"),
        ("a\nb\u202ec", "abc"),
        ("  two   words ", "two words"),
        ("x" * 500, "x" * 63),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_a_name_can_not_steer_the_terminal_or_fill_it(name: str, shown: str) -> None:
    found = heard(name)

    assert found is not None
    assert found.name == shown


@pytest.mark.parametrize(
    "changed",
    [
        {"port": None},
        {"port": 0},
        {"port": 70000},
        {"addresses": (), "properties": {}},
        {"addresses": ("not an address",), "properties": {b"host": b"evil.example.org"}},
    ],
)
def test_what_could_not_be_asked_is_not_shown(changed: dict[str, object]) -> None:
    assert heard(**changed) is None
    assert heard("\x00\x01") is None


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {b"version": None, b"fingerprint": None},
        {b"version": b"\xff\xfe", b"fingerprint": b"A" * 64},
        {b"version": b"1" * 200, b"fingerprint": b"a" * 65},
        {b"version": b"1.0\n; rm -rf", b"fingerprint": b"-"},
    ],
)
def test_values_of_another_form_are_unknown(properties: dict[bytes, bytes | None]) -> None:
    found = heard(properties=properties)

    assert found is not None
    assert (found.version, found.fingerprint) == (None, None)


def test_a_host_outside_of_local_is_not_suggested() -> None:
    for host in (b"github.com", b"a.b.local", b".local", b"-.local", b"x" * 64 + b".local"):
        found = heard(properties={b"host": host})
        assert found is not None
        assert found.host is None


@given(
    st.text(max_size=80),
    st.lists(st.text(max_size=20), max_size=20).map(tuple),
    st.none() | st.integers(),
    st.dictionaries(st.binary(max_size=12), st.none() | st.binary(max_size=80), max_size=3),
)
def test_anything_at_all_is_printable_and_bounded(
    name: str,
    addresses: tuple[str, ...],
    port: int | None,
    properties: dict[bytes, bytes | None],
) -> None:
    found = said(name, addresses, port, properties)
    if found is not None:
        assert found.name.isprintable()
        assert len(found.name) <= 63
        assert len(found.addresses) <= 8


def test_this_mac_is_left_out_and_a_node_is_named() -> None:
    one = heard()
    assert one is not None
    assert suggestions((one,), (), MARK) == ()
    (there,) = suggestions((one,), (), None, knows_local=True)
    assert (there.host, there.node) == ("studio.local", None)
    (there,) = suggestions((one,), (), None, knows_local=False)
    assert there.host == "10.0.0.2"
    other = heard(port=5000, addresses=("fe80::1",))
    assert other is not None
    (there,) = suggestions((other,), (), None, knows_local=False)
    assert there.host == "[fe80::1]:5000"


def records(label: str, host: str, address: bytes) -> list[DNSRecord]:
    name = f"{label}.{SERVICE}"
    return [
        DNSService(name, 33, 1, 120, 0, 0, 4443, host),  # SRV
        DNSAddress(host, 1, 1, 120, address),  # A
    ]


def test_names_that_no_service_may_have_hide_none_of_the_others() -> None:
    """Also two that are shown alike."""
    network = Zeroconf(interfaces=["127.0.0.1"])
    try:
        network.cache.async_add_records(records("studio", "studio.local.", b"\x0a\0\0\2"))
        network.cache.async_add_records(records("stu  dio", "other.local.", b"\x0a\0\0\3"))
        network.cache.async_add_records(records("stu dio", "third.local.", b"\x0a\0\0\4"))

        found = said_by(
            network,
            (
                f"a\x1b[31mb.{SERVICE}",
                "printer._ipp._tcp.local.",
                f"{'x' * 64}.{SERVICE}",
                f"studio.{SERVICE}",
                f"stu  dio.{SERVICE}",
                f"stu dio.{SERVICE}",
            ),
        )
    finally:
        network.close()

    assert [(each.name, each.addresses) for each in found] == [
        ("stu dio", ("10.0.0.3",)),
        ("stu dio", ("10.0.0.4",)),
        ("studio", ("10.0.0.2",)),
    ]


def test_this_mac_never_speaks_for_its_own_host_name_and_says_it_all_the_same() -> None:
    """A second voice for `studio.local` would make macOS rename the Mac to `studio-2`."""
    info = Advertiser(Own("studio", "0.0.0.0", 4443, "0.1.0", MARK)).info(("10.0.0.2",))

    assert info.server == f"mlx-stack-{MARK[:8]}.local."
    assert said(info.name, ("10.0.0.2",), info.port, info.properties) == heard()
