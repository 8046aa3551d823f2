"""One model over several Macs: what is checked before, and copied, over a real sshd."""

import hashlib
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mlx_procsup import read_pid
from mlx_procsup.testing import eventually
from mlx_stack import json_file
from mlx_stack.engines.environment import MARKER, EngineName, Environment, Receipt, use_environment
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import FileRecord, Manifest, read_manifest, write_manifest
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack
from stack_testkit.home import define_stack, install_fake_engines, make_environment
from stack_testkit.program import Finished, Program
from stack_testkit.schemas import differences
from stack_testkit.ssh_server import SSHD, SshServer, make_key, ssh_server

pytestmark = [
    pytest.mark.nodes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(SSHD is None, reason="there is no OpenSSH server here"),
]

WITHIN_S = 120
MODEL = "tests--tiny"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    with ssh_server(tmp_path_factory.mktemp("ssh") / "server") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, server: SshServer) -> Program:
    """This Mac: a tier that the studio takes a part of, its model, and its engine."""
    home = Home(tmp_path / "here")
    define_stack(
        home,
        {"huge": {}},
        fields={
            "huge": {
                "engine": "mlx-lm",
                "source": "tests/tiny",
                "quant": None,
                "hosts": [{"host": "studio", "home": str(tmp_path / "there")}],
            }
        },
    )
    install_engine(home)
    make_model(home.models / MODEL)
    return Program(home, server.variables)


@pytest.fixture
def there(tmp_path: Path) -> Home:
    """The studio, which has the engine and no model."""
    home = Home(tmp_path / "there")
    home.create()
    install_engine(home)
    return home


def install_engine(home: Home, lock: str = "a" * 64) -> None:
    environment = Environment(EngineName.MLX_LM, home.engines / "mlx-lm" / "0.0.0-fake0000")
    make_environment(environment)
    at = "2026-01-01T00:00:00+00:00"
    receipt = Receipt(lock_sha256=lock, records_sha256="", installed_at=at)
    json_file.write(environment.path / MARKER, receipt)
    use_environment(home.engines, environment)


def make_model(folder: Path, size: int = 3_000_000, kv_heads: int = 4) -> None:
    """A whole model, as a pull leaves it."""
    folder.mkdir(parents=True)
    config = {
        "model_type": "llama",
        "quantization": {"group_size": 32, "bits": 4},
        "hidden_size": 768,
        "intermediate_size": 1536,
        "num_hidden_layers": 4,
        "num_attention_heads": 12,
        "num_key_value_heads": kv_heads,
        "head_dim": 64,
        "vocab_size": 1000,
    }
    (folder / "config.json").write_text(json.dumps(config))
    tensor = {"dtype": "F16", "shape": [size // 2], "data_offsets": [0, size]}
    header = json.dumps({"model.layers.0.mlp.up_proj.weight": tensor}).encode()
    weights = len(header).to_bytes(8, "little") + header + os.urandom(size)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "tokenizer.json").write_text("{}")
    records = [record_of(folder, path.name) for path in sorted(folder.iterdir())]
    write_manifest(
        folder,
        Manifest(
            repo="tests/tiny", revision="0" * 40, quant=None, origin="downloaded",
            files=tuple(records),
        ),
    )  # fmt: skip


def record_of(folder: Path, name: str) -> FileRecord:
    content = (folder / name).read_bytes()
    if name.endswith(".safetensors"):
        digest, algorithm = hashlib.sha256(content).hexdigest(), "sha256"
    else:
        digest = hashlib.sha1(b"blob %d\x00" % len(content) + content).hexdigest()
        algorithm = "git-sha1"
    return FileRecord(path=name, size_bytes=len(content), algorithm=algorithm, digest=digest)


def refusals(here: Program) -> list[dict[str, Any]]:
    checked = here.run("nodes", "check", "--json", timeout_s=WITHIN_S)
    (group,) = checked.document["groups"]
    assert checked.code == (1 if group["refusals"] else 0)
    return group["refusals"]


def only_refusal(here: Program) -> dict[str, Any]:
    (found,) = refusals(here)
    assert found["node"] == "studio"
    return found


def on_host(here: Program, name: str) -> Program:
    """The same stack, with another name for the studio."""
    text = here.home.stack.read_text().replace("host: studio", f"host: {name}")
    here.home.stack.write_text(text)
    return here


def pull(here: Program) -> Finished:
    return here.run("pull", "tests/tiny", "--nodes", "--json", timeout_s=WITHIN_S)


def test_a_model_is_copied_and_then_nothing_is_refused(here: Program, there: Home) -> None:
    refusal = only_refusal(here)
    assert refusal["message"] == "The model is not on studio."
    assert refusal["fix"] == "`mlx-stack pull tests/tiny --nodes` copies it there."

    pulled = pull(here)
    assert pulled.code == 0, pulled.err
    (row,) = pulled.document["nodes"]
    assert (row["host"], row["outcome"]) == ("studio", "copied")
    copy = there.models / MODEL
    for path in (here.home.models / MODEL).iterdir():
        if path.name != ".mlx-stack.json":
            assert (copy / path.name).read_bytes() == path.read_bytes()
    manifest = read_manifest(copy)
    assert manifest is not None
    assert manifest.verification is not None
    assert refusals(here) == []
    checked = here.run("nodes", "check", "--json", timeout_s=WITHIN_S).document
    assert differences(checked, "nodes-check") == []
    assert all(each["needs_bytes"] > 0 for each in checked["groups"][0]["hosts"])

    again = pull(here)
    assert differences(again.document, "pull") == []
    assert again.document["nodes"][0]["outcome"] == "present"
    assert not list((there.models / ".incoming").iterdir())


def test_a_mac_without_our_key_is_refused_with_what_gives_it_one(
    here: Program, server: SshServer, tmp_path: Path
) -> None:
    make_key(tmp_path / "another")
    server.know("nokey", IdentityFile=str(tmp_path / "another"))
    (refusal,) = refusals(on_host(here, "nokey"))
    assert refusal["node"] == "nokey"
    assert "asks for a password" in refusal["message"]
    assert "`ssh-copy-id nokey`" in refusal["fix"]


def test_a_mac_that_was_never_met_is_refused(
    here: Program, server: SshServer, tmp_path: Path
) -> None:
    server.know("stranger", UserKnownHostsFile=str(tmp_path / "none"))
    (refusal,) = refusals(on_host(here, "stranger"))
    assert "is not known here" in refusal["message"]
    assert not (tmp_path / "none").exists()


def test_a_mac_with_another_host_key_is_refused(
    here: Program, server: SshServer, tmp_path: Path
) -> None:
    key = make_key(tmp_path / "another")
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.port} {key}")
    server.know("changed", UserKnownHostsFile=str(tmp_path / "known"))
    (refusal,) = refusals(on_host(here, "changed"))
    assert "another host key" in refusal["message"]
    assert "ssh-keygen -R" in refusal["fix"]


