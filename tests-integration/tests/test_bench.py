"""`mlx-stack bench`, driven as a user would, on engines that answer at once."""

import contextlib
import json
import threading
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from mlx_bench import load_report
from mlx_bench.calibration.check import calibration_server
from mlx_hwprobe import parse_hardware_spec
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.home import define_stack, install_fake_engines, make_model_folder
from stack_testkit.program import Program

pytestmark = pytest.mark.story

AGENTS = ("--agents", "2", "--turns", "2", "--prefix-tokens", "900", "--generation-tokens", "8")
SHORT = ("--prompt-tokens", "64", "--generation-tokens", "30", "--iterations", "2")
CATALOG_MODEL = "qwen3-8b"


def engines_of(program: Program) -> list[int]:
    """Processes whose command line names this test's state folder as an engine's does."""
    models = str(program.home.models)
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if "serve" in command and any(word.startswith(models) for word in command):
                found.append(process.pid)
    return found


@pytest.fixture
def stack_of_qwen(served: Program) -> Program:
    """A running tier that says it serves a catalog model, on a Mac that says it is an M4 Max."""
    stack = define_stack(served.home, {"standard": {"token-delay": 0.002}})
    (tier,) = stack.tiers
    tier = msgspec.structs.replace(tier, model=CATALOG_MODEL)
    save_stack(served.home.stack, msgspec.structs.replace(stack, tiers=(tier,)))
    profile = parse_hardware_spec("m4-max:40:64").to_document()
    served.home.profile.write_text(json.dumps(profile), encoding="utf-8")
    started = served.run("up", "--tier", "standard")
    assert started.code == 0, started.out
    return served


def test_a_tier_is_measured_with_memory_verdict_and_tool_call(stack_of_qwen: Program) -> None:
    done = stack_of_qwen.run("bench", "standard", *SHORT, "--json")
    assert done.code == 0, done.err
    shape = done.document
    assert shape["model"] == CATALOG_MODEL
    assert shape["tier"] == "standard"
    assert shape["quant"] == "int4"
    assert 100 < shape["summary"]["generation_tps"]["value"] < 500
    assert shape["memory"]["peak_bytes"] > 1_000_000
    assert shape["machine"]["chip"] == "M4 Max"
    assert shape["engine"] == {"name": "vllm-mlx", "version": "0.0.0"}
    assert shape["verdict"]["overall"] == "PASS"
    assert {each["basis"] for each in shape["verdict"]["against"]} >= {"estimate"}
    # The stand-in repeats the question instead of calling the tool.
    assert shape["tool_calling"]["ok"] is False
    assert shape["saved"] is None
    assert not stack_of_qwen.home.benchmarks.exists()


def test_a_saved_result_is_what_estimate_then_says(stack_of_qwen: Program) -> None:
    before = stack_of_qwen.run("estimate", CATALOG_MODEL, "--json").document
    assert before["generation_tps"]["basis"] != "measured"
    done = stack_of_qwen.run("bench", "standard", *SHORT, "--save", "--json")
    assert done.code == 0, done.err
    saved = Path(done.document["saved"])
    assert saved.parent == stack_of_qwen.home.benchmarks
    assert load_report(saved).finished
    after = stack_of_qwen.run("estimate", CATALOG_MODEL, "--json").document
    assert after["generation_tps"]["basis"] == "measured"


def test_agents_on_a_tier_are_measured_and_saved(stack_of_qwen: Program) -> None:
    done = stack_of_qwen.run("bench", "standard", *AGENTS, "--save", "--json")
    assert done.code == 0, done.err
    shape = done.document
    assert (shape["target"], shape["agents"], shape["tier"]) == ("tier standard", 2, "standard")
    assert [turn["turn"] for turn in shape["turns"]] == [1, 2]
    assert shape["fairness"] >= 1
    assert "-agents-" in Path(shape["saved"]).name
    # What agents saw says nothing of single requests, and is no damaged file either.
    after = stack_of_qwen.run("estimate", CATALOG_MODEL, "--json")
    assert after.code == 0, after.err
    assert after.document["generation_tps"]["basis"] != "measured"


