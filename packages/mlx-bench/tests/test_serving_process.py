"""Which process serves a URL, and its memory."""

import os
import socket

import pytest

from mlx_bench.serving_process import (
    descendants_of,
    find_serving_process,
    is_local,
    parse_linux_listeners,
    parse_parents,
    serving_process_of,
)

TCP = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000   501        0 70011 1
   1: 0100007F:1F40 0100007F:C350 01 00000000:00000000 00:00000000 00000000   501        0 70012 1
   2: 0100007F:0FA0 00000000:0000 0A 00000000:00000000 00:00000000 00000000   501        0 70013 1
"""


def test_only_listening_sockets_of_the_port_are_found() -> None:
    assert parse_linux_listeners(TCP, 8000) == ("70011",)
    assert parse_linux_listeners(TCP, 8001) == ()


def test_descendants_are_found_at_every_depth() -> None:
    parents = parse_parents("  1 0\n 10 1\n 11 10\n 12 11\n 20 1\nPID PPID\n")
    assert descendants_of(10, parents) == (11, 12)
    assert descendants_of(20, parents) == ()


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://example.org/v1", False),
        ("http://192.0.2.7:8000/v1", False),
    ],
)
def test_only_loopback_is_local(url: str, local: bool) -> None:
    assert is_local(url) is local


def test_the_process_behind_a_port_is_found_and_its_memory_is_not_zero() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        found = find_serving_process(f"http://127.0.0.1:{port}/v1")
    assert found is not None
    assert found.pid == os.getpid()
    memory = found.memory_bytes()
    assert memory is not None
    assert memory > 1_000_000
    assert found.source


def test_a_process_that_is_gone_has_unknown_memory_not_zero() -> None:
    assert serving_process_of(2**22 + 1).memory_bytes() is None


def test_a_port_of_nobody_and_another_machine_have_no_process() -> None:
    assert find_serving_process("http://192.0.2.7:8000/v1") is None
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert find_serving_process(f"http://127.0.0.1:{port}/v1") is None
