"""`nodes.yaml`, and what an address of a node may be."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.errors import InvalidFileError, UsageError
from mlx_stack.nodes.check import missing_replicas, same_weights
from mlx_stack.nodes.file import Node, Nodes, load_nodes, name_in, save_nodes
from mlx_stack.nodes.link import is_unrouted, node_url, require_private
from mlx_stack.stack import Replica, Tier

STUDIO = Node(name="studio", url="http://10.0.1.2:4000", key="sk-1", private_link=True)


def test_what_is_written_is_read_again_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "nodes.yaml"
    nodes = Nodes(
        nodes=(STUDIO, Node(name="mini", url="https://mini", key="sk-2", mac="0a:" * 5 + "0b"))
    )

    save_nodes(path, nodes)

    assert load_nodes(path) == nodes
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_without_a_file_there_are_no_nodes(tmp_path: Path) -> None:
    assert load_nodes(tmp_path / "nodes.yaml") == Nodes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("schema_version: 2\nnodes: []\n", "schema_version 2"),
        ("nodes: [{name: a, url: 'http://a'}]\n", "nodes"),
        ("nodes: [{name: A, url: 'http://a', key: k}]\n", "name"),
        ("nodes: [{name: a, url: 'http://a/v1', key: k}]\n", "url"),
        ("nodes: [{name: a, url: 'http://a', key: 'k\\nx: y'}]\n", "key"),
        (
            "nodes: [{name: a, url: 'http://a', key: k}, {name: a, url: 'http://b', key: k}]\n",
            "twice",
        ),
        ("nodes: [{name: a, url: 'http://a', key: k, colour: red}]\n", "colour"),
        ("nodes: [{name: a, url: 'https://a', key: k, ca: AAAA}]\n", "not a certificate"),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "nodes.yaml"
    path.write_text(text)

    with pytest.raises(InvalidFileError, match=said):
        load_nodes(path)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("studio.local", "http://studio.local:4000"),
        ("http://studio.local:4100/v1/", "http://studio.local:4100"),
        ("https://studio.example.org", "https://studio.example.org"),
        ("http://[fe80::1]:4000", "http://[fe80::1]:4000"),
        ("fe80::1", "http://[fe80::1]:4000"),
        ("::1", "http://[::1]:4000"),
    ],
)
def test_an_address_is_kept_without_a_path(text: str, url: str) -> None:
    assert node_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "ftp://a",
            "http://",
            "http://a/ui",
            "http://me:pw@a",
            "http://a:99999",
            "http://a?x",
            "https://a b",
        ),
        *("[::1", "studio..local", ".local", f"http://{'a' * 64}.local", "https://a\u0000b"),
    ],
)
def test_what_is_no_address_of_a_gateway_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        node_url(text)


def test_a_key_does_not_cross_a_network_in_clear_text_unless_the_user_says_so() -> None:
    with pytest.raises(UsageError, match="not encrypted"):
        require_private("http://10.0.1.2:4000", is_said_to_be_private=False)
    require_private("http://10.0.1.2:4000", is_said_to_be_private=True)
    require_private("http://169.254.7.9:4000", is_said_to_be_private=False)
    require_private("http://127.0.0.1:4001", is_said_to_be_private=False)
    require_private("https://10.0.1.2:4000", is_said_to_be_private=False)


@given(st.ip_addresses())
def test_only_this_machine_and_a_cable_are_private_by_themselves(address: object) -> None:
    unrouted = is_unrouted(str(address))
    assert unrouted == (address.is_loopback or address.is_link_local)  # type: ignore[attr-defined]


@given(st.text(max_size=80))
def test_every_host_gives_a_name_that_the_file_takes(host: str) -> None:
    Nodes(nodes=(Node(name=name_in(host), url="http://a", key="k"),))
    assert name_in(host) == name_in(host).strip("-")


@pytest.mark.parametrize(
    ("host", "name"),
    [("Studio.local", "studio"), ("10.0.1.2", "10-0-1-2"), ("fe80::1", "fe80-1"), ("...", "node")],
)
def test_a_node_is_called_by_its_host(host: str, name: str) -> None:
    assert name_in(host) == name


def test_a_replica_that_a_node_does_not_serve_is_named() -> None:
    replicas = (Replica(node="studio", tier="big"), Replica(node="mini", tier="big"))
    tier = Tier(
        name="standard", model="m", quant=None, source="a/b", port=8000, vllm_flags={},
        replicas=replicas,
    )  # fmt: skip
    assert list(missing_replicas([tier], "studio", ["big", "fast"])) == []
    (note,) = missing_replicas([tier], "studio", ["fast"])
    assert "'standard' has the replica big@studio" in note


def test_weights_are_only_called_the_same_or_others_where_both_sides_know() -> None:
    assert same_weights("a", "a") is True
    assert same_weights("a", "b") is False
    assert same_weights(None, None) is None
