"""A newer revision of a tier's model: a hub, a stand-in engine, the installed program."""

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.hub import HubServer, write_repository
from stack_testkit.program import Finished, Program

pytestmark = pytest.mark.story

REPO = "example/Tiny-4bit"
FOLDER = "example--Tiny-4bit"
CONFIG = {"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}
TOKEN_S = 0.004
GOOD = ("--capable", "ok", "--token-delay", str(TOKEN_S), "--paced", "0.005")
WEIGHTS = len(b"{}      ").to_bytes(8, "little") + b"{}      "
PULL_S = 400.0
PLANTED = {
    "parser": (("--capable", "tag-leak"), "check"),
    "slow": (("--token-delay", str(TOKEN_S / 0.8)), "speed"),
    "broken": (("--exit-after", "0"), "start"),
}


def publish(hub: HubServer | Path, options: Sequence[str], extra: int = 0) -> None:
    """A revision of the model that makes the stand-in behave so."""
    root = hub if isinstance(hub, Path) else hub.root
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": WEIGHTS + bytes(extra),
        "stand_in.json": json.dumps(list(options)).encode(),
    }
    write_repository(root, REPO, files)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    publish(tmp_path / "hub", ())
    with HubServer(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def served(program: Program, hub: HubServer, tmp_path: Path) -> Program:
    """A stack of one tier that runs the first revision."""
    variables = hub.variables(tmp_path / "hf")
    program = program.with_variables(**variables)
    install_fake_engines(program.home, engine_options=GOOD)
    define_stack(program.home, {"standard": {}}, fields={"standard": {"source": REPO}})
    for command in (("pull", REPO), ("up",)):
        done = program.run(*command)
        assert done.code == 0, done.err
    return program


def pull(program: Program, *more: str) -> Finished:
    return program.run("pull", REPO, "--json", *more, timeout_s=PULL_S)


def options_of(program: Program) -> list[str]:
    """What the files that the tier serves make of the stand-in."""
    return json.loads((program.home.models / FOLDER / "stand_in.json").read_text())


@pytest.mark.parametrize(("options", "figure"), PLANTED.values(), ids=PLANTED)
def test_a_revision_that_does_worse_is_refused_until_it_is_forced(
    options: Sequence[str], figure: str, served: Program, hub: HubServer
) -> None:
    publish(hub, options)
    refused = pull(served)

    assert refused.code == 1
    error = refused.document["error"]
    assert error["type"] == "model-worse"
    assert f"standard: {figure}: " in error["message"]
    assert f"pull {REPO} --force" in error["hint"]
    assert options_of(served) == []
    assert served.run("ask", "hello").code == 0

    sent = hub.sent_bytes
    forced = pull(served, "--force")
    assert forced.code == 0, forced.err
    assert forced.document["downloaded_bytes"] == 0
    assert hub.sent_bytes - sent < len(WEIGHTS) * 40  # the answers of the API, and config.json
    assert options_of(served) == list(options)


def test_a_revision_that_does_as_well_is_used_even_if_the_comparison_was_interrupted(
    served: Program, hub: HubServer
) -> None:
    publish(hub, ("--ballast-mb", "1"))
    process = served.start("pull", REPO, "--json-lines")
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "comparing":
            break
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PULL_S)
    assert process.returncode == 130
    assert options_of(served) == []
    assert list(served.home.engines.glob(".health-check.*")) == []

    done = pull(served)
    assert done.code == 0, done.err
    assert done.document["downloaded_bytes"] == 0
    assert "standard performs as well as with the former revision" in done.document["note"]
    assert options_of(served) == ["--ballast-mb", "1"]
    assert pull(served).document["outcome"] == "present"


def test_a_revision_of_the_same_files_is_not_compared(served: Program, hub: HubServer) -> None:
    write_repository(hub.root, REPO, {"README.md": b"not for MLX"})
    done = pull(served)
    assert done.code == 0, done.err
    assert done.document["note"] is None


def test_a_model_that_no_tier_serves_is_just_replaced(served: Program, hub: HubServer) -> None:
    assert served.run("down").code == 0
    served.home.stack.unlink()
    publish(hub, PLANTED["parser"][0])
    done = pull(served)
    assert done.code == 0, done.err
    assert options_of(served) == list(PLANTED["parser"][0])
