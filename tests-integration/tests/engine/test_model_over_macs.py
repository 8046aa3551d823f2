"""One model on several Macs, by `up`: real engines on MLX's ring, with folders for the other Macs.

The `ssh` between them is a stand-in; a real one, and a cable, are in `test_model_over_a_cable.py`.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from mlx_procsup.testing import eventually
from mlx_stack.engines.environment import Environment
from mlx_stack.stack import Host
from stack_testkit.gateway_program import client_of
from stack_testkit.program import Program
from stack_testkit.several_macs import make_macs, processes

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

WITHIN_S = 180
QUESTION = "Count to ten, then say why."


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("macs")


@pytest.fixture(scope="module")
def program(root: Path, vllm_mlx_environment: Environment, tiny_model: Path) -> Iterator[Program]:
    """A stack with the same model on this Mac alone, on two and on four; its gateway is up."""
    others = tuple(Host(host=name) for name in ("studio-b", "studio-c", "studio-d"))
    tiers = {"alone": (), "pair": others[:1], "four": others, "lost": (Host(host="nowhere"),)}
    program = make_macs(root, vllm_mlx_environment, tiny_model, tiers)
    done = program.run("up", "--json", timeout_s=WITHIN_S)
    assert done.code == 0, done.out + done.err
    try:
        yield program
    finally:
        down = program.run("down", timeout_s=WITHIN_S)
    assert down.code == 0, down.out + down.err
    assert eventually(lambda: left_behind(root) == [], within_s=WITHIN_S), left_behind(root)


@pytest.fixture
def watched(program: Program) -> Iterator[Program]:
    """The tier on two Macs, up, and a watchdog that looks often."""
    bring_up(program, "pair")
    watching = program.start(
        *("watch", "--interval", "1", "--restart-delay", "1", "--max-restarts", "100")
    )
    yield program
    watching.terminate()
    watching.communicate(timeout=WITHIN_S)


def bring_up(program: Program, tier: str) -> None:
    done = program.run("up", "--tier", tier, "--timeout", "300", "--json", timeout_s=500)
    assert done.code == 0, done.out + done.err


def left_behind(folder: Path) -> list[str]:
    """The command lines of processes that have to do with a folder."""
    lines = [" ".join(each.info["cmdline"] or ()) for each in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line]


def rows_of(program: Program, tier: str) -> dict[str, dict[str, Any]]:
    """The rows of a tier in `status`, by their names."""
    rows: list[dict[str, Any]] = program.run("status", "--json").document["services"]
    return {row["name"]: row for row in rows if row["name"].partition(".")[0] == tier}


def answer(program: Program, tier: str, **more: object) -> tuple[str, int]:
    """What a tier answers at temperature 0, and in how many tokens."""
    body = {
        "model": tier, "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0, "max_tokens": 24, **more,
    }  # fmt: skip
    with client_of(program) as client:
        found = client.post("/chat/completions", json=body)
    assert found.status_code == 200, found.text
    assert found.headers["x-mlx-stack-tier"] == tier
    said = found.json()
    return said["choices"][0]["message"]["content"], said["usage"]["completion_tokens"]


def log_of(program: Program, tier: str) -> str:
    return program.run("logs", tier, "--tail", "2000").out


def test_two_and_four_macs_write_the_same_tokens_as_one(program: Program) -> None:
    said = {}
    for tier in ("alone", "pair", "four"):
        bring_up(program, tier)
        said[tier] = answer(program, tier)
        rows = rows_of(program, tier)
        assert {row["state"] for row in rows.values()} == {"healthy"}, rows
    assert said["alone"] == said["pair"] == said["four"]
    assert sorted(rows) == [
        "four", "four.rank0@here", "four.rank1@studio-b", "four.rank2@studio-c",
        "four.rank3@studio-d",
    ]  # fmt: skip
    assert "[rank 3 on studio-d] started as PID" in log_of(program, "four")
    assert QUESTION not in log_of(program, "four")
    for tier in ("alone", "four"):
        assert program.run("down", "--tier", tier, timeout_s=WITHIN_S).code == 0


def test_a_mac_that_never_comes_is_named(program: Program) -> None:
    done = program.run("up", "--tier", "lost", "--json", timeout_s=WITHIN_S)
    assert done.code == 1
    (row,) = done.document["services"]
    assert "nowhere" in row["error"]
    assert "There is no route to nowhere" in row["error"]


def test_a_client_that_leaves_ends_its_request_on_all_macs(program: Program) -> None:
    bring_up(program, "pair")
    expected = answer(program, "pair")
    body = {
        "model": "pair", "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 4000, "stream": True, "temperature": 0, "logit_bias": {"0": -100, "2": -100},
    }  # fmt: skip
    with client_of(program) as client, client.stream("POST", "/chat/completions", json=body) as it:
        assert it.status_code == 200
        next(it.iter_raw())
    assert answer(program, "pair") == expected


@pytest.mark.parametrize("killed", ["other engine", "engine", "group"])
def test_what_ends_a_part_ends_all_and_the_group_comes_back(watched: Program, killed: str) -> None:
    before = processes(watched, "pair")
    before[killed].kill()
    assert eventually(lambda: not any(map(is_running, before.values())), within_s=WITHIN_S)
    assert eventually(lambda: comes_back(watched, before["group"].pid), within_s=WITHIN_S)
    assert answer(watched, "pair")[1] == 24


def test_a_mac_that_stands_still_is_noticed_and_the_group_comes_back(watched: Program) -> None:
    before = processes(watched, "pair")
    before["other engine"].suspend()
    assert eventually(lambda: not is_running(before["group"]), within_s=WITHIN_S)
    assert "the ranks have not met for" in log_of(watched, "pair")
    assert eventually(lambda: comes_back(watched, before["group"].pid), within_s=WITHIN_S)
    assert not any(map(is_running, before.values()))
    assert answer(watched, "pair")[1] == 24


def comes_back(program: Program, former: int) -> bool:
    row = rows_of(program, "pair")["pair"]
    return row["state"] == "healthy" and row["pid"] != former


def is_running(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
