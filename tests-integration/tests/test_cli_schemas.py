"""Every answer of `--json` has the shape that its schema documents, neither less nor more."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import click
import pytest
from jsonschema import Draft202012Validator

from mlx_stack.cli.root import root
from mlx_stack.demo import DemoResult, Fallback
from mlx_stack.home import Home
from mlx_stack.steps import Step
from stack_testkit.fake_mac import FakeMac
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.hub import HubServer, write_repository
from stack_testkit.program import Program
from stack_testkit.schemas import differences, load_schema, schema_names

pytestmark = pytest.mark.story

MAC = ("--hardware", "m4-max:40:64")
TWO_MACS = ("--hardware", "m4-max:40:128+m4-max:40:128")
ELSEWHERE = {"engines-install", "engines-upgrade", "engines-rollback"}
"""Validated where real engines are installed: they need minutes, not seconds."""

NODES = {"nodes-add", "nodes-check", "nodes-discover", "nodes-list", "nodes-pair", "nodes-remove"}
"""Validated in `test_nodes.py`, where there is another stack."""

CAPTURES = Path(__file__).parents[2] / "packages" / "mlx-hwprobe" / "tests" / "captures"
NVIDIA = CAPTURES / "linux_nvidia.json"

READING: dict[str, tuple[str, ...]] = {
    "status": ("status",),
    "up-dry-run": ("up", "--dry-run"),
    "env": ("env",),
    "profile": ("profile",),
    "models-list": ("models", "list"),
    "models-catalog": ("models", "list", "--catalog", *MAC),
    "models-show": ("models", "show", "fast-model", *MAC),
    "models-verify": ("models", "verify"),
    "estimate": ("estimate", "qwen3-8b", *MAC),
    "recommend": ("recommend", "--with", "embedding,rerank", *MAC),
    "config-list": ("config", "list"),
    "config-get": ("config", "get", "model-dir"),
    "config-set": ("config", "set", "log-max-files", "4"),
    "config-reset": ("config", "reset", "--yes"),
    "logs": ("logs",),
    "logs-rotate": ("logs", "--rotate"),
    "connect": ("connect",),
    "doctor": ("doctor",),
    "engines-list": ("engines", "list"),
    "engines-verify": ("engines", "verify"),
    "engines-prune": ("engines", "prune"),
    "init": ("init", "--accept-defaults", "--force"),
    "setup": ("setup", "--no-pull", "--no-start"),
    "usage": ("usage",),
    "upgrade": ("upgrade", "--check"),
    "models-rm": ("models", "rm", "fast-model", "--force"),
}
RUNNING: dict[str, tuple[str, ...]] = {
    "up": ("up",),
    "status": ("status",),
    "ask": ("ask", "hello"),
    "bench": ("bench", "standard", "--iterations", "1", "--prompt-tokens", "8"),
    "bench-agents": (
        *("bench", "standard", "--agents", "2", "--turns", "2"),
        *("--prefix-tokens", "900", "--generation-tokens", "8"),
    ),
    "bench-role": (
        *("bench", "standard", "--role", "vision", "--sizes", "16", "--iterations", "1"),
    ),
    "bench-check": ("bench", "standard", "--check"),
    "bench-tune": ("bench", "standard", "--tune", "--dry-run"),
    "logs-service": ("logs", "standard"),
    "connect-client": ("connect", "llm"),
    "keys-add": ("keys", "add", "laptop"),
    "keys-list": ("keys", "list"),
    "keys-revoke": ("keys", "revoke", "laptop"),
    "dashboard": ("dashboard", "--print-url"),
    "restart": ("restart",),
    "watch": ("watch", "--daemon"),
    "down": ("down",),
}
FAILING: dict[tuple[str, ...], int] = {
    ("up", "--tier", "nope"): 2,
    ("estimate", "no-such-model"): 2,
    ("logs", "nope"): 2,
    ("config", "get", "no-such-key"): 2,
    ("keys", "revoke", "nobody"): 2,
    ("usage", "--since", "never"): 2,
    ("engines", "rollback"): 1,
    ("connect", "no-such-client"): 2,
    ("models", "rm", "nope"): 2,
    ("bench", "nope"): 2,
    ("pull", "no-such-model"): 2,
    ("profile", "--from", "/no/such/file"): 2,
}


@pytest.fixture
def stack(served: Program, tmp_path: Path) -> Program:
    """A stack of two tiers on the fake engine, with a user's home of its own."""
    variables = {**served.variables, "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    program = Program(served.home, variables)
    define_stack(program.home, {"standard": {}, "fast": {}})
    return program


@pytest.mark.parametrize("name", schema_names())
def test_a_schema_is_valid_itself_and_says_what_its_fields_mean(name: str) -> None:
    schema = load_schema(name)

    Draft202012Validator.check_schema(schema)
    assert schema["title"]
    if name != "parts":
        assert schema["properties"]["schema_version"]["const"] == 1
    assert list(_without_description(schema)) == []


def _without_description(schema: object, path: str = "") -> Iterator[str]:
    """The fields, at any depth, of which the schema doesn't say what they mean."""
    if isinstance(schema, list):
        for part in cast("list[object]", schema):
            yield from _without_description(part, path)
    elif isinstance(schema, dict):
        parts = cast("dict[str, Any]", schema)
        for name, field in cast("dict[str, Any]", parts.get("properties", {})).items():
            if not field.get("description"):
                yield f"{path}.{name}"
            yield from _without_description(field, f"{path}.{name}")
        for name, part in parts.items():
            if name != "properties":
                yield from _without_description(part, path)


@pytest.mark.parametrize("name", READING)
def test_the_answer_of_a_command_that_only_reads_files(name: str, stack: Program) -> None:
    done = stack.run(*READING[name], "--json")

    assert differences(done.document, name) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("estimate", ("estimate", "qwen3-235b-a22b-instruct-2507")),
        ("estimate", ("estimate", "gemma4-31b")),
        ("recommend", ("recommend",)),
    ],
)
def test_the_answer_for_several_macs(name: str, arguments: tuple[str, ...], stack: Program) -> None:
    assert differences(stack.run(*arguments, *TWO_MACS, "--json").document, name) == []


