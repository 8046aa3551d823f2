"""`mlx-stack bench TIER --tune`, driven as a user would, on a stand-in with planted effects."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.stack import FlagValue, load_stack
from stack_testkit.home import define_stack
from stack_testkit.program import Program
from stack_testkit.schemas import differences

pytestmark = [pytest.mark.story, pytest.mark.timeout(900)]
"""A whole run takes a minute and a half on two cores."""

QUICK = ("--prompt-tokens", "40", "--generation-tokens", "24")
PLANTED = "stream-interval=4:1.4,prefill-step-size=1024:0.6,prefill-step-size=4096:words"


def defined(program: Program, planted: str = PLANTED) -> Program:
    """A tier of an engine with these effects, at 200 tokens/s."""
    pace = {"token-delay": 0.005, "paced": 0.005, "prefill-tps": 800}
    define_stack(program.home, {"standard": {"planted": planted, **pace}})
    return program


def tune(program: Program, *more: str) -> Any:
    """The JSON answer of a run."""
    done = program.run("bench", "standard", "--tune", *QUICK, *more, "--json", timeout_s=800)
    assert done.code == 0, done.err
    assert differences(done.document, "bench-tune") == []
    return done.document


def flags_of(program: Program) -> dict[str, FlagValue]:
    """The tier's `vllm_flags` in the stack file."""
    (tier,) = load_stack(program.home.stack).tiers
    return tier.vllm_flags


def test_what_wins_is_written_with_its_evidence_and_nothing_else(served: Program) -> None:
    program = defined(served)
    dry = tune(program, "--dry-run")
    assert (dry["trials"], dry["saved"], dry["vllm_flags"]) == ([], None, None)
    assert {"factor": "stream interval", "settings": {"stream-interval": 4}} in dry["left"]
    assert not program.home.benchmarks.exists()

    began = time.monotonic()
    found = tune(program)
    first_s = time.monotonic() - began
    outcomes = {
        json.dumps(each["settings"]): each["outcome"]
        for each in found["trials"]
        if each["step"] == "single"
    }
    assert outcomes['{"stream-interval": 4}'] == "wins"
    assert outcomes['{"prefill-step-size": 1024}'] == "worse"
    assert outcomes['{"prefill-step-size": 4096}'] == "other answers"
    assert found["is_finished"]
    assert "stream-interval" not in flags_of(program)

    began = time.monotonic()
    applied = tune(program, "--apply")
    again_s = time.monotonic() - began
    assert again_s < first_s / 3, "what is known is not measured again"
    assert applied["is_applied"]
    assert flags_of(program)["stream-interval"] == 4
    assert "prefill-step-size" not in flags_of(program)
    (tier,) = load_stack(program.home.stack).tiers
    assert tier.tuned_by == Path(found["saved"]).name
    assert program.run("up").code == 0


def test_an_interrupted_run_continues_where_it_stopped(served: Program) -> None:
    program = defined(served)
    known = tried_before_interruption(program, at_least=1)

    dry = tune(program, "--dry-run")
    assert len(dry["trials"]) == len(known)
    assert dry["left_s"] is not None

    after = tried_before_interruption(program, at_least=len(known) + 1)
    assert after[: len(known)] == known


def tried_before_interruption(program: Program, *, at_least: int) -> list[Any]:
    """The trials of the one saved run, once Ctrl-C has come after that many."""
    command = program.command("bench", "standard", "--tune", *QUICK)
    running = subprocess.Popen(command, env=program.environment, stderr=subprocess.PIPE)
    until = time.monotonic() + 100
    while len(saved_trials(program)) < at_least and time.monotonic() < until:
        assert running.poll() is None, running.stderr and running.stderr.read()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 130
    assert b"Traceback" not in said
    return saved_trials(program)


def saved_trials(program: Program) -> list[Any]:
    """What is saved of the unfinished run; nothing before its first trial has ended."""
    paths = list((program.home.benchmarks / "tuning").glob("*.json"))
    if not paths:
        return []
    (path,) = paths
    document = json.loads(path.read_text())
    assert not document["is_finished"]
    return document["tuning"]["trials"]


def test_options_that_would_do_nothing_are_refused(served: Program) -> None:
    program = defined(served)
    for arguments in (("--apply",), ("--tune", "--check"), ("--tune", "--agents", "2")):
        done = program.run("bench", "standard", *arguments)
        assert done.code == 2, arguments
    done = program.run("bench", "nonsense", "--tune")
    assert done.code == 2
    assert "only tiers are tuned" in done.err
