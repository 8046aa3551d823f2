"""The nodes as the running gateway knows them."""

import os
import resource
from pathlib import Path

import pytest

from mlx_stack.home import Home
from mlx_stack.nodes.file import Node, Nodes, save_nodes
from mlx_stack.nodes.known import KnownNodes, magic_packet

URL = "http://10.0.1.2:4000"
MAC = "3c:22:fb:0a:11:9d"


def write(home: Home, *nodes: Node) -> None:
    home.create()
    save_nodes(home.nodes, Nodes(nodes=nodes))
    os.utime(home.nodes, ns=(len(nodes), len(nodes)))


def test_a_new_key_counts_at_once_and_a_damaged_file_changes_nothing(tmp_path: Path) -> None:
    home = Home(tmp_path)
    known = KnownNodes(home)
    assert known.at(URL) is None

    node = Node(name="studio", url=URL, key="sk-1")
    write(home, node)
    assert known.at(URL) == node

    home.nodes.write_text("nodes: [")
    assert known.at(URL) == node

    home.nodes.unlink()
    assert known.at(URL) is None


def test_a_new_key_counts_once_the_file_can_be_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = Home(tmp_path)
    known = KnownNodes(home)
    node = Node(name="studio", url=URL, key="sk-1")
    write(home, node)
    assert known.at(URL) == node
    home.nodes.unlink()
    write(home, node, Node(name="b", url="http://10.0.1.3:4000", key="sk-2"))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert [known.at("http://10.0.1.3:4000") for _ in range(2)] == [None, None]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert known.at("http://10.0.1.3:4000") is not None
    assert caplog.text.count("the nodes were not reloaded") == 1


def test_a_node_with_a_hardware_address_is_woken_and_not_flooded(tmp_path: Path) -> None:
    home, sent = Home(tmp_path), list[bytes]()
    write(
        home,
        Node(name="studio", url=URL, key="k", mac=MAC),
        Node(name="b", url="http://b", key="k"),
    )
    known = KnownNodes(home, sent.append)

    assert known.wake(URL)
    assert known.wake(URL)
    assert sent == [magic_packet(MAC)]
    assert not known.wake("http://b")
    assert not known.wake("http://nobody")


def test_the_packet_is_what_network_cards_listen_for() -> None:
    packet = magic_packet(MAC)

    assert len(packet) == 102
    assert packet == b"\xff" * 6 + bytes.fromhex("3c22fb0a119d") * 16
