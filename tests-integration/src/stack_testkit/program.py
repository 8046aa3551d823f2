"""The installed `mlx-stack`, driven as a user would: a process with arguments and an exit code."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from mlx_procsup import stop_service
from mlx_stack.home import HOME_VARIABLE, Home

TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left behind.

    Attributes:
        code: Its exit code.
        out: Its standard output.
        err: Its standard error.
    """

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Standard output as the one JSON document that it must be."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Program:
    """`mlx-stack` with its own state folder.

    Attributes:
        home: The state folder.
        variables: Environment variables on top of this process's.
    """

    home: Home
    variables: Mapping[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """The environment that commands run in."""
        return {**os.environ, **self.variables, HOME_VARIABLE: str(self.home.root)}

    def with_variables(self, **variables: str) -> Self:
        """The same, with more environment variables, or with other values of them."""
        return replace(self, variables={**self.variables, **variables})

    def command(self, *arguments: str) -> tuple[str, ...]:
        """The installed program's command line."""
        return (str(Path(sys.executable).with_name("mlx-stack")), *arguments)

    def run(self, *arguments: str, stdin: str = "", timeout_s: float = TIMEOUT_S) -> Finished:
        """Run a command to its end."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command and leave it running."""
        return subprocess.Popen(
            self.command(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stop_all(self) -> None:
        """Stop whatever it started and left running, the watchdog first."""
        for path in sorted(self.home.pids.glob("*.pid"), reverse=True):
            stop_service(path.stem, self.home.state_dirs, grace_s=0.2)
