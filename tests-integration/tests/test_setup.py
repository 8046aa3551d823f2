"""`mlx-stack setup`: from nothing to a running stack, interrupted and continued."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.stack import load_stack
from stack_testkit.home import install_fake_engines
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.program import Program

pytestmark = pytest.mark.story

REPO = "someone/Lynx-1B-4bit"
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 16,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "quantization": {"group_size": 64, "bits": 4},
}


HEADER = b"{}      "
FILES = {
    "config.json": json.dumps(CONFIG).encode(),
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER,
    "tokenizer.json": b"{}",
}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_repository(tmp_path / "hub", REPO, FILES)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def ready(program: Program, hub: HubServer) -> Program:
    """The program with fake engines, a hub, and a machine-sized free port for the gateway."""
    install_fake_engines(program.home)
    return program.with_variables(HF_ENDPOINT=hub.url)


def outcomes(document: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {step["name"]: step["outcome"] for step in document["steps"]}


def test_one_command_leads_to_a_running_stack_and_a_second_changes_nothing(
    ready: Program,
) -> None:
    done = ready.run("setup", "--accept-defaults", "--model", REPO, "--json")

    assert done.code == 0, done.err
    assert outcomes(done.document) == {
        "profile": "done",
        "stack": "done",
        "engines": "already",
        "models": "done",
        "start": "done",
    }
    assert [tier.source for tier in load_stack(ready.home.stack).tiers] == [REPO]
    assert ready.run("status", "--json").code == 0
    assert not ready.home.setup_progress.exists()

    again = ready.run("setup", "--accept-defaults", "--json")

    assert again.code == 0, again.err
    assert outcomes(again.document)["stack"] == "already"
    assert outcomes(again.document)["models"] == "already"


def test_the_smallest_model_comes_first_and_answers_while_the_others_are_downloaded(
    ready: Program, tmp_path: Path
) -> None:
    for repo in ("mlx-community/Qwen3-8B-4bit", "mlx-community/Qwen3-0.6B-4bit"):
        write_repository(tmp_path / "hub", repo, FILES)
    tiers = ("--add", "qwen3-8b", "--as", "standard", "--add", "qwen3-0.6b", "--as", "fast")
    defined = ready.run("init", "-y", *tiers, "--remove", "longctx")
    assert defined.code == 0, defined.err

    done = ready.run("setup", "-y")

    assert done.code == 0, done.err
    downloads = ("Qwen3-0.6B", "It already answers", "Qwen3-8B", "`mlx-stack watch --daemon`")
    assert sorted(downloads, key=done.err.index) == list(downloads)


def test_after_a_failed_download_the_next_setup_continues_with_the_same_choices(
    ready: Program, hub: HubServer
) -> None:
    missing = Fault(kind="status", status=404, times=100, path="model.safetensors")
    hub.configure(Settings(faults=(missing,)))

    failed = ready.run("setup", "--accept-defaults", "--model", REPO, "--no-start")

    assert failed.code == 1
    assert "`mlx-stack setup` continues" in failed.err
    progress = json.loads(ready.home.setup_progress.read_text())
    assert progress["done"] == ["profile", "stack"]
    hub.configure(Settings())

    done = ready.run("setup", "--accept-defaults", "--json")

    assert done.code == 0, done.err
    assert "Continuing" in done.err
    assert outcomes(done.document) == {
        "profile": "done",
        "stack": "already",
        "engines": "skipped",
        "models": "done",
        "start": "skipped",
    }
    assert not ready.home.setup_progress.exists()


def test_without_pull_and_start_only_the_stack_is_defined(program: Program) -> None:
    done = program.run("setup", "--accept-defaults", "--no-pull", "--no-start", "--json")

    assert done.code == 0, done.err
    assert program.home.profile.exists()
    assert program.home.stack.exists()
    assert not program.home.engines.exists()


def test_a_stack_that_is_defined_is_kept_and_another_model_refused(program: Program) -> None:
    quick = ("--accept-defaults", "--no-pull", "--no-start")
    assert program.run("setup", *quick).code == 0
    before = program.home.stack.read_bytes()

    refused = program.run("setup", *quick, "--model", "qwen3-8b")

    assert refused.code == 1
    assert "init --add qwen3-8b" in refused.err
    assert program.home.stack.read_bytes() == before
    assert not program.home.setup_progress.exists()


def test_damaged_progress_is_an_error_that_says_what_to_do(program: Program) -> None:
    program.home.create()
    program.home.setup_progress.write_text("{", encoding="utf-8")

    done = program.run("setup", "--accept-defaults", "--no-pull", "--no-start")

    assert done.code == 2
    assert "setup.json" in done.err
    assert "Remove the file" in done.err
