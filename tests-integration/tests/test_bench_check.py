"""`mlx-stack bench TIER --check`, driven as a user would, on a stand-in that knows the answers."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from mlx_stack.stack import FlagValue
from stack_testkit.home import define_stack
from stack_testkit.program import Program
from stack_testkit.schemas import differences

pytestmark = pytest.mark.story

FIFTY_A_SECOND = 0.02
MOST_SECONDS = 120


def started(program: Program, **flags: FlagValue) -> Program:
    """A running tier with these flags of the fake engine."""
    tiers: Mapping[str, Mapping[str, FlagValue]] = {"standard": flags}
    fields = {"standard": {"context_tokens": 8192, "concurrency": 2}}
    define_stack(program.home, tiers, fields=fields)
    done = program.run("up")
    assert done.code == 0, done.err
    return program


def test_a_capable_tier_is_agent_ready_and_status_says_so(served: Program) -> None:
    program = started(served, capable="thinks", **{"token-delay": FIFTY_A_SECOND})
    began = time.monotonic()
    done = program.run("bench", "standard", "--check", "--json")
    took_s = time.monotonic() - began

    assert done.code == 0, done.out
    assert differences(done.document, "bench-check") == []
    assert (done.document["right"], done.document["tried"]) == (43, 43)
    assert took_s < MOST_SECONDS
    conditions = done.document["conditions"]
    assert conditions["engine"] == {"name": "vllm-mlx", "version": "0.0.0"}
    assert len(conditions["model_hash"]) == 64
    assert "--capable" in conditions["flags"]
    status = program.run("status", "--json").document
    (tier,) = (row for row in status["services"] if row["kind"] == "engine")
    assert tier["agent_check"] == "agent-ready: 43 of 43"
    assert "standard: agent-ready: 43 of 43" in program.run("status").out


def test_what_is_missing_is_named_with_what_came_instead(served: Program) -> None:
    program = started(served, capable="no-parallel")
    done = program.run("bench", "standard", "--check")

    assert done.code == 0, done.out
    assert "agent-ready: 34 of 37, no parallel calls" in done.out
    assert "should be: two calls of get_weather" in done.out
    assert "agent-ready: 34 of 37, no parallel calls" in program.run("status").out


def test_a_parser_that_leaks_is_no_engine_for_agents(served: Program) -> None:
    program = started(served, capable="tag-leak")
    done = program.run("bench", "standard", "--check", "--json")

    assert done.code == 1
    assert done.document["is_ready"] is False
    assert done.document["verdict"].startswith("not agent-ready: ")
    wrong = {case["id"] for case in done.document["cases"] if case["is_right"] is False}
    assert {"T01cs", "T01ms"} <= wrong
    assert "T01c" not in wrong


def test_other_greedy_answers_are_wrong_only_if_nothing_else_has_changed(served: Program) -> None:
    program = started(served, capable="ok")
    first = program.run("bench", "standard", "--check", "--json").document
    again = program.run("bench", "standard", "--check", "--json").document
    saved = Path(again["saved"])
    other = {name: f"{text}." for name, text in again["answers"].items()}
    saved.write_text(json.dumps({**again, "answers": other}), encoding="utf-8")
    changed = program.run("bench", "standard", "--check", "--json").document

    assert [case_of(each, "coherence")["is_right"] for each in (first, again, changed)] == [
        True,
        True,
        False,
    ]
    assert "the same as on" in case_of(again, "coherence")["seen"]
    assert "8 differ" in case_of(changed, "coherence")["seen"]
    assert changed["verdict"].endswith("different greedy answers")


def case_of(document: Mapping[str, list[dict[str, object]]], name: str) -> dict[str, object]:
    """The case of that name."""
    return next(case for case in document["cases"] if case["id"] == name)


def test_a_check_without_a_gateway_says_what_to_do(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    done = served.run("bench", "standard", "--check")

    assert done.code == 1
    assert "mlx-stack up" in done.err
    assert "Traceback" not in done.err
