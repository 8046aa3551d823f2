"""`mlx-stack pull` of a Whisper, whose tokenizer and processor are in another repository."""

import json
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.home import Home
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.program import Program

pytestmark = pytest.mark.story

MODEL = "whisper-large-v3-turbo"
REPO = "mlx-community/whisper-large-v3-turbo"
LENDER = "openai/whisper-large-v3-turbo"
FOLDER = "mlx-community--whisper-large-v3-turbo"
_DATA = bytes(range(256)) * 2_000
_HEADER = json.dumps(
    {"w": {"dtype": "U8", "shape": [len(_DATA)], "data_offsets": [0, len(_DATA)]}}
).encode()
WEIGHTS = struct.pack("<Q", len(_HEADER)) + _HEADER + _DATA
OWN = {
    "README.md": b"Whisper",
    "config.json": json.dumps({"model_type": "whisper", "n_mels": 128}).encode(),
    "weights.safetensors": WEIGHTS,
}
LENT = {
    "added_tokens.json": b"{}",
    "normalizer.json": b'{"colour": "color"}',
    "preprocessor_config.json": b'{"feature_size": 128}',
    "special_tokens_map.json": b"{}",
    "tokenizer.json": b'{"model": {}}' + b" " * 150_000,
    "tokenizer_config.json": b'{"tokenizer_class": "WhisperTokenizer"}',
}
NOT_LENT = {
    "README.md": b"OpenAI's",
    "config.json": json.dumps({"model_type": "whisper", "d_model": 1280}).encode(),
    "generation_config.json": b"{}",
    "merges.txt": b"#version: 0.2",
    "model.safetensors": WEIGHTS + b"not for this",
    "vocab.json": b"{}",
}
WANTED = {name: OWN[name] for name in OWN if name != "README.md"} | LENT
LENT_BYTES = sum(map(len, LENT.values()))


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_repository(tmp_path / "hub", REPO, OWN)
    write_repository(tmp_path / "hub", LENDER, LENT | NOT_LENT)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def puller(program: Program, hub: HubServer, tmp_path: Path) -> Program:
    """`mlx-stack` for which the hub is the Hub."""
    return program.with_variables(HF_HUB_DOWNLOAD_TIMEOUT="3", **hub.variables(tmp_path / "hf"))


def stored(home: Home) -> dict[str, bytes]:
    files = (home.models / FOLDER).iterdir()
    return {path.name: path.read_bytes() for path in files if path.name != ".mlx-stack.json"}


def forget_processor(home: Home) -> None:
    """Leave the folder as a pull that only knew the repository of the weights left it."""
    path = home.models / FOLDER / ".mlx-stack.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [file for file in manifest["files"] if "origin" not in file]
    path.write_text(json.dumps(manifest))
    for name in LENT:
        (home.models / FOLDER / name).unlink()


def failed(puller: Program, **variables: str) -> Any:
    done = puller.with_variables(**variables).run("pull", MODEL, "--json")
    assert done.code == 1
    assert not (puller.home.models / FOLDER).exists()
    return done.document["error"]


