"""The two interfaces to the machine: running a program, and time."""

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlx_launchd.errors import LaunchdError, ProgramMissingError


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a program.

    Attributes:
        returncode: Its exit code; negative if a signal ended it.
        stdout: Its standard output, with undecodable bytes replaced.
        stderr: Its standard error, with undecodable bytes replaced.
    """

    returncode: int
    stdout: str = ""
    stderr: str = ""


class CommandRunner(Protocol):
    """Runs a command to its end; raises ProgramMissingError if the program is missing."""

    def __call__(self, command: Sequence[str], /) -> Completed:
        """The command's result."""
        ...


class InputRunner(CommandRunner, Protocol):
    """A CommandRunner whose programs can be given standard input."""

    def __call__(self, command: Sequence[str], /, stdin: str | None = None) -> Completed:
        """The command's result, with `stdin` as its standard input."""
        ...


class Clock(Protocol):
    """Time that only moves forward, and a way to wait."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Return once that many seconds have passed."""
        ...


@dataclass(frozen=True, slots=True)
class SystemClock:
    """The machine's own clock."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()

    def sleep(self, seconds: float, /) -> None:
        """Return once that many seconds have passed."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class SubprocessRun:
    """Runs programs found on PATH, by default without standard input.

    Attributes:
        timeout_s: After this time a program is killed and LaunchdError is raised.
        environment: The environment of the programs; by default this process's own.
    """

    timeout_s: float = 60.0
    environment: Mapping[str, str] | None = None

    def __call__(self, command: Sequence[str], /, stdin: str | None = None) -> Completed:
        """The command's result."""
        try:
            done = subprocess.run(
                tuple(command),
                stdin=subprocess.DEVNULL if stdin is None else None,
                input=stdin,
                capture_output=True,
                check=False,
                timeout=self.timeout_s,
                env=None if self.environment is None else dict(self.environment),
                encoding="utf-8",
                errors="replace",
            )
        except FileNotFoundError as error:
            raise ProgramMissingError(command[0]) from error
        except subprocess.TimeoutExpired as error:
            raise LaunchdError(
                f"{' '.join(command)} did not answer within {self.timeout_s:g} s"
            ) from error
        return Completed(done.returncode, done.stdout, done.stderr)
