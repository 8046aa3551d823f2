"""What another Mac says of itself is read with suspicion."""

import ipaddress
import json
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.nodes.facts import Facts, InterfaceAddress, facts_in
from mlx_stack.nodes.facts_script import MARK, rdma_devices_in

SAID: dict[str, object] = {
    "schema_version": 1,
    "home": "/Users/me/.mlx-stack",
    "system": "Darwin",
    "os_version": "26.2",
    "os_build": "25C56",
    "python": "3.13.5",
    "packages": {"mlx": "0.32.4", "mlx-lm": "0.32.2"},
    "lock_sha256": "c" * 64,
    "memory_bytes": 64 * 2**30,
    "gpu_limit_bytes": None,
    "model_dir": "/Users/me/.mlx-stack/models",
    "disk_free_bytes": 10**12,
    "model": None,
    "addresses": [{"interface": "bridge0", "address": "10.0.0.2", "prefix": 24}],
    "ports_taken": [],
    "rdma_devices": None,
}


def said(**changes: object) -> bytes:
    return f"{MARK}{json.dumps({**SAID, **changes})}\n".encode()


def test_what_a_login_shell_prints_before_is_passed_over() -> None:
    found = facts_in(b"Welcome to studio!\n\xff\n" + said())
    assert found is not None
    assert found.packages["mlx-lm"] == "0.32.2"


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"python": "3" * 201},
        {"memory_bytes": -1},
        {"memory_bytes": True},
        {"addresses": [{"interface": "en0", "address": "10.0.0.256", "prefix": 24}]},
        {"addresses": [{"interface": "en0", "address": "10.0.0.2", "prefix": 33}]},
        {"addresses": [{"interface": "en0", "address": "10.0.0.2", "prefix": 24}] * 501},
        {"packages": {str(n): None for n in range(21)}},
        {"rdma_devices": ["rdma_en1"] * 101},
        {"model": {"folder": "/m", "files": [], "sizes": {"x": 2**61}, "damaged": []}},
    ],
)
def test_what_is_out_of_bounds_is_no_answer(changes: dict[str, object]) -> None:
    assert facts_in(said(**changes)) is None


def test_texts_of_another_mac_neither_begin_a_line_nor_steer_the_terminal() -> None:
    found = facts_in(
        said(
            python="3.13\n✓ studio: fine",
            packages={"mlx-lm": "\x1b[2J\x9b1A"},
            model={"folder": "/m", "files": [], "sizes": {"\ud800.py\r": 1}, "damaged": ["\u2028"]},
        )
    )
    assert found is not None
    assert found.model is not None
    assert found.python == "3.13\ufffd✓ studio: fine"
    assert found.packages == {"mlx-lm": "\ufffd[2J\ufffd1A"}
    assert found.model.sizes == {"\ufffd.py\ufffd": 1}
    assert found.model.damaged == ("\ufffd",)


@pytest.mark.parametrize("text", [b"", b"no such command\n", MARK.encode(), b"{}"])
def test_without_an_answer_there_are_no_facts(text: bytes) -> None:
    assert facts_in(text) is None


@given(st.binary())
def test_whatever_comes_is_facts_or_none(noise: bytes) -> None:
    assert isinstance(facts_in(MARK.encode() + noise), Facts | None)
    last = re.sub(re.escape(MARK.encode()), b"", noise)
    assert facts_in(said() + b"\n" + last) is not None


@given(st.from_regex(r"[0-9.]{7,15}", fullmatch=True) | st.ip_addresses(v=4).map(str))
def test_an_address_that_is_taken_can_be_compared(text: str) -> None:
    fields = {"interface": "en0", "address": text, "prefix": 24}
    try:
        msgspec.convert(fields, InterfaceAddress)
    except msgspec.ValidationError:
        with pytest.raises(ipaddress.AddressValueError):
            ipaddress.IPv4Address(text)
    else:
        ipaddress.IPv4Address(text)


def test_the_devices_for_rdma_are_those_that_macos_lists() -> None:
    table = (
        "    device                 node GUID\n"
        "    ------              ----------------\n"
        "    rdma_en2            8096a9d9edbaac05\n"
        "    rdma_en5            8396a9d9edbaac05\n"
    )
    assert rdma_devices_in(table) == ["rdma_en2", "rdma_en5"]
    assert rdma_devices_in("") == []