@pytest.mark.parametrize("name", [MODEL, REPO])
def test_a_whisper_comes_with_the_processor_that_its_repository_lacks(
    puller: Program, hub: HubServer, name: str
):
    done = puller.run("pull", name, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED
    size = sum(map(len, WANTED.values()))
    assert done.document["downloaded_bytes"] == done.document["size_bytes"] == size
    assert hub.sent_bytes == size
    verified = puller.run("models", "verify", "--json").document
    assert [each["integrity"] for each in verified["models"]] == ["ok"]
    added = puller.run("init", "--accept-defaults", "--add", MODEL, "--as", "ears", "--json")
    assert added.code == 0, added.out + added.err


def test_a_finished_pull_asks_once_for_each_repository(puller: Program, hub: HubServer):
    assert puller.run("pull", MODEL).code == 0
    before = len(hub.requests)
    again = puller.run("pull", MODEL, "--json")
    assert (again.code, again.document["outcome"]) == (0, "present")
    asked = [request.path for request in hub.requests[before:]]
    assert asked == [f"/api/models/{repo}/revision/main" for repo in (REPO, LENDER)]


def test_a_newer_processor_is_fetched_without_the_weights(puller: Program, hub: HubServer):
    assert puller.run("pull", MODEL).code == 0
    before = hub.sent_bytes
    write_repository(hub.root, LENDER, {"normalizer.json": b'{"grey": "gray"}'})
    done = puller.run("pull", MODEL, "--json")
    assert (done.code, done.document["outcome"]) == (0, "downloaded")
    assert hub.sent_bytes - before == len(b'{"grey": "gray"}')
    assert stored(puller.home)["normalizer.json"] == b'{"grey": "gray"}'


def test_a_whisper_that_was_pulled_without_its_processor_gets_only_that(
    puller: Program, hub: HubServer
):
    assert puller.run("pull", MODEL).code == 0
    forget_processor(puller.home)
    refused = puller.run("init", "--accept-defaults", "--add", MODEL, "--json")
    assert refused.code == 2
    assert f"mlx-stack pull {MODEL}" in refused.document["error"]["hint"]
    before = hub.sent_bytes
    done = puller.run("pull", MODEL, "--json")
    assert done.code == 0, done.err
    assert hub.sent_bytes - before == done.document["downloaded_bytes"] == LENT_BYTES
    assert stored(puller.home) == WANTED


def test_a_repository_that_has_its_own_processor_needs_no_other(puller: Program, hub: HubServer):
    own = {"preprocessor_config.json": b'{"own": 1}', "tokenizer.json": b'{"own": 1}'}
    write_repository(hub.root, REPO, own)
    done = puller.run("pull", MODEL, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == {name: OWN[name] for name in OWN if name != "README.md"} | own
    assert not [request for request in hub.requests if LENDER in request.path]


def test_a_damaged_tokenizer_does_not_count_and_the_weights_stay(puller: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="wrong-hash", path="*tokenizer.json", times=1),)))
    error = failed(puller)
    assert error["type"] == "wrong-content"
    assert "tokenizer.json" in error["message"]
    before = hub.sent_bytes
    hub.configure(Settings())
    done = puller.run("pull", MODEL, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED
    assert hub.sent_bytes - before < len(WEIGHTS)
    assert done.document["resumed_bytes"] >= len(WEIGHTS)


def test_a_turned_bit_in_the_processor_is_found_and_fetched_again(puller: Program):
    assert puller.run("pull", MODEL).code == 0
    damaged = puller.home.models / FOLDER / "preprocessor_config.json"
    damaged.write_bytes(b"[" + damaged.read_bytes()[1:])
    assert puller.run("models", "verify").code == 1
    assert puller.run("pull", MODEL).code == 0
    assert stored(puller.home) == WANTED


def test_a_processor_that_is_missing_is_an_error_that_names_both(puller: Program, hub: HubServer):
    (hub.root / LENDER / "tokenizer.json").unlink()
    error = failed(puller)
    assert REPO in error["message"]
    assert f"{LENDER} has no preprocessor_config.json and tokenizer.json" in error["message"]
    (hub.root / LENDER).rename(hub.root / "openai/renamed")
    error = failed(puller)
    assert error["type"] == "model-not-found"
    assert REPO in error["message"]
    assert LENDER in error["message"]
    assert hub.sent_bytes < len(WEIGHTS), "no weights come before it is known that they can serve"


def test_a_gated_processor_names_its_licence_page(puller: Program, hub: HubServer):
    hub.configure(Settings(gated="manual", gated_path=f"*{LENDER}*"))
    for token in ("", "hf_wrong"):
        error = failed(puller, HF_TOKEN=token)
        assert error["type"] == "gated-model"
        assert REPO in error["message"]
        assert f"{hub.url}/{LENDER}" in error["hint"]
    assert hub.sent_bytes < len(WEIGHTS)


def test_a_whisper_and_its_processor_serve_from_the_hugging_face_cache_offline(
    puller: Program, hub: HubServer
):
    program = (
        "import huggingface_hub as hub; "
        f"hub.snapshot_download({REPO!r}); "
        f"hub.snapshot_download({LENDER!r}, allow_patterns=['*tok*', '*norm*', 'pre*'])"
    )
    command = (sys.executable, "-c", program)
    subprocess.run(command, env=puller.variables, check=True, capture_output=True)
    before = len(hub.requests)
    offline = puller.with_variables(HF_HUB_OFFLINE="1")
    done = offline.run("pull", MODEL, "--json")
    assert done.code == 0, done.err
    assert (done.document["outcome"], stored(puller.home)) == ("linked", WANTED)
    assert offline.run("pull", MODEL, "--json").document["outcome"] == "present"
    assert len(hub.requests) == before


def test_offline_a_processor_that_is_not_cached_is_named(puller: Program):
    program = f"import huggingface_hub as hub; hub.snapshot_download({REPO!r})"
    command = (sys.executable, "-c", program)
    subprocess.run(command, env=puller.variables, check=True, capture_output=True)
    error = failed(puller, HF_HUB_OFFLINE="1")
    assert error["type"] == "offline"
    assert LENDER in error["message"]


def test_removing_a_whisper_removes_its_processor(puller: Program):
    assert puller.run("pull", MODEL).code == 0
    assert puller.run("models", "rm", MODEL).code == 0
    assert not (puller.home.models / FOLDER).exists()
