"""`mlx-stack pull` and the local models, against a hub that misbehaves on demand."""

import hashlib
import json
import os
import random
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_stack.home import Home
from stack_testkit.home import install_fake_engines
from stack_testkit.hub import Fault, HubServer, Settings, write_repository
from stack_testkit.program import Program

pytestmark = pytest.mark.story

REPO = "example/Tiny-4bit"
FOLDER = "example--Tiny-4bit"
MB = 1_000_000
CONFIG = json.dumps({"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}).encode()


def safetensors(size: int, seed: int) -> bytes:
    data = random.Random(seed).randbytes(size)
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + data


FILES = {
    "README.md": b"not for MLX",
    "config.json": CONFIG,
    "model-00001-of-00002.safetensors": safetensors(12 * MB, 1),
    "model-00002-of-00002.safetensors": safetensors(5 * MB, 2),
    "model.safetensors.index.json": json.dumps(
        {
            "weight_map": {
                "a": "model-00001-of-00002.safetensors",
                "b": "model-00002-of-00002.safetensors",
            }
        }
    ).encode(),
    "tokenizer.json": b"{}" + b" " * 200_000,
}
WANTED = {name: content for name, content in FILES.items() if name != "README.md"}
SIZE = sum(len(content) for content in WANTED.values())


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    write_repository(tmp_path / "hub", REPO, FILES)
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def puller(program: Program, hub: HubServer, tmp_path: Path) -> Program:
    """`mlx-stack` for which the hub is the Hub."""
    return program.with_variables(HF_HUB_DOWNLOAD_TIMEOUT="3", **hub.variables(tmp_path / "hf"))


def model_folder(home: Home) -> Path:
    return home.models / FOLDER


def stored(home: Home) -> dict[str, bytes]:
    folder = model_folder(home)
    files = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.name != ".mlx-stack.json"
    }


def wait_until(happens: Callable[[], bool], deadline_s: float = 30.0) -> None:
    end = time.monotonic() + deadline_s
    while not happens():
        assert time.monotonic() < end, "it didn't happen in time"
        time.sleep(0.005)


def test_a_pulled_model_is_whole_and_listed(puller: Program, hub: HubServer):
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    answer = done.document
    assert answer["schema_version"] == 1
    assert (answer["outcome"], answer["repo"], answer["quant"]) == ("downloaded", REPO, "int4")
    assert answer["downloaded_bytes"] == answer["size_bytes"] == SIZE
    assert answer["path"] == str(model_folder(puller.home))
    assert stored(puller.home) == WANTED
    (model,) = puller.run("models", "--json").document["models"]
    assert (model["id"], model["integrity"], model["tiers"]) == (REPO, "ok", [])
    assert hub.sent_bytes == SIZE  # nothing comes twice, `config.json` neither
    assert list((puller.home.models / ".incoming").iterdir()) == []


def test_a_finished_pull_costs_one_request(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    before = len(hub.requests)
    again = puller.run("pull", REPO, "--json")
    assert (again.code, again.document["outcome"]) == (0, "present")
    (request,) = hub.requests[before:]
    assert request.path == f"/api/models/{REPO}/revision/main"


def test_weights_come_from_the_other_origin_and_the_token_does_not_go_there(
    puller: Program, hub: HubServer
):
    done = puller.with_variables(HF_TOKEN="hf_secret").run("pull", REPO)
    assert done.code == 0, done.err
    to_hub = {request.authorization for request in hub.requests if request.origin == "hub"}
    to_cdn = {request.authorization for request in hub.requests if request.origin == "cdn"}
    assert to_hub == {"Bearer hf_secret"}
    assert to_cdn == {None}
    assert "hf_secret" not in done.out + done.err


def test_the_ranges_of_a_large_file_come_side_by_side(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    ranges = [request.range for request in hub.requests if "00001" in request.path]
    assert len({r for r in ranges if r}) >= 5
    resolved = [r for r in hub.requests if r.origin == "hub" and "00001" in r.path]
    assert len(resolved) < len(ranges), "the Hub is asked for a file's address, not for each range"


def test_a_tree_of_many_pages_is_read_to_its_end(puller: Program, hub: HubServer):
    hub.configure(Settings(page_size=2))
    assert puller.run("pull", REPO).code == 0
    assert stored(puller.home) == WANTED


def test_a_server_without_ranges_serves_too(puller: Program, hub: HubServer):
    hub.configure(Settings(ignores_ranges=True))
    done = puller.run("pull", REPO)
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED


def test_a_new_revision_fetches_only_what_changed(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    before = hub.sent_bytes
    write_repository(hub.root, REPO, {"tokenizer.json": b"{}" + b" " * 300_000})
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert hub.sent_bytes - before == done.document["downloaded_bytes"] == 300_002
    assert len(stored(puller.home)["tokenizer.json"]) == 300_002


def test_a_pinned_revision_is_asked_for(puller: Program, hub: HubServer):
    repository = hub.repository(REPO)
    assert repository is not None
    assert puller.run("pull", f"{REPO}@{repository.commit}").code == 0
    assert hub.requests[0].path == f"/api/models/{REPO}/revision/{repository.commit}"


def test_force_fetches_everything_anew(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    done = puller.run("pull", REPO, "--force", "--json")
    assert (done.document["outcome"], done.document["downloaded_bytes"]) == ("downloaded", SIZE)
    assert hub.sent_bytes >= 2 * SIZE


def test_an_interrupted_forced_pull_continues(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    hub.configure(Settings(rate_bytes_s=200_000))
    before = hub.sent_bytes
    process = puller.start("pull", REPO, "--force", "--quant", "int4")
    wait_until(lambda: hub.sent_bytes > before + 2 * MB)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert f"mlx-stack pull {REPO} --quant int4 --force" in err
    hub.configure(Settings())
    done = puller.run("pull", REPO, "--force", "--quant", "int4", "--json")
    assert done.document["resumed_bytes"] > MB
    assert done.document["downloaded_bytes"] + done.document["resumed_bytes"] == SIZE
    anew = puller.run("pull", REPO, "--force", "--json")
    assert anew.document["downloaded_bytes"] == SIZE


def start_and_kill(puller: Program, hub: HubServer, sent_bytes: int, number: int) -> None:
    process = puller.start("pull", REPO)
    wait_until(lambda: hub.sent_bytes >= sent_bytes or process.poll() is not None)
    process.send_signal(number)
    process.communicate(timeout=10)


def test_a_killed_pull_continues_inside_the_files(puller: Program, hub: HubServer):
    hub.configure(Settings(rate_bytes_s=MB))
    for part in (3 * MB, 6 * MB, 10 * MB):
        start_and_kill(puller, hub, part, signal.SIGKILL)
    assert not model_folder(puller.home).exists()
    (model,) = puller.run("models", "--json").document["models"]
    assert (model["repo"], model["integrity"]) == (REPO, "incomplete")
    assert 0 < model["present_bytes"] < SIZE
    hub.configure(Settings())
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED
    assert done.document["resumed_bytes"] > 5 * MB
    assert done.document["downloaded_bytes"] + done.document["resumed_bytes"] == SIZE


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_within_a_second_and_says_how_to_continue(
    puller: Program, hub: HubServer, number: int, code: int
):
    hub.configure(Settings(rate_bytes_s=200_000))
    process = puller.start("pull", REPO)
    wait_until(lambda: hub.sent_bytes > 2 * MB)
    began = time.monotonic()
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - began < 2.0  # a second, on a machine that does something else too
    assert process.returncode == code
    assert f"mlx-stack pull {REPO}" in err
    hub.configure(Settings())
    done = puller.run("pull", REPO, "--json")
    assert done.document["resumed_bytes"] > MB


def test_an_interrupted_json_pull_still_answers_with_one_document(puller: Program, hub: HubServer):
    hub.configure(Settings(rate_bytes_s=200_000))
    process = puller.start("pull", REPO, "--json")
    wait_until(lambda: hub.sent_bytes > MB)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=10)
    assert json.loads(out)["error"]["type"] == "interrupted"


def test_two_pulls_at_once_download_once(puller: Program, hub: HubServer):
    hub.configure(Settings(rate_bytes_s=MB))
    first = puller.start("pull", REPO, "--json")
    wait_until(lambda: hub.sent_bytes > 0)
    second = puller.start("pull", REPO, "--json")
    outcomes: list[str] = []
    for process in (first, second):
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
        outcomes.append(json.loads(out)["outcome"])
    assert outcomes == ["downloaded", "present"]
    assert hub.sent_bytes < SIZE * 1.02  # a piece that changes hands may come a little further
    assert stored(puller.home) == WANTED


def test_an_api_that_stumbles_is_asked_again(puller: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="status", status=502, path="/api/*", times=2),)))
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED


def test_a_server_that_wants_to_be_left_alone_for_long_ends_the_pull(
    puller: Program, hub: HubServer
):
    fault = Fault(kind="status", status=429, retry_after="86400", path="*.safetensors")
    hub.configure(Settings(faults=(fault,)))
    done = puller.run("pull", REPO, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "hub-unreachable"
    assert "86400 s" in done.document["error"]["message"]


def test_a_wrong_hash_is_an_error_and_the_model_does_not_count(puller: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="wrong-hash", path="*-00002-of*", times=1),)))
    done = puller.run("pull", REPO, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "wrong-content"
    assert "model-00002-of-00002.safetensors" in done.document["error"]["message"]
    assert not model_folder(puller.home).exists()
    hub.configure(Settings())
    again = puller.run("pull", REPO, "--json")
    assert again.code == 0, again.err
    assert stored(puller.home) == WANTED


def test_a_wrong_size_is_an_error_before_the_bytes_are_read(puller: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="wrong-size", path="*-00001-of*"),)))
    done = puller.run("pull", REPO, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "wrong-content"
    assert str(len(FILES["model-00001-of-00002.safetensors"])) in done.document["error"]["message"]


def test_what_an_earlier_pull_left_damaged_is_fetched_again(puller: Program, hub: HubServer):
    hub.configure(Settings(rate_bytes_s=MB))
    start_and_kill(puller, hub, 8 * MB, signal.SIGKILL)
    name = "model-00001-of-00002.safetensors.part"
    partial = puller.home.models / ".incoming" / FOLDER / name
    with partial.open("r+b") as file:
        file.write(b"\xff" * 64)
    hub.configure(Settings())
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED


@pytest.mark.parametrize(("token", "page"), [("", "licence"), ("hf_wrong", "licence")])
def test_a_gated_model_names_the_licence_page_and_the_token(
    puller: Program, hub: HubServer, token: str, page: str
):
    hub.configure(Settings(gated="manual"))
    done = puller.with_variables(HF_TOKEN=token).run("pull", REPO, "--json")
    assert done.code == 1
    error = done.document["error"]
    assert error["type"] == "gated-model"
    assert page in error["message"]
    assert f"{hub.url}/{REPO}" in error["hint"]
    assert "HF_TOKEN" in error["hint"]
    assert hub.sent_bytes == 0


def test_a_gated_model_comes_with_the_right_token(puller: Program, hub: HubServer):
    hub.configure(Settings(gated="auto", token="hf_right"))
    assert puller.with_variables(HF_TOKEN="hf_right").run("pull", REPO).code == 0
    assert stored(puller.home) == WANTED


def test_a_gated_model_that_is_here_needs_no_token(puller: Program, hub: HubServer):
    hub.configure(Settings(gated="auto", token="hf_right"))
    assert puller.with_variables(HF_TOKEN="hf_right").run("pull", REPO).code == 0
    done = puller.run("pull", REPO, "--json")
    assert (done.code, done.document["outcome"]) == (0, "present")


def test_a_token_that_the_hub_does_not_know_is_not_a_missing_model(puller: Program, hub: HubServer):
    hub.configure(Settings(faults=(Fault(kind="status", status=401, path="/api/*"),)))
    done = puller.with_variables(HF_TOKEN="hf_old").run("pull", REPO, "--json")
    assert done.code == 1
    assert "token" in done.document["error"]["message"]


def test_a_disabled_model_is_not_called_gated(puller: Program, hub: HubServer):
    message = "Access to this resource is disabled."
    fault = Fault(kind="status", status=403, path="/api/*", message=message)
    hub.configure(Settings(faults=(fault,)))
    done = puller.run("pull", REPO, "--json")
    assert done.code == 1
    assert "disabled" in done.document["error"]["message"]


@pytest.mark.parametrize("name", ["example/Nothing", f"{REPO}@nowhere"])
def test_what_the_hub_does_not_know_is_an_error(puller: Program, hub: HubServer, name: str):
    if "@" in name:
        hub.configure(Settings(faults=(Fault(kind="status", status=404, path="*nowhere*"),)))
    done = puller.run("pull", name, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "model-not-found"
    assert "Traceback" not in done.err


def test_a_mistyped_catalog_id_gets_the_nearest_names(puller: Program):
    done = puller.run("pull", "qwen3-8bb")
    assert done.code == 2
    assert "qwen3-8b" in done.err


def test_a_configuration_without_end_is_not_read(puller: Program, hub: HubServer):
    files = {**WANTED, "config.json": CONFIG + b" " * 17_000_000}
    write_repository(hub.root, "example/Endless", files)
    done = puller.run("pull", "example/Endless", "--json")
    assert done.document["error"]["type"] == "wrong-content"
    assert hub.sent_bytes == 0


def test_a_model_larger_than_the_disk_is_refused_before_any_weights_come(
    puller: Program, hub: HubServer
):
    huge = hub.root / "example" / "Huge" / "model.safetensors"
    huge.parent.mkdir(parents=True)
    with huge.open("wb") as file:
        file.truncate(1 << 43)  # sparse
    (huge.parent / "config.json").write_bytes(CONFIG)
    done = puller.run("pull", "example/Huge", "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "disk-full"
    assert hub.sent_bytes == len(CONFIG)


def test_weights_of_another_format_are_refused(puller: Program, hub: HubServer):
    write_repository(hub.root, "example/Gguf", {"config.json": CONFIG, "model.gguf": b"x"})
    done = puller.run("pull", "example/Gguf", "--json")
    assert done.code == 1
    assert "model.gguf" in done.document["error"]["hint"]


def test_the_precision_is_asked_for_again_where_the_server_stumbles(
    puller: Program, hub: HubServer
):
    hub.configure(Settings(faults=(Fault(kind="status", path="config.json", times=2),)))
    done = puller.run("pull", REPO, "--quant", "int4", "--json")
    assert done.code == 0, done.err


@pytest.mark.parametrize("options", [[], ["--quant", "int4"]])
def test_a_repository_with_a_damaged_configuration_is_told(
    puller: Program, tmp_path: Path, options: list[str]
):
    write_repository(tmp_path / "hub", REPO, {**FILES, "config.json": b"<html>"})
    done = puller.run("pull", REPO, *options, "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "wrong-content")
    assert "config.json" in done.document["error"]["message"]


@pytest.mark.parametrize(
    "config",
    [
        b'{"model_type": "nemotron_h", "time_step_limit": [0.0, Infinity]}',
        b'\xef\xbb\xbf{"model_type": "llama", "x": NaN}',
        b'{"model_type": "llama", "quantization_config": {"quant_method": "quark"}}',
    ],
)
def test_a_configuration_that_only_python_reads_undoes_no_download(
    puller: Program, tmp_path: Path, config: bytes
):
    write_repository(tmp_path / "hub", REPO, {**FILES, "config.json": config})
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert done.document["integrity"] == "ok"
    assert done.document["quant"] in (None, "bf16")


def test_a_damaged_configuration_ends_the_pull_before_the_weights_have_come(
    puller: Program, hub: HubServer, tmp_path: Path
):
    write_repository(tmp_path / "hub", REPO, {**FILES, "config.json": b"<html>"})
    hub.configure(Settings(rate_bytes_s=MB // 10))
    done = puller.run("pull", REPO, "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "wrong-content")
    assert hub.sent_bytes < SIZE / 2


def test_a_configuration_with_another_hash_ends_the_pull_before_the_weights_have_come(
    puller: Program, hub: HubServer
):
    hub.configure(Settings(faults=(Fault(kind="wrong-hash", path="config.json"),)))
    done = puller.run("pull", REPO, "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "wrong-content")
    assert hub.sent_bytes <= len(CONFIG)
    assert not list(puller.home.models.rglob("config.json"))


def test_a_precision_that_the_weights_do_not_have_is_refused(puller: Program):
    done = puller.run("pull", REPO, "--quant", "int8", "--json")
    assert done.code == 2
    assert "int4" in done.document["error"]["message"]
    assert puller.run("pull", REPO, "--quant", "int4").code == 0


@pytest.mark.parametrize("quant", ["nvfp4", "int4-dwq"])
def test_other_4_bits_than_the_files_tell_of_are_not_taken_for_them(puller: Program, quant: str):
    done = puller.run("pull", REPO, "--quant", quant, "--json")
    assert done.code == 2
    assert f"can't be converted to {quant}" in done.document["error"]["message"]


def test_what_only_training_makes_is_not_converted(puller: Program, hub: HubServer):
    install_fake_engines(puller.home)
    config = json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}).encode()
    write_repository(hub.root, "example/Whole", {**FILES, "config.json": config})
    done = puller.run("pull", "example/Whole", "--quant", "int4-qat", "--json")
    assert (done.code, hub.sent_bytes <= 2 * len(config)) == (2, True)


def test_a_conversion_without_a_chance_is_refused_after_the_first_kilobyte(
    puller: Program, hub: HubServer
):
    install_fake_engines(puller.home)  # in whose interpreter there is no mlx-lm
    config = json.dumps({"model_type": "llama", "torch_dtype": "bfloat16"}).encode()
    write_repository(hub.root, "example/Whole", {**FILES, "config.json": config})
    done = puller.run("pull", "example/Whole", "--quant", "int4", "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "conversion-failed")
    assert hub.sent_bytes <= 2 * len(config)
    assert puller.run("models", "--json").document["models"] == []


@pytest.mark.parametrize(
    ("fault", "told", "kind"),
    [
        (Fault(kind="status", status=403, path="/api/*"), "HTTP 403", "hub-refused"),
        (
            Fault(kind="status", status=403, path="/api/*", message="Your address is blocked."),
            "Your address is blocked.",
            "hub-refused",
        ),
        (Fault(kind="status", status=403, path="config.json"), "HTTP 403", "hub-refused"),
        (
            Fault(kind="status", status=403, path="config.json", message="No."),
            "No. (HTTP 403)",
            "hub-refused",
        ),
        (Fault(kind="status", status=451, path="config.json"), "HTTP 451", "hub-refused"),
    ],
)
def test_a_refusal_of_an_open_model_says_nothing_of_a_licence(
    puller: Program, hub: HubServer, fault: Fault, told: str, kind: str
):
    hub.configure(Settings(faults=(fault,)))
    done = puller.run("pull", REPO, "--json")
    error = done.document["error"]
    assert (done.code, error["type"]) == (1, kind)
    assert told in error["message"]
    assert "licence" not in f"{error['message']} {error['hint']}"


def test_offline_a_model_that_is_here_needs_no_request(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    before = len(hub.requests)
    done = puller.with_variables(HF_HUB_OFFLINE="1").run("pull", REPO, "--json")
    assert (done.code, done.document["outcome"]) == (0, "present")
    assert len(hub.requests) == before


def test_offline_nothing_is_called_fetched_anew(puller: Program):
    assert puller.run("pull", REPO).code == 0
    offline = puller.with_variables(HF_HUB_OFFLINE="1")
    done = offline.run("pull", REPO, "--force", "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "offline")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", ""),
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_TOKEN", "hf_ü"),
    ],
)
def test_a_variable_that_makes_no_sense_is_told_at_once(puller: Program, name: str, value: str):
    done = puller.with_variables(**{name: value}).run("pull", REPO, "--json")
    assert (done.code, done.document["error"]["type"]) == (2, "usage")
    assert name.partition("_")[0] in done.document["error"]["message"]


def test_offline_a_model_that_is_not_here_is_an_error(puller: Program, hub: HubServer):
    done = puller.with_variables(HF_HUB_OFFLINE="1").run("pull", REPO, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "offline"
    assert hub.requests == []


def test_another_commit_than_the_named_one_is_not_enough(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    offline = puller.with_variables(HF_HUB_OFFLINE="1")
    done = offline.run("pull", f"{REPO}@{'a' * 40}", "--json")
    assert (done.code, done.document["error"]["type"]) == (1, "offline")
    repository = hub.repository(REPO)
    assert repository is not None
    assert offline.run("pull", f"{REPO}@{repository.commit}").code == 0


def test_a_whole_model_is_enough_while_the_hub_is_away(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    hub.close()
    done = puller.run("pull", REPO, "--json")
    assert (done.code, done.document["outcome"]) == (0, "present")
    assert "not compared" in done.document["note"]


def test_a_model_that_the_hub_has_taken_away_is_told(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    hub.configure(Settings(faults=(Fault(kind="status", status=404, path="/api/*"),)))
    assert puller.run("pull", REPO, "--json").document["error"]["type"] == "model-not-found"


def fill_cache(folder: Path, hub: HubServer, *names: str) -> None:
    """Put files where huggingface_hub would have put them."""
    repository = hub.repository(REPO)
    assert repository is not None
    place = folder / "hub" / f"models--{FOLDER}"
    snapshot = place / "snapshots" / repository.commit
    for path in (place / "blobs", place / "refs", snapshot):
        path.mkdir(parents=True)
    (place / "refs" / "main").write_text(repository.commit)
    for name in names:
        is_lfs = len(FILES[name]) >= hub.settings.lfs_from_bytes
        blob = place / "blobs" / (repository.sha256(name) if is_lfs else repository.git_sha1(name))
        blob.write_bytes(FILES[name])
        (snapshot / name).symlink_to(blob)


def test_what_is_in_the_hugging_face_cache_is_linked_and_not_fetched(
    puller: Program, hub: HubServer, tmp_path: Path
):
    weights = "model-00001-of-00002.safetensors"
    fill_cache(tmp_path / "hf", hub, weights)
    done = puller.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED
    assert done.document["linked_bytes"] == len(FILES[weights])
    assert hub.sent_bytes == SIZE - len(FILES[weights])
    blob = next(path for path in (tmp_path / "hf").rglob("blobs/*"))
    assert blob.samefile(model_folder(puller.home) / weights)


LIKE_EXFAT = """
import errno, fcntl, os, stat

def refuse(*_, **__):
    raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

def fsync(descriptor, real=os.fsync):
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        refuse()
    real(descriptor)

os.link = os.symlink = fcntl.flock = refuse
os.fsync = fsync
"""


def on_exfat(puller: Program, folder: Path) -> Program:
    """`mlx-stack` for which no disk has links, locks, or folders that can be flushed."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LIKE_EXFAT)
    return puller.with_variables(PYTHONPATH=str(folder))


def test_a_disk_without_links_and_locks_takes_a_model_and_what_is_cached_of_it(
    puller: Program, hub: HubServer, tmp_path: Path
):
    weights = "model-00001-of-00002.safetensors"
    fill_cache(tmp_path / "hf", hub, weights)
    done = on_exfat(puller, tmp_path / "site").run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert stored(puller.home) == WANTED
    assert done.document["linked_bytes"] == len(FILES[weights])
    assert hub.sent_bytes == SIZE - len(FILES[weights])
    assert "same model twice" in done.err


def test_on_a_disk_without_sparse_files_an_interrupted_pull_needs_only_its_rest(
    puller: Program, hub: HubServer, tmp_path: Path
):
    exfat = on_exfat(puller, tmp_path / "site")
    hub.configure(Settings(rate_bytes_s=MB))
    start_and_kill(exfat, hub, 8 * MB, signal.SIGKILL)
    staged = puller.home.models / ".incoming" / FOLDER
    (before,) = puller.run("models", "--json").document["models"]
    for part in staged.glob("*.part"):  # what such a disk does where a file has a hole
        part.write_bytes(part.read_bytes().ljust(len(FILES[part.stem]), b"\0"))
        (staged / f"._{part.name}").write_bytes(b"\x00\x05\x16\x07")
    (model,) = puller.run("models", "--json").document["models"]
    assert model["present_bytes"] == before["present_bytes"] < SIZE
    hub.configure(Settings())
    done = exfat.run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert done.document["resumed_bytes"] >= before["present_bytes"]
    assert stored(puller.home) == WANTED


def test_a_model_in_the_hugging_face_cache_serves_offline(
    puller: Program, hub: HubServer, tmp_path: Path
):
    fill_cache(tmp_path / "hf", hub, *WANTED)
    done = puller.with_variables(HF_HUB_OFFLINE="1").run("pull", REPO, "--json")
    assert done.code == 0, done.err
    assert done.document["outcome"] == "linked"
    assert hub.requests == []
    assert stored(puller.home) == WANTED


def test_offline_another_precision_than_the_cached_one_is_refused(
    puller: Program, hub: HubServer, tmp_path: Path
):
    fill_cache(tmp_path / "hf", hub, *WANTED)
    offline = puller.with_variables(HF_HUB_OFFLINE="1")
    done = offline.run("pull", REPO, "--quant", "int8", "--json")
    assert done.code == 2
    assert not model_folder(puller.home).exists()


def test_offline_a_part_of_a_model_in_the_hugging_face_cache_is_not_a_model(puller: Program):
    program = (
        "import huggingface_hub as hub; "
        f"hub.snapshot_download({REPO!r}, allow_patterns=['config.json', 'model*'])"
    )
    command = (sys.executable, "-c", program)
    subprocess.run(command, env=puller.variables, check=True, capture_output=True)
    done = puller.with_variables(HF_HUB_OFFLINE="1").run("pull", REPO, "--json")
    assert done.code == 1
    assert done.document["error"]["type"] == "offline"
    assert "tokenizer.json" in done.document["error"]["message"]


def test_a_damaged_file_of_the_hugging_face_cache_is_fetched(
    puller: Program, hub: HubServer, tmp_path: Path
):
    fill_cache(tmp_path / "hf", hub, "model-00001-of-00002.safetensors")
    blob = next(path for path in (tmp_path / "hf").rglob("blobs/*"))
    content = bytearray(blob.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    assert puller.run("pull", REPO).code == 0
    assert stored(puller.home) == WANTED


def test_verifying_finds_a_turned_bit_and_pull_mends_just_that_file(
    puller: Program, hub: HubServer
):
    assert puller.run("pull", REPO).code == 0
    path = model_folder(puller.home) / "model-00002-of-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[1_000_000] ^= 1
    path.write_bytes(content)
    assert puller.run("models", "--json").document["models"][0]["integrity"] == "ok"
    found = puller.run("models", "--verify", "--json")
    assert found.code == 1
    assert found.document["models"][0]["integrity"] == "damaged"
    assert puller.run("models", "--json").document["models"][0]["integrity"] == "damaged"
    before = hub.sent_bytes
    assert puller.run("pull", REPO).code == 0
    assert hub.sent_bytes - before == len(content)
    assert stored(puller.home) == WANTED
    assert puller.run("models", "--verify").code == 0


def test_a_file_that_went_missing_is_shown_and_fetched(puller: Program, hub: HubServer):
    assert puller.run("pull", REPO).code == 0
    (model_folder(puller.home) / "tokenizer.json").unlink()
    (model,) = puller.run("models", "--json").document["models"]
    assert (model["integrity"], model["problems"]) == (
        "incomplete",
        ["tokenizer.json is missing"],
    )
    before = hub.sent_bytes
    assert puller.run("pull", REPO).code == 0
    assert hub.sent_bytes - before == len(FILES["tokenizer.json"])


def test_the_inventory_can_be_thrown_away(puller: Program):
    assert puller.run("pull", REPO).code == 0
    inventory = puller.home.models / "inventory.json"
    before = json.loads(inventory.read_text())
    assert before["models"][0]["repo"] == REPO
    inventory.unlink()
    assert puller.run("models", "--json").document["models"][0]["repo"] == REPO


def write_stack(home: Home) -> None:
    home.stack.parent.mkdir(parents=True)
    home.stack.write_text(
        "schema_version: 1\ntiers:\n- {name: fast, model: tiny, quant: int4, "
        f"source: {REPO}, port: 8123, vllm_flags: {{}}}}\n"
    )


def test_removing_a_model_that_a_tier_uses_needs_force(puller: Program):
    assert puller.run("pull", REPO).code == 0
    write_stack(puller.home)
    assert puller.run("models", "--json").document["models"][0]["tiers"] == ["fast"]
    refused = puller.run("models", "--remove", REPO, "--json")
    assert refused.code == 1
    assert "fast" in refused.document["error"]["message"]
    assert model_folder(puller.home).exists()
    done = puller.run("models", "--remove", REPO, "--force", "--json")
    assert done.code == 0
    assert done.document["freed_bytes"] >= SIZE
    assert not model_folder(puller.home).exists()
    assert puller.run("models", "--json").document["models"] == []
    assert puller.run("models", "--remove", REPO).code == 1


def test_reading_creates_nothing(puller: Program):
    assert puller.run("models", "--json").document["models"] == []
    assert not puller.home.root.exists()


def test_a_pull_in_a_pipe_is_quiet(puller: Program):
    done = puller.run("pull", REPO)
    assert done.out.count("\n") == 1
    assert str(model_folder(puller.home)) in done.out
    assert done.err == f"{REPO}: 17 MB to download\n"
    assert "\x1b" not in done.out + done.err


def test_events_are_one_object_a_line_and_end_with_the_result(puller: Program, hub: HubServer):
    hub.configure(Settings(rate_bytes_s=500_000))
    done = puller.run("pull", REPO, "--json-lines")
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert kinds[0] == "planned"
    assert kinds[-1] == "result"
    assert kinds.count("file-verified") == len(WANTED)
    progress = [event for event in events if event["event"] == "progress"]
    present = [event["present_bytes"] for event in progress]
    assert present == sorted(present)
    assert progress[-1]["total_bytes"] == SIZE
    assert events[-1]["outcome"] == "downloaded"


def test_hashes_in_the_manifest_are_those_of_the_files(puller: Program):
    assert puller.run("pull", REPO).code == 0
    manifest = json.loads((model_folder(puller.home) / ".mlx-stack.json").read_text())
    for file in manifest["files"]:
        content = WANTED[file["path"]]
        assert file["size_bytes"] == len(content)
        if file["algorithm"] == "sha256":
            assert file["digest"] == hashlib.sha256(content).hexdigest()


def test_a_models_folder_that_cannot_be_made_is_an_error_without_traceback(puller: Program):
    blocker = puller.home.root / "file"
    puller.home.create()
    blocker.write_text("")
    puller.home.config.write_text(f"model-dir: {blocker}/models\n")
    puller.home.config.chmod(0o600)
    done = puller.run("pull", REPO)
    assert done.code in (1, 2)
    assert "Traceback" not in done.err
    assert str(blocker) in done.err


def test_huggingface_hub_agrees_with_the_hub_of_the_tests(puller: Program, tmp_path: Path):
    script = (
        "import sys; from huggingface_hub import snapshot_download; "
        "snapshot_download(sys.argv[1], local_dir=sys.argv[2])"
    )
    python = Path(puller.command()[0]).with_name("python")
    target = tmp_path / "copy"
    environment = {**os.environ, **puller.variables, "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    subprocess.run([python, "-c", script, REPO, target], env=environment, check=True, timeout=60)
    for name, content in FILES.items():
        assert (target / name).read_bytes() == content
