"""Running uv: quietly, without the settings of others, stopped when we are, failures understood."""

import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from mlx_stack.engines.errors import EngineInstallError, Reason, UnsupportedPlatformError

type LineObserver = Callable[[str], None]

_STEERING: Final = frozenset(
    {
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "UV_MANAGED_PYTHON",
        "UV_NO_MANAGED_PYTHON",
        "UV_PYTHON_PREFERENCE",
        "UV_CONSTRAINT",
        "UV_OVERRIDE",
        "UV_EXCLUDE",
        "UV_BUILD_CONSTRAINT",
        "UV_RESOLUTION",
        "UV_PRERELEASE",
        "UV_EXCLUDE_NEWER",
        "UV_NO_BINARY",
        "UV_NO_BINARY_PACKAGE",
        "UV_NO_BUILD",
        "UV_NO_VERIFY_HASHES",
        "UV_TORCH_BACKEND",
        "UV_VENV_SEED",
        "UV_VENV_CLEAR",
        "UV_VENV_RELOCATABLE",
        "UV_COMPILE_BYTECODE",
        "UV_PROJECT",
        "UV_PROJECT_ENVIRONMENT",
        "UV_WORKING_DIR",
        "UV_WORKING_DIRECTORY",
        "UV_WORKSPACE_DIR",
        "VIRTUAL_ENV",
        "CONDA_PREFIX",
        "PYTHONHOME",
        "PYTHONPATH",
        "RUST_LOG",
    }
)
"""Variables that would change what is installed, or where. Those that say where packages come from
(UV_DEFAULT_INDEX and the like), the cache, proxies and certificates are the user's and stay."""


class _Failure(NamedTuple):
    """A kind of trouble: how uv words it, what it means, and what to do about it."""

    reason: Reason
    pattern: str
    cause: str
    hint: str | None


_FAILURES: Final = (
    _Failure(
        "disk-full",
        r"No space left on device|os error 28|Disk quota exceeded",
        "the disk is full",
        "An engine takes about 1 GB, and uv's cache as much again: free some space and try again.",
    ),
    _Failure(
        "hash-mismatch",
        r"Hash mismatch",
        "a package is not the one that mlx-stack was released with",
        "A mirror or a proxy altered it, or a download was damaged: `uv cache clean` and try "
        "again, or use another index.",
    ),
    _Failure(
        "no-wheel",
        r"has no wheels with a matching|has no usable wheels",
        "a package has no build for this machine",
        "mlx-stack needs macOS 14 or later on Apple Silicon, or Linux with glibc 2.35 or later.",
    ),
    _Failure(
        "registry-unreachable",
        r"Failed to fetch|error sending request|client error \(Connect\)|dns error"
        r"|network was disabled|Request failed after|timed out",
        "the package registry is out of reach",
        "Check the network, then run the command again: what was downloaded is kept. "
        "UV_DEFAULT_INDEX names a mirror.",
    ),
)
_KILLED: Final = _Failure(
    "killed",
    "",
    "uv was stopped from outside",
    "Run the command again; if it happens again, look for a shortage of memory.",
)
_SELF_EXPLAINING: Final = frozenset({"disk-full", "registry-unreachable", "killed"})
_UNKNOWN: Final = _Failure("failed", "", "uv could not do it", None)

_TAIL_LINES: Final = 40
_STOP_AFTER_S: Final = 5.0


class Interruption:
    """One thread's way to stop the installations that run in others.

    Attributes:
        wanted: Set once they are to stop.
    """

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._changed = threading.Condition()
        self._running: set[subprocess.Popen[str]] = set()
        self._at_work = 0

    def stop(self) -> None:
        """Stop every uv that runs, and every one that is started later."""
        with self._changed:
            self.wanted.set()
            for process in self._running:
                process.terminate()

    def stop_and_wait(self) -> None:
        """Stop them, and return once no thread is at work: then nothing touches the disk."""
        self.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._at_work)

    @contextmanager
    def working(self, what: str) -> Generator[None]:
        """Let `stop_and_wait` wait for this thread; nothing begins once they are to stop.

        Raises:
            EngineInstallError: They are to stop; `what` was not begun.
        """
        with self._changed:
            if self.wanted.is_set():
                raise not_installed(what, "interrupted before it began")
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_work -= 1
                self._changed.notify_all()

    @contextmanager
    def covering(self, process: subprocess.Popen[str]) -> Generator[None]:
        """Let `stop` stop `process` meanwhile."""
        with self._changed:
            self._running.add(process)
            if self.wanted.is_set():
                process.terminate()
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(process)


def not_installed(what: str, why: str) -> EngineInstallError:
    """The error where uv was never started, since the installation was stopped."""
    message = f"{what} was not installed: {why}."
    return EngineInstallError(message, reason="killed", output="", hint=None)


def run_uv(
    arguments: tuple[str, ...],
    *,
    uv: Path,
    cwd: Path,
    environment: Mapping[str, str],
    what: str,
    on_line: LineObserver,
    interruption: Interruption,
) -> None:
    """Run uv to its end.

    Args:
        arguments: uv's command and options.
        uv: The program.
        cwd: Where it runs; uv looks for project settings from there upwards.
        environment: The caller's variables; those that would steer the result are left out.
        what: What is being installed, for messages.
        on_line: Called with each line that uv writes.
        interruption: Another thread's way to stop it.

    Raises:
        EngineInstallError: uv failed, or was stopped; nobody cleaned up what it had done so far.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        [str(uv), *arguments, "--color=never"],
        cwd=cwd,
        env=hermetic_environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            with interruption.covering(process):
                assert process.stderr is not None
                for line in process.stderr:
                    tail.append(line.rstrip())
                    on_line(line.strip())
                returncode = process.wait()
        finally:
            _stop(process)
    if returncode != 0:
        raise explain_failure(what, returncode, "\n".join(tail))


def hermetic_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv may see; pip's settings need no care, since uv never reads them."""
    kept = {name: value for name, value in environment.items() if name not in _STEERING}
    # an interpreter is given by its path: nothing may be looked for, or downloaded, instead
    return {**kept, "UV_PYTHON_DOWNLOADS": "never"}


def explain_failure(what: str, returncode: int, output: str) -> EngineInstallError:
    """The error that tells a user why uv failed.

    Args:
        what: What was being installed.
        returncode: As of `subprocess`: negative for a signal.
        output: The end of what uv wrote.
    """
    failure = _failure(returncode, output)
    message = f"{what} could not be installed: {failure.cause}"
    if failure.reason not in _SELF_EXPLAINING:
        message += f" ({_first_error(output)})"
    kind = UnsupportedPlatformError if failure.reason == "no-wheel" else EngineInstallError
    return kind(f"{message}.", reason=failure.reason, output=output, hint=failure.hint)


def _failure(returncode: int, output: str) -> _Failure:
    if returncode < 0:
        return _KILLED
    found = (failure for failure in _FAILURES if re.search(failure.pattern, output))
    return next(found, _UNKNOWN)


def _first_error(output: str) -> str:
    """The line in which uv says what went wrong."""
    for line in output.splitlines():
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return output.splitlines()[-1] if output else "it wrote nothing"


def _stop(process: subprocess.Popen[str]) -> None:
    """End uv where it still runs: we are on our way out."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