def test_the_status_of_a_stack_with_litellm(stack: Program) -> None:
    assert stack.run("config", "set", "openrouter-key", "sk-or-1").code == 0

    document = stack.run("status", "--json").document

    assert "litellm" in [each["kind"] for each in document["services"]]
    assert differences(document, "status") == []


def test_the_profile_of_a_linux_host_with_a_graphics_card(stack: Program) -> None:
    document = stack.run("profile", "--from", str(NVIDIA), "--json").document

    assert document["gpu_memory_limit_source"] == "nvidia-smi"
    assert differences(document, "profile") == []


def test_the_answers_of_a_stack_that_runs(stack: Program) -> None:
    found = {
        name: differences(stack.run(*arguments, "--json").document, name)
        for name, arguments in RUNNING.items()
    }

    assert found == {name: [] for name in RUNNING}


@pytest.mark.parametrize("arguments", FAILING, ids=" ".join)
def test_the_answer_of_a_command_that_fails(arguments: tuple[str, ...], stack: Program) -> None:
    done = stack.run(*arguments, "--json")

    assert done.code == FAILING[arguments], done.out
    assert differences(done.document, "error") == []


def test_status_without_a_stack_is_a_status_with_an_error(program: Program) -> None:
    done = program.run("status", "--json")

    assert done.code == 4
    assert differences(done.document, "status") == []
    assert done.document["services"] == []


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    config = b'{"model_type": "llama", "quantization": {"bits": 4, "group_size": 64}}'
    weights = (8).to_bytes(8, "little") + b"{}      "
    contents = {"config.json": config, "model.safetensors": weights, "tokenizer.json": b"{}"}
    write_repository(tmp_path / "hub", "example/Tiny-4bit", contents)
    with HubServer(tmp_path / "hub") as server:
        yield server


def test_the_answers_of_commands_that_ask_the_hub(
    stack: Program, hub: HubServer, tmp_path: Path
) -> None:
    online = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
    program = Program(stack.home, {**stack.variables, **online, "NO_PROXY": "*"})

    pulled = program.run("pull", "example/Tiny-4bit", "--json")
    available = program.run("models", "search", "tiny", *MAC, "--json")

    assert (pulled.code, available.code) == (0, 0), pulled.err + available.err
    assert differences(pulled.document, "pull") == []
    assert differences(available.document, "models-search") == []


@pytest.fixture
def mac(tmp_path: Path) -> Iterator[Program]:
    """`mlx-stack` on a Mac of stand-ins, with a stack."""
    fake = FakeMac.make(tmp_path / "mac", throttle_scale=0.1)
    user_home = tmp_path / "alice"
    home = Home(user_home / ".mlx-stack")
    install_fake_engines(home)
    define_stack(home, {"standard": {}})
    program = Program(home, {"HOME": str(user_home), "PATH": fake.environment()["PATH"]})
    yield program
    fake.turn_off()
    program.stop_all()


def test_the_answers_of_commands_that_need_a_mac(mac: Program) -> None:
    installed = mac.run("install", "--json")
    status = mac.run("install", "--status", "--json")
    uninstalled = mac.run("uninstall", "--json")

    assert installed.code == 0, installed.err
    assert differences(installed.document, "install") == []
    assert differences(status.document, "install-status") == []
    assert differences(uninstalled.document, "uninstall") == []


def test_the_answer_of_demo(tmp_path: Path) -> None:
    result = DemoResult(
        question="What is the capital of France?",
        answer="Paris.",
        model="standard",
        fallback=Fallback(killed="standard", answered_by="fast", restored_s=1.5),
        home=tmp_path,
        steps=(Step(name="engines", outcome="done", detail="", seconds=1.0),),
    )

    assert differences({"schema_version": 1, **result.to_document()}, "demo") == []


def _json_commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from _json_commands(command, (*path, name))
        elif command is not None and any(each.name == "json" for each in command.params):
            yield (*path, name)


def test_every_command_with_json_has_a_schema_and_every_schema_is_used() -> None:
    commands = {"-".join(path) for path in _json_commands(root)}
    mac_only = {"install", "install-status", "uninstall"}
    hub_only = {"pull", "models-search"}
    validated = {
        *READING,
        *RUNNING,
        *ELSEWHERE,
        *NODES,
        "demo",
        *mac_only,
        *hub_only,
        "error",
        "parts",
    }

    assert commands <= set(schema_names())
    assert set(schema_names()) == validated
