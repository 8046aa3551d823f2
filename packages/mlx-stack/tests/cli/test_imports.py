"""What a command may import: start-up time is lost module by module."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from mlx_stack.cli.frame.commands import COMMANDS

SCRIPT = """
import json, os, sys
lines = json.loads(sys.argv[1])
if lines != [["--version"]]:
    from mlx_stack.cli import root
for line in lines:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.argv[1:] = line
        from mlx_stack.__main__ import main
        try:
            main()
        finally:
            names = {name.partition(".")[0] for name in sys.modules}
            found = sorted(names - set(sys.stdlib_module_names) - {"__main__", "mlx_stack"})
            with os.fdopen(writer, "w") as out:
                json.dump(found, out)
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        print(answer.read())
    os.waitpid(child, 0)
"""
"""Runs each command line in a process of its own and prints the foreign packages that it loaded."""

ALWAYS = frozenset({"click", "mlx_bench", "mlx_hwprobe", "mlx_launchd", "mlx_procsup"})
"""Our own packages import a module when something of it is used: they cost nothing."""
CATALOG = frozenset({"mlx_catalog", "msgspec", "yaml"})
PLANNING = CATALOG | {"mlx_recommend"}
HELP: dict[str, frozenset[str]] = {
    "bench": frozenset({"msgspec"}),
    "engines": CATALOG,
    "estimate": PLANNING,
    "init": PLANNING,
    "keys": frozenset({"mlx_gateway", "msgspec"}),
    "models": PLANNING,
    "pull": CATALOG,
    "recommend": PLANNING,
    "setup": PLANNING,
    "usage": frozenset({"mlx_gateway", "msgspec"}),
}
"""More packages that a command's `--help` may load, for the choices that it names."""

NETWORK = frozenset({"httpx", "httpx2", "huggingface_hub", "requests"})
RUNS: dict[tuple[str, ...], frozenset[str]] = {
    ("completion", "bash"): frozenset(),
    ("status",): frozenset(),
    (): frozenset(),
    ("env",): CATALOG | {"mlx_gateway", "mlx_procsup", "psutil", "rich"},
    ("config", "list"): frozenset({"mlx_catalog", "msgspec", "yaml", "rich"}),
}
"""What commands may load when they run on an empty state folder; `rich` brings packages along."""
WITH_RICH = frozenset({"markdown_it", "pygments", "mdurl"})
COMPILED = ("_", "cython_runtime", "typing_extensions")
"""What compiled modules and msgspec leave behind; it costs nothing."""


def _loaded(lines: list[tuple[str, ...]], home: Path) -> Iterator[frozenset[str]]:
    environment: Mapping[str, str] = {**os.environ, "MLX_STACK_HOME": str(home), "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(lines)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    for line in done.stdout.splitlines():
        yield frozenset(name for name in json.loads(line) if not name.startswith(COMPILED))


def test_version_loads_nothing_foreign(tmp_path: Path) -> None:
    assert list(_loaded([("--version",)], tmp_path)) == [frozenset()]


def test_the_help_of_a_command_loads_what_it_shows_and_no_network(tmp_path: Path) -> None:
    names = [entry.name for entry in COMMANDS]
    lines = [("--help",), *((name, "--help") for name in names)]

    loaded = dict(zip(["", *names], _loaded(lines, tmp_path), strict=True))

    assert loaded[""] == {"click"}
    allowed = {name: ALWAYS | HELP.get(name, frozenset()) for name in loaded}
    assert {name: found - allowed[name] for name, found in loaded.items()} == {
        name: frozenset() for name in loaded
    }
    assert not frozenset().union(*loaded.values()) & (NETWORK | {"psutil"})


@pytest.mark.parametrize("line", RUNS, ids=lambda line: " ".join(line) or "mlx-stack alone")
def test_a_command_loads_what_it_needs_and_no_network(
    line: tuple[str, ...], tmp_path: Path
) -> None:
    (loaded,) = _loaded([line], tmp_path / "home")

    allowed = RUNS[line] | ALWAYS | (WITH_RICH if "rich" in RUNS[line] else frozenset())
    assert loaded - allowed == frozenset()
    assert not loaded & NETWORK


def test_the_status_of_a_stack_loads_no_network(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "stacks").mkdir(mode=0o700, parents=True)
    tier = {"name": "standard", "model": "m", "quant": "int4", "source": "a/b", "port": 8000}
    stack = {"schema_version": 1, "tiers": [{**tier, "vllm_flags": {}}]}
    (home / "stacks" / "default.yaml").write_text(json.dumps(stack))

    for loaded in _loaded([("status",), ()], home):
        assert "mlx_catalog" in loaded  # the stack was read
        assert not loaded & NETWORK


def test_completion_loads_nothing_but_click(tmp_path: Path) -> None:
    script = SCRIPT.replace("sys.argv[1:] = line", "sys.argv[1:] = []")
    variables = {"_MLX_STACK_COMPLETE": "bash_complete", "COMP_WORDS": "mlx-stack st"}
    done = subprocess.run(
        [sys.executable, "-c", script, "[[]]"],
        env={**os.environ, **variables, "COMP_CWORD": "1", "MLX_STACK_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert json.loads(done.stdout) == ["click"]


def test_the_gateway_starts_without_what_only_litellm_needs() -> None:
    code = "import sys, mlx_stack.gateway_process as _; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert not {"mlx_catalog", "mlx_recommend", "mlx_stack.services.assembly"} & set(
        loaded.stdout.split()
    )