def test_a_name_without_an_address_is_refused(here: Program, server: SshServer) -> None:
    server.know("nowhere", HostName="nowhere.invalid")
    assert "There is no address for nowhere." in refusals(on_host(here, "nowhere"))[0]["message"]


def test_a_mac_without_remote_login_is_refused(here: Program, server: SshServer) -> None:
    (port,) = free_ports(1)
    server.know("shut", Port=str(port))
    (refusal,) = refusals(on_host(here, "shut"))
    assert "Remote Login" in refusal["fix"]


def test_a_mac_without_mlx_stack_is_refused(here: Program, tmp_path: Path) -> None:
    assert f"no state folder {tmp_path / 'there'} on studio" in only_refusal(here)["message"]


def test_a_mac_without_the_engine_is_refused(here: Program, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    refusal = only_refusal(here)
    assert refusal["message"] == "mlx-lm is not installed on studio."
    assert refusal["fix"] == "On studio: `mlx-stack engines install mlx-lm`."


def test_a_mac_with_another_engine_is_refused(here: Program, tmp_path: Path) -> None:
    there = Home(tmp_path / "there")
    there.create()
    install_engine(there, lock="b" * 64)
    make_model(there.models / MODEL)
    found = {each["message"].split(":")[0] for each in refusals(here)}
    assert "studio has another version of the engine than this Mac." in found
    assert "The model on studio is not the one on this Mac" in found


def test_a_port_that_is_taken_is_refused_on_both(here: Program, there: Home) -> None:
    shutil.copytree(here.home.models, there.models)
    tier = load_stack(here.home.stack).tiers[0]
    with socket.socket() as other:
        other.bind(("127.0.0.1", tier.ring_port(1)))
        other.listen()
        refusal = only_refusal(here)
    assert f"listens on port {tier.ring_port(1)}" in refusal["message"]
    assert refusals(here) == []


def test_an_address_that_studio_does_not_have_is_refused(here: Program, there: Home) -> None:
    shutil.copytree(here.home.models, there.models)
    text = here.home.stack.read_text()
    own = "host: here\n    address: 127.0.0.1\n  - host: studio\n    address: 10.99.0.7"
    here.home.stack.write_text(text.replace("host: studio", own))
    refusal = only_refusal(here)
    assert "studio has no address 10.99.0.7; it has 127.0.0.1 (lo)" in refusal["message"]


def test_a_model_that_does_not_divide_is_refused_before_its_first_request_fails(
    here: Program, there: Home
) -> None:
    shutil.rmtree(here.home.models / MODEL)
    make_model(here.home.models / MODEL, kv_heads=3)
    shutil.copytree(here.home.models, there.models)
    (refusal,) = refusals(here)
    assert refusal["node"] == "here"
    assert "can't be divided evenly by 2 Macs" in refusal["message"]


@pytest.mark.usefixtures("there")
def test_doctor_says_it_as_well(here: Program) -> None:
    found = here.run("doctor", "--json", timeout_s=WITHIN_S).document["findings"]
    (finding,) = [each for each in found if each["check"] == "hosts"]
    assert finding["message"] == "huge: The model is not on studio."
    assert finding["fix"] == "`mlx-stack pull tests/tiny --nodes` copies it there."


def break_cable(server: SshServer, then: str) -> None:
    """Have the way to the studio end, or stall, in the middle of a copy of 60 MB."""
    command = (sys.executable, "-m", "stack_testkit.broken_cable", "%h", "%p", "20000000", then)
    server.know("studio", ProxyCommand=shlex.join(command))


@pytest.fixture
def large_model(here: Program, server: SshServer) -> Iterator[int]:
    """Have a model of so many bytes here, whose copy isn't done in an instant."""
    shutil.rmtree(here.home.models / MODEL)
    make_model(here.home.models / MODEL, size=60_000_000)
    yield 60_000_000
    server.know("studio")


def test_a_copy_that_was_cut_off_continues_where_it_stopped(
    here: Program, there: Home, server: SshServer, large_model: int
) -> None:
    break_cable(server, "ends")
    done = pull(here)
    (row,) = done.document["nodes"]
    assert done.code == 1
    assert row["outcome"] == "failed"
    assert "studio" in row["problem"]
    assert "continues where this stopped" in row["hint"]
    assert not (there.models / MODEL).exists()
    staged = there.models / ".incoming" / MODEL / "model.safetensors.copying"
    lock = there.models / ".incoming" / f"{MODEL}.lock"
    assert eventually(lambda: not lock.exists(), within_s=WITHIN_S)
    begun = staged.stat().st_size
    assert 0 < begun < large_model

    server.know("studio")
    again = pull(here)
    assert again.code == 0, again.err
    assert again.document["nodes"][0]["sent_bytes"] < large_model - begun + 10_000
    assert refusals(here) == []


def test_a_copy_ends_at_once_when_its_command_is_ended(
    here: Program, there: Home, server: SshServer, large_model: int
) -> None:
    break_cable(server, "stalls")
    staged = there.models / ".incoming" / MODEL / "model.safetensors.copying"
    pulling = here.start("pull", "tests/tiny", "--nodes", "--json")
    assert eventually(
        lambda: staged.exists() and staged.stat().st_size > large_model // 10, within_s=WITHIN_S
    )
    pulling.terminate()
    _, said = pulling.communicate(timeout=60)
    assert pulling.returncode == 143, said
    assert "--nodes` continues where this stopped" in said


def test_a_check_ends_at_once_when_its_command_is_ended(
    here: Program, there: Home, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    python = there.engines / "mlx-lm" / "current" / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\ntouch {asked}\nwhile echo; do sleep 1; done\n")
    python.chmod(0o755)
    checking = here.start("nodes", "check")
    assert eventually(asked.exists, within_s=WITHIN_S)
    checking.terminate()
    started = time.monotonic()
    checking.communicate(timeout=WITHIN_S)
    assert time.monotonic() - started < 30  # the connection itself would be given up after a minute
    assert checking.returncode == 128 + signal.SIGTERM


def test_what_was_damaged_over_there_is_found_and_sent_again(here: Program, there: Home) -> None:
    assert pull(here).code == 0
    weights = there.models / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[1_000_000] ^= 1
    weights.write_bytes(content)
    again = pull(here).document["nodes"][0]
    assert again["outcome"] == "copied"
    assert weights.read_bytes() == (here.home.models / MODEL / "model.safetensors").read_bytes()


def test_a_model_that_is_damaged_here_does_not_get_its_place_there(
    here: Program, there: Home
) -> None:
    weights = here.home.models / MODEL / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[1_000_000] ^= 1
    weights.write_bytes(content)
    (row,) = pull(here).document["nodes"]
    assert "another hash" in row["problem"]
    assert "models verify" in row["hint"]
    assert not (there.models / MODEL).exists()


def test_a_disk_without_room_is_said_before_anything_is_sent(here: Program, tmp_path: Path) -> None:
    there = Home(tmp_path / "there")
    there.create()
    install_engine(there)
    with small_disk(there.models, "1m"):
        (row,) = pull(here).document["nodes"]
        assert row["outcome"] == "failed"
        assert "The disk of studio is full" in row["problem"]
        assert "2 MB more" in row["problem"]
        assert "mlx-stack models rm" in row["hint"]


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can't be mounted here (as root)")
    try:
        yield
    finally:
        subprocess.run(("umount", "-l", str(folder)), check=True)


def test_pulling_to_nodes_without_a_tier_that_has_them_is_wrong_usage(here: Program) -> None:
    done = here.run("pull", "tests/other", "--nodes")
    assert done.code == 2
    assert "No tier runs tests/other on several Macs." in done.err


STAND_IN = """#!/bin/sh
# the engine's Python, with a stand-in for the engine
case "$*" in
*guard.py*mlx-lm*)
    [ "$MLX_RANK" = 0 ] || exec cat
    guard=$3; shift 4
    exec {vllm_mlx} -I -u "$guard" serve model "$@";;
*"-c import sys; exec("*) exec {python} -I -u -c "import sys; sys.executable='$0'; $5" "$6";;
esac
exec {python} "$@"
"""


@pytest.fixture
def running(here: Program, there: Home) -> Iterator[Program]:
    """The tier, up on both Macs, with stand-ins for its parts."""
    install_fake_engines(here.home)
    here.run("config", "set", "litellm", "never")
    vllm_mlx = here.home.engines / "vllm-mlx" / "current" / "bin" / "python"
    for home in (here.home, there):
        python = home.engines / "mlx-lm" / "current" / "bin" / "python"
        python.unlink()
        python.write_text(STAND_IN.format(python=sys.executable, vllm_mlx=vllm_mlx))
        python.chmod(0o755)
    assert pull(here).code == 0
    done = here.run("up", "--json", timeout_s=WITHIN_S)
    assert done.code == 0, done.out
    yield here
    here.run("down", timeout_s=WITHIN_S)
    here.stop_all()


def give_another_engine(home: Home) -> None:
    """Have an upgrade of the engine in a state folder, whose Python does the same."""
    marker = home.engines / "mlx-lm" / "current" / MARKER
    receipt = json_file.read(marker, Receipt, hint="")
    assert receipt is not None
    json_file.write(marker, msgspec.structs.replace(receipt, lock_sha256="b" * 64))


def states(program: Program) -> dict[str, str]:
    """The state of the tier and of its parts."""
    rows = program.run("status", "--json").document["services"]
    return {each["name"]: each["state"] for each in rows if each["name"].startswith("huge")}


def test_a_tier_that_the_watchdog_starts_again_is_refused_as_by_up(
    running: Program, there: Home
) -> None:
    give_another_engine(there)
    pid = read_pid(running.home.state_dirs, "huge")
    assert pid is not None
    watching = running.start("watch", "--interval", "1", "--restart-delay", "1")
    try:
        os.killpg(pid, signal.SIGKILL)
        log = running.home.state_dirs.log_file("watchdog")
        assert eventually(log.exists, within_s=WITHIN_S)
        refused = "error: studio has another version of the engine than this Mac. Install the same"
        assert eventually(lambda: refused in log.read_text(), within_s=WITHIN_S)
    finally:
        watching.terminate()
        watching.communicate(timeout=WITHIN_S)
    assert states(running)["huge.rank1@studio"] == "crashed"


def test_a_request_is_refused_by_a_tier_whose_macs_changed_and_answered_once_they_agree(
    running: Program, there: Home
) -> None:
    text = running.home.stack.read_text()
    running.home.stack.write_text(text.replace("lazy: false", "lazy: true"))
    assert running.run("down", timeout_s=WITHIN_S).code == 0
    left = [path.name for path in running.home.run.iterdir()]
    assert not {"huge.ranks", "huge.addresses"} & set(left)
    assert running.run("up", timeout_s=WITHIN_S).code == 0
    give_another_engine(there)
    refused = running.run("ask", "--tier", "huge", "Hello?", timeout_s=WITHIN_S)
    assert refused.code == 1
    assert "studio has another version of the engine than this Mac. Install the same" in refused.err

    give_another_engine(running.home)
    # after a failed start, the next one is only tried after a while
    assert eventually(
        lambda: running.run("ask", "--tier", "huge", "Hello?", timeout_s=WITHIN_S).code == 0,
        within_s=WITHIN_S,
    )


def test_a_tier_that_could_not_start_again_is_not_restarted(running: Program, there: Home) -> None:
    pid = read_pid(running.home.state_dirs, "huge")
    install_engine(there, lock="b" * 64)
    done = running.run("restart", "--tier", "huge", "--json", timeout_s=WITHIN_S)
    assert done.code == 1
    (row,) = done.document["services"]
    assert "studio has another version of the engine" in row["error"]
    assert done.document["stopped"] == []
    assert read_pid(running.home.state_dirs, "huge") == pid
    found = states(running)
    assert set(found.values()) == {"healthy"}, found
