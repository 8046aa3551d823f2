"""Damaged state files: the right exit code and a message that names the file, never a traceback."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlx_stack import exit_codes
from mlx_stack.cli.root import run
from mlx_stack.home import HOME_VARIABLE
from stack_testkit.home import define_stack
from stack_testkit.program import Finished, Program

type Run = Callable[..., Finished]

OK, FAILED, USAGE = exit_codes.DONE, exit_codes.FAILED, exit_codes.USAGE
UNHEALTHY, MISSING = exit_codes.UNHEALTHY, exit_codes.MISSING
FOLDER = object()
"""Stands for a folder in the place of the file."""
LOOP = object()
"""Stands for a link to itself."""
DEVICE = object()
"""Stands for a link to a device that never ends."""
HUGE = object()
"""Stands for a file of 1 GB, none of which is on the disk."""

NO_DOCUMENT = {
    "binary": b"\xff\xfe\x00\x81\x00",
    "cut off": b'{"schema_version": 1, "tiers": [',
    "a list": b"[1, 2]\n",
    "a number": b"42\n",
    "nested without end": b"[" * 100_000,
    "a number without end": b'{"schema_version": 1' + b"0" * 5000 + b"}",
    "an unknown key": b'{"schema_version": 1, "nonsense": true}',
    "a folder": FOLDER,
    "a device": DEVICE,
    "huge": HUGE,
}
"""What no reader of a document with keys can take."""

DAMAGE: dict[str, tuple[dict[str, object], dict[tuple[str, ...], int]]] = {
    "profile.json": (
        {**NO_DOCUMENT, "empty": b"", "newer": b'{"schema_version": 99}'},
        {("status",): USAGE, ("recommend",): USAGE, ("estimate", "qwen3-8b"): USAGE},
    ),
    "config.yaml": (
        {
            **NO_DOCUMENT,
            "a wrong value": b"litellm-port: many\n",
            "a key that is there twice": b"litellm-port: 1\nlitellm-port: 2\n",
            "a key misspelt": b"litelm-port: 1\n",
        },
        {("status",): USAGE, ("config", "list"): USAGE, ("env",): USAGE, ("up",): USAGE},
    ),
    "credentials.json": (
        {
            **NO_DOCUMENT,
            "empty": b"",
            "newer": b'{"schema_version": 99, "gateway_key": "sk-1"}',
            "half a character": b'{"schema_version": 1, "gateway_key": "\\ud800"}',
        },
        {("env",): USAGE, ("ask", "hi"): USAGE, ("up",): USAGE},
    ),
    "stacks/default.yaml": (
        {
            **NO_DOCUMENT,
            "empty": b"",
            "newer": b"schema_version: 99\n",
            "tiers that are none": b"schema_version: 1\ntiers: [7]\n",
            "no tiers": b"schema_version: 1\ntiers: []\n",
            "an anchor in itself": b"schema_version: 1\ntiers: &a [*a]\n",
            "a tab": b"schema_version: 1\n\ttiers: []\n",
        },
        {("status",): USAGE, ("up",): USAGE, ("ask", "hi"): USAGE},
    ),
    "run/standard.json": (NO_DOCUMENT, {("status",): UNHEALTHY, ("logs",): OK}),
    "pids/standard.pid": (
        {"empty": b"", "binary": b"\xff\x00", "a word": b"many\n", "zero": b"0\n"},
        {("status",): UNHEALTHY, ("down", "--tier", "standard"): OK},
    ),
    "models/inventory.json": ({"binary": b"\xff", "empty": b""}, {("models",): OK}),
    "models/standard-model/.mlx-stack.json": (
        {what: content for what, content in NO_DOCUMENT.items() if content is not FOLDER},
        {("models",): OK, ("status",): UNHEALTHY},
    ),
    "models/standard-model/config.json": (
        {"binary": b"\xff", "a list": b"[1]", "nested without end": b"[" * 100_000},
        {("models",): OK, ("status",): UNHEALTHY},
    ),
    "engines/vllm-mlx/0.0.0-fake0000/mlx-stack.json": (
        {"binary": b"\xff", "a list": b"[1]", "empty": b""},
        {("up",): MISSING, ("engines", "list"): OK, ("status",): UNHEALTHY},
    ),
    "benchmarks/result.json": (
        NO_DOCUMENT,
        {("recommend",): USAGE, ("estimate", "qwen3-8b"): USAGE},
    ),
    "setup.json": (
        NO_DOCUMENT,
        {("setup", "--no-pull", "--no-start"): USAGE, ("status",): UNHEALTHY},
    ),
    "catalog/mine-1b.yaml": (
        NO_DOCUMENT,
        {("models", "--catalog"): USAGE, ("recommend",): USAGE, ("up",): USAGE},
    ),
    "keys.json": (NO_DOCUMENT, {("keys", "list"): USAGE, ("keys", "add", "laptop"): USAGE}),
    "nodes.yaml": (NO_DOCUMENT, {("nodes", "list"): USAGE}),
    "litellm.yaml": ({"binary": b"\xff", "a list": b"[1]"}, {("status",): UNHEALTHY}),
    "lock": ({"a folder": FOLDER}, {("up",): USAGE, ("down",): USAGE, ("status",): UNHEALTHY}),
    "logs/standard.log": (
        {"binary": b"\xff\xfe\x00\n", "empty": b""},
        {("logs", "standard"): OK, ("status",): UNHEALTHY},
    ),
    "logs/fast.log": ({"a loop": LOOP}, {("logs", "fast"): FAILED, ("status",): UNHEALTHY}),
    "logs/standard.log.1.gz": (
        {"no archive": b"\xff\xfe\x00\n", "cut off": b"\x1f\x8b\x08\x00"},
        {("logs", "standard", "--all"): FAILED, ("logs",): OK},
    ),
    "pids/._standard.pid": (
        {"of another system": b"\x00\x05\x16\x07"},
        {("down",): OK, ("status",): UNHEALTHY},
    ),
    "logs/watchdog.log.1.gz": (
        {"no archive": b"\xff\xfe\x00\n", "cut off": b"\x1f\x8b\x08\x00"},
        {("status",): UNHEALTHY},
    ),
}
CASES = [
    pytest.param(place, content, commands, id=f"{place}-{what}")
    for place, (damages, commands) in DAMAGE.items()
    for what, content in damages.items()
]


@pytest.fixture
def run_here(
    served: Program, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Run command lines in this process; an exception that escapes fails the test."""
    monkeypatch.setenv(HOME_VARIABLE, str(served.home.root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    define_stack(served.home, {"standard": {}})
    handler = signal.getsignal(signal.SIGTERM)

    def finish(*arguments: str) -> Finished:
        capfd.readouterr()
        code = run(arguments)
        captured = capfd.readouterr()
        return Finished(code, captured.out, captured.err)

    yield finish
    signal.signal(signal.SIGTERM, handler)


def _put(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if content is FOLDER:
        path.mkdir()
    elif content is LOOP:
        path.symlink_to(path.name)
    elif content is DEVICE:
        path.symlink_to("/dev/zero")
    elif content is HUGE:
        with path.open("wb") as file:
            file.truncate(2**30)
    else:
        assert isinstance(content, bytes)
        path.write_bytes(content)


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 50


@pytest.mark.parametrize(("place", "content", "commands"), CASES)
def test_a_damaged_file_is_an_answer_and_no_traceback(
    place: str,
    content: object,
    commands: dict[tuple[str, ...], int],
    served: Program,
    run_here: Run,
) -> None:
    served.home.run.mkdir(exist_ok=True)
    _put(served.home.root / place, content)

    for command, code in commands.items():
        done = run_here(*command, "--json")
        assert done.code == code, f"{command}: {done.out}{done.err}"
        assert done.out.count("\n") == 1, f"{command}: more than one line: {done.out}"
        document = json.loads(done.out)
        assert document["schema_version"] == 1
        assert "Traceback" not in done.err
        if code == exit_codes.USAGE:
            assert Path(place).name in document["error"]["message"], f"{command} names no file"
    _take_away(served.home.root / place)


def _take_away(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@pytest.mark.story
@pytest.mark.parametrize("place", ["stacks/default.yaml", "config.yaml"])
@pytest.mark.parametrize("content", [b"tiers: [", b"\xff\x00", FOLDER, LOOP])
def test_down_stops_what_runs_though_the_stack_or_the_configuration_is_damaged(
    served: Program, run_here: Run, place: str, content: object
) -> None:
    served.run("up")
    _put(served.home.root / place, content)

    done = run_here("down", "--json")

    assert done.code == OK
    outcomes = {row["name"]: row["outcome"] for row in done.document["services"]}
    assert outcomes == {"gateway": "stopped", "standard": "stopped"}


@pytest.mark.story
@pytest.mark.parametrize("place", ["config.yaml", "stacks/default.yaml", "profile.json"])
def test_the_installed_program_names_the_file_too(place: str, served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    _put(served.home.root / place, b"\xff\x00")

    done = served.run("status")

    assert done.code == exit_codes.USAGE
    assert place in done.err
    assert "Traceback" not in done.err


def test_mlx_stack_alone_survives_every_damaged_file(served: Program, run_here: Run) -> None:
    for place in DAMAGE:
        path = served.home.root / place
        before = path.read_bytes() if path.is_file() else None
        _put(path, b"\xff\x00")
        assert run_here().code in (OK, USAGE), place
        if before is None:
            path.unlink()
        else:
            path.write_bytes(before)


@pytest.mark.parametrize(
    "line",
    [
        ("config", "set", "openrouter-key", "-"),
        ("ask", "-m", "any", "-"),
        ("ask", "-m", "any", "hello", "--file", "/dev/zero"),
        ("usage", "--prices", "/dev/zero"),
    ],
    ids=" ".join,
)
def test_input_without_end_is_refused_at_once(line: tuple[str, ...], served: Program) -> None:
    done = served.run(*line, stdin="x" * (2**26 + 1) if "-" in line else "")

    assert done.code in (FAILED, USAGE)
    assert "Traceback" not in done.err
    assert "standard input" in done.err.lower() or "a device, not a file" in done.err


def test_a_question_about_a_file_that_is_no_text_names_it(served: Program, tmp_path: Path) -> None:
    picture = tmp_path / "picture.raw"
    picture.write_bytes(b"\xff\xfe\x00")

    done = served.run("ask", "-m", "any", "what is it?", "--file", str(picture))

    assert (done.code, f"{picture} is not UTF-8 text" in done.err) == (USAGE, True)
