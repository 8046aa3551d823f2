"""The program run inside the test process: what it wrote, and what it exited with."""

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.cli.root import run
from mlx_stack.home import Home


@dataclass(frozen=True, slots=True)
class Said:
    """What a command line left behind.

    Attributes:
        code: The exit code.
        out: Its standard output.
        err: Its standard error.
    """

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        assert self.out.endswith("\n")
        assert self.out.count("\n") == 1, f"more than one line: {self.out}"
        return json.loads(self.out)


type Say = Callable[..., Said]


@pytest.fixture
def home(clean_mlx_stack_home: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A state folder that doesn't exist yet, which the commands of the test use."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    return Home(clean_mlx_stack_home)


@pytest.fixture
def say(home: Home, capsys: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """Run a command line in this process; an exception that escapes fails the test."""
    assert home
    handler = signal.getsignal(signal.SIGTERM)

    def run_here(*arguments: str) -> Said:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Said(code, captured.out, captured.err)

    yield run_here
    signal.signal(signal.SIGTERM, handler)
