"""Agents on the real engine, through the installed program: what each turn reads is told."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.engines import cached_usage
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, save_stack
from stack_testkit.program import Program

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

FIELD = """
import runpy, sys
if sys.argv[1]:
    runpy.run_path(sys.argv[1])["apply"]()
from vllm_mlx.api.models import ChatCompletionChunk, Usage
print("prompt_tokens_details" in Usage.model_fields)
print(ChatCompletionChunk(model="m", choices=[], usage=Usage()).model_dump_json())
"""


@pytest.fixture(scope="module")
def running(
    engines_home: Path,
    vllm_mlx_environment: Environment,
    tiny_model: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Program]:
    """One tier of the tiny model that takes three requests at once."""
    assert vllm_mlx_environment.state == "ready"
    home = Home(tmp_path_factory.mktemp("agents") / "home")
    home.create()
    home.engines.symlink_to(engines_home / "engines")
    tier = Tier(
        name="fast",
        model="tiny",
        quant="int4",
        source=str(tiny_model),
        port=free_ports(1)[0],
        vllm_flags={},
        context_tokens=4096,
        concurrency=3,
    )
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))
    program = Program(home, {})
    started = program.run("up", "--tier", "fast", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err
    yield program
    assert program.run("down", timeout_s=60).code == 0


ASKED = ("--turns", "3", "--prefix-tokens", "900", "--generation-tokens", "12", "--json")


def test_a_turn_says_what_it_read_and_reads_little_more_than_what_is_new(running: Program):
    done = running.run("bench", "fast", "--agents", "1", *ASKED, timeout_s=300)
    assert done.code == 0, done.err
    first, *later = done.document["turns"]
    assert first["prompt_tokens"] == 1100
    assert first["read_tokens"] >= 1090, "all chats begin with the template's few tokens"
    for turn in later:
        assert turn["new_tokens"] - 16 <= turn["read_tokens"] <= 1.1 * turn["new_tokens"]


def test_it_is_said_of_each_of_several_agents(running: Program):
    done = running.run("bench", "fast", "--agents", "3", *ASKED, timeout_s=300)
    assert done.code == 0, done.err
    read = {(run["agent"], run["turn"]): run["read_tokens"] for run in done.document["runs"]}
    assert len(read) == 9
    assert None not in read.values()
    assert min(read.values()) < 700, "at least one of them found its conversation again"


def test_the_pinned_engine_does_not_say_it_by_itself(vllm_mlx_environment: Environment):
    said = usage_of(vllm_mlx_environment, "")
    assert said.startswith("False"), "the engine says it itself: our addition can go"
    assert usage_of(vllm_mlx_environment, cached_usage.__file__).startswith("True")


def usage_of(environment: Environment, addition: str) -> str:
    command = [str(environment.python), "-I", "-c", FIELD, addition]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