def test_agents_that_the_tier_has_no_context_for_are_refused(stack_of_qwen: Program) -> None:
    stack = load_stack(stack_of_qwen.home.stack)
    tier = msgspec.structs.replace(stack.tiers[0], context_tokens=1200)
    save_stack(stack_of_qwen.home.stack, msgspec.structs.replace(stack, tiers=(tier,)))
    done = stack_of_qwen.run("bench", "standard", *AGENTS)
    assert done.code == 2
    assert "need a context of" in done.err
    assert "--prefix-tokens" in done.err
    mixed = stack_of_qwen.run("bench", "standard", *AGENTS, "--iterations", "4")
    assert (mixed.code, "doesn't go with --agents" in mixed.err) == (2, True)


def test_the_answer_for_people_has_a_table_and_verdicts(
    stack_of_qwen: Program, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    done = stack_of_qwen.run("bench", "standard", *SHORT, "--html", str(page))
    assert done.code == 0, done.err
    assert done.out.startswith(f"{CATALOG_MODEL} at tier standard\n")
    assert "PASS Decode" in done.out
    assert "FAIL Tool calling" in done.out
    assert str(page) in done.err
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_local_model_is_served_just_for_the_run(served: Program) -> None:
    make_model_folder(served.home.models / "lone")
    done = served.run("bench", "lone", *SHORT, "--concurrency", "1,2", "--json")
    assert done.code == 0, done.err
    shape = done.document
    assert [entry["concurrency"] for entry in shape["summary"]] == [1, 2]
    assert shape["memory"]["peak_bytes"] > 1_000_000
    assert shape["verdict"] is None
    assert not served.home.pids.exists()
    assert [run["error"] for run in shape["runs"]] == [None] * 6
    assert engines_of(served) == []


def test_an_interrupted_run_leaves_no_engine_behind(program: Program) -> None:
    install_fake_engines(program.home, engine_options=("--token-delay", "0.05"))
    make_model_folder(program.home.models / "lone")
    with program.start("bench", "lone", "--iterations", "1000") as process:
        deadline = time.monotonic() + 30
        while not engines_of(program) and time.monotonic() < deadline:
            threading.Event().wait(0.05)
        assert engines_of(program)
        process.terminate()
        assert process.wait(timeout=30) == 143
    assert engines_of(program) == []


def test_a_model_that_cannot_be_served_says_why(program: Program) -> None:
    install_fake_engines(program.home, engine_options=("--exit-after", "0"))
    make_model_folder(program.home.models / "lone")
    done = program.run("bench", "lone", *SHORT)
    assert done.code == 1
    assert "lone can't be served" in done.err
    assert "exiting with 3" in done.err
    assert "Traceback" not in done.err


def test_any_endpoint_is_measured(program: Program) -> None:
    with calibration_server() as base_url:
        done = program.run("bench", base_url, "--model", "ttft_ms=20,tps=200", *SHORT, "--json")
    assert done.code == 0, done.err
    shape = done.document
    assert shape["target"] == base_url
    assert shape["summary"]["ttft_s"]["value"] >= 0.02
    assert not program.home.root.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("nothing-like-it",), 2, "isn't a tier"),
        (("http://127.0.0.1:9/v1", "--model", "m"), 1, "Nothing answers"),
        (("lone", "--model", "m"), 2, "only goes with a URL"),
        (("http://127.0.0.1:9/v1", "--iterations", "0"), 2, "iterations"),
        (("http://127.0.0.1:9/v1", "--concurrency", "1,x"), 2, "list of integers"),
        (("standard", "--tune", "--prompt-tokens", "512,4096"), 2, "one prompt length"),
        (("http://127.0.0.1:9/v1", "--api-key-env", "NO_SUCH_KEY_HERE"), 2, "not set"),
    ],
)
def test_what_cannot_be_measured_is_told(
    program: Program, arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = program.run("bench", *arguments)
    assert done.code == code
    assert words in done.err
    assert done.out == ""
    document = program.run("bench", *arguments, "--json").document
    assert document["schema_version"] == 1
    assert words in document["error"]["message"]


def test_a_tier_that_is_down_says_how_to_start_it(served: Program) -> None:
    define_stack(served.home, {"fast": {}})
    assert load_stack(served.home.stack).tier("fast") is not None
    done = served.run("bench", "fast", *SHORT)
    assert done.code == 1
    assert "up --tier fast" in done.err
