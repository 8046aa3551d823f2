"""`pull` of 16-bit weights at another precision: downloaded, converted by mlx-lm, served."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from stack_testkit.hub import HubServer
from stack_testkit.program import Program

pytestmark = pytest.mark.engine

REPO = "example/Tiny"


@pytest.fixture
def hub(tmp_path: Path, tiny_model: Path) -> Iterator[HubServer]:
    shutil.copytree(tiny_model, tmp_path / "hub" / REPO)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def puller(hub: HubServer, tmp_path: Path, vllm_mlx_environment: Environment) -> Program:
    home = Home(tmp_path / "home")
    home.create()
    engines = vllm_mlx_environment.path.parent.parent
    home.engines.symlink_to(engines)
    variables = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "NO_COLOR": "1",
    }
    return Program(home, variables)


def test_converted_weights_are_whole_and_answer(
    puller: Program, hub: HubServer, serve: Callable[..., str]
):
    done = puller.run("pull", REPO, "--quant", "int4", "--json", timeout_s=120)
    assert done.code == 0, done.err
    answer = done.document
    assert (answer["outcome"], answer["quant"], answer["origin"]) == (
        "converted",
        "int4",
        "converted",
    )
    folder = Path(answer["path"])
    assert folder.name == "example--Tiny--int4"
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    assert (quantization["bits"], quantization["group_size"]) == (4, 64)
    names = [path.name for path in puller.home.models.iterdir() if path.is_dir()]
    assert sorted(names) == [".incoming", folder.name], "the original is let go again"
    assert puller.run("models", "--verify").code == 0
    before = len(hub.requests)
    again = puller.run("pull", REPO, "--quant", "int4", "--json")
    assert (again.code, again.document["outcome"]) == (0, "present")
    assert len(hub.requests) == before + 1
    url = serve(folder)
    model = httpx.get(f"{url}/v1/models").json()["data"][0]["id"]
    question = {"model": model, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
    answered = httpx.post(f"{url}/v1/completions", json=question, timeout=60)
    assert answered.status_code == 200


@pytest.mark.parametrize(("quant", "bits", "mode"), [("6bit", 6, "affine"), ("mxfp4", 4, "mxfp4")])
def test_any_format_that_mlx_lm_makes_is_converted_to(
    puller: Program, quant: str, bits: int, mode: str
):
    done = puller.run("pull", REPO, "--quant", quant, "--json", timeout_s=120)
    assert done.code == 0, done.err
    config = json.loads((Path(done.document["path"]) / "config.json").read_text())
    assert config["quantization"]["bits"] == bits
    assert config["quantization"].get("mode", "affine") == mode
    assert puller.run("models", "--json").document["models"][0]["quant"] == quant


def test_a_conversion_that_fails_leaves_nothing_and_keeps_the_original(
    puller: Program, hub: HubServer
):
    config = hub.root / REPO / "config.json"
    odd = json.loads(config.read_text())
    del odd["hidden_size"]
    config.write_text(json.dumps(odd))
    done = puller.run("pull", REPO, "--quant", "int8", "--json", timeout_s=120)
    assert done.code == 1
    error = done.document["error"]
    assert error["type"] == "conversion-failed"
    assert "hidden_size" in error["hint"]
    models = puller.run("models", "--json").document["models"]
    assert [(model["repo"], model["quant"], model["integrity"]) for model in models] == [
        (REPO, None, "ok")  # its weights have 32 bits, which is none of our precisions
    ]


def test_a_type_that_mlx_lm_does_not_know_is_told_before_the_download(
    puller: Program, hub: HubServer
):
    config = hub.root / REPO / "config.json"
    odd = {**json.loads(config.read_text()), "model_type": "nobody-knows-it"}
    config.write_text(json.dumps(odd))
    done = puller.run("pull", REPO, "--quant", "int8", "--json", timeout_s=120)
    assert (done.code, done.document["error"]["type"]) == (1, "conversion-failed")
    assert "nobody-knows-it" in done.document["error"]["message"]
    assert hub.sent_bytes <= config.stat().st_size
