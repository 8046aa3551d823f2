"""`init --import`: a user of the earlier program of this name comes over."""

import pytest

from mlx_stack.stack import load_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story

FOREIGN = """\
schema_version: 1
name: default
hardware_profile: m4-pro-48
intent: balanced
created: '2026-05-01T12:00:00+00:00'
tiers:
- name: standard
  model: qwen3.5-8b
  quant: int4
  source: mlx-community/Qwen3.5-8B-4bit
  port: 8000
  vllm_flags:
    continuous_batching: true
    use_paged_cache: true
    tool_call_parser: llama3_json
- name: fast
  model: gemma3-4b
  quant: int4
  source: mlx-community/gemma-3-4b-it-4bit
  port: 8001
  vllm_flags: {}
"""


def test_the_file_is_refused_with_the_way_out_and_then_taken_over(program: Program) -> None:
    program.home.create()
    program.home.stack.parent.mkdir()
    program.home.stack.write_text(FOREIGN)

    refused = program.run("status", "--json")
    assert refused.code == 2
    assert "init --import" in refused.document["error"]["hint"]

    path = str(program.home.stack)
    done = program.run("init", "--import", path, "--force", "--json", "--accept-defaults")

    assert done.code == 0, done.err
    tiers = {tier.name: tier for tier in load_stack(program.home.stack).tiers}
    assert tiers["standard"].model == "qwen3.5-9b", "there never was a Qwen3.5 8B"
    assert tiers["fast"].model == "gemma3-4b"
    assert not tiers["standard"].vllm_flags
    copy = program.home.stack.with_name("default.yaml.imported")
    assert copy.read_text() == FOREIGN


def test_a_file_that_is_something_else_is_refused(program: Program) -> None:
    program.home.create()
    other = program.home.root / "other.yaml"
    other.write_text("tiers: 3\n")

    done = program.run("init", "--import", str(other), "--json")

    assert done.code == 2
    assert "line 1" in done.document["error"]["message"]
