"""A repository that brings Python along, against every verb that could run it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_stack.home import Home
from stack_testkit.home import define_stack, install_fake_engines, make_model_folder
from stack_testkit.hub import HubServer, write_repository
from stack_testkit.program import Program

pytestmark = pytest.mark.story

REPO = "evil/innocent-4bit"
FOLDER = "evil--innocent-4bit"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    folder = make_model_folder(tmp_path / "made")
    config = json.loads((folder / "config.json").read_text())
    files = {
        "config.json": json.dumps(config | {"model_file": "modeling.py"}).encode(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "modeling.py": b"raise SystemExit('pwned')",
        "tokenizer.json": b"{}",
    }
    write_repository(tmp_path / "hub", REPO, files)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def victim(program: Program, hub: HubServer, tmp_path: Path) -> Program:
    variables = hub.variables(tmp_path / "hf")
    return program.with_variables(**variables)


def make_evil(home: Home, name: str) -> Path:
    folder = make_model_folder(home.models / name)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_file": "modeling.py"}))
    (folder / "modeling.py").write_text("raise SystemExit('pwned')")
    return folder


def test_pull_refuses_it_before_any_weights_come(victim: Program):
    done = victim.run("pull", REPO, "--json")
    assert done.code == 1
    error = done.document["error"]
    assert error["type"] == "model-code"
    assert "model_file" in error["message"]
    assert "--allow-code" in error["hint"]
    assert not [*victim.home.models.rglob("*.safetensors*"), *victim.home.models.rglob("*.py")]


def test_adding_it_to_the_stack_is_refused_from_the_hub_and_from_a_folder(victim: Program):
    define_stack(victim.home, {"fast": {}})
    before = victim.home.stack.read_text()
    folder = make_evil(victim.home, "copied")
    for name in (REPO, str(folder)):
        done = victim.run("init", "--add", name, "--json")
        assert (done.code, done.document["error"]["type"]) == (1, "model-code")
    assert victim.home.stack.read_text() == before


def test_a_model_that_was_copied_by_hand_is_neither_served_nor_measured(victim: Program):
    install_fake_engines(victim.home)
    define_stack(victim.home, {"fast": {}})
    make_evil(victim.home, "fast-model")
    done = victim.run("up", "--tier", "fast", "--json")
    assert done.code != 0
    (service,) = done.document["services"]
    assert service["outcome"] == "failed"
    assert "model_file" in service["error"]
    measured = victim.run("bench", str(victim.home.models / "fast-model"), "--json")
    assert measured.document["error"]["type"] == "model-code"


def test_what_was_allowed_by_name_is_fetched_with_its_python_until_it_changes(victim: Program):
    define_stack(victim.home, {"fast": {}})
    done = victim.run("pull", REPO, "--allow-code", "--json")
    assert done.code == 0, done.err
    folder = victim.home.models / FOLDER
    assert (folder / "modeling.py").is_file()
    assert victim.run("pull", REPO, "--json").document["outcome"] == "present"
    assert victim.run("init", "--add", REPO, "--json").code == 0
    (folder / "modeling.py").write_text("raise SystemExit('other')")
    assert victim.run("pull", REPO, "--json").document["error"]["type"] == "model-code"
    moved = shutil.copytree(folder, victim.home.models / "theirs")
    assert victim.run("bench", str(moved), "--json").document["error"]["type"] == "model-code"
