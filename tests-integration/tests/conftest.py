"""A state folder and the installed program for every test, and nothing left running after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_procsup import stop_service
from mlx_stack.home import Home
from stack_testkit.home import install_fake_engines
from stack_testkit.program import Program


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """`mlx-stack` with an empty home; whatever it started is stopped when the test is over."""
    program = Program(Home(tmp_path / "home"), {"NO_COLOR": "1", "COLUMNS": "100"})
    yield program
    dirs = program.home.state_dirs
    for path in sorted(program.home.pids.glob("*.pid"), reverse=True):  # the watchdog first
        stop_service(path.stem, dirs, grace_s=0.2)


@pytest.fixture
def served(program: Program) -> Program:
    """`mlx-stack` with the fake engine and the fake LiteLLM installed."""
    install_fake_engines(program.home)
    return program
