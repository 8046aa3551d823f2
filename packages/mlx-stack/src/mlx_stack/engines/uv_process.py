"""Running uv: without foreign settings, stopped when we are, its failures explained."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from uv import find_uv_bin

from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines.errors import (
    EngineInstallError,
    InstallFailure,
    UnsupportedPlatformError,
)

_SOURCES: Final = frozenset(
    {
        *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
        *("UV_NO_INDEX", "UV_INDEX_STRATEGY", "UV_KEYRING_PROVIDER", "NETRC"),
        *("UV_CACHE_DIR", "XDG_CACHE_HOME", "UV_NO_CACHE", "UV_LINK_MODE", "UV_OFFLINE"),
        *("UV_HTTP_TIMEOUT", "UV_REQUEST_TIMEOUT", "UV_HTTP_RETRIES", "UV_CONCURRENT_DOWNLOADS"),
        *("UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_INSECURE_HOST", "SSL_CLIENT_CERT"),
        *("ALL_PROXY", "all_proxy"),
    }
)
"""uv's variables that say where packages come from, and how they travel."""
_INDEX_CREDENTIALS: Final = re.compile(r"UV_INDEX_[A-Z0-9_]+_(USERNAME|PASSWORD)")


class _Cause(NamedTuple):
    """Why uv failed: how it words that, what it means, and what to do about it."""

    reason: InstallFailure
    pattern: str
    message: str
    hint: str | None


_CAUSES: Final = (
    _Cause(
        "disk-full",
        r"No space left on device|os error 28|Disk quota exceeded",
        "the disk is full",
        "An engine needs about 1 GB, and uv's cache as much again: free some space and try again.",
    ),
    _Cause(
        "hash-mismatch",
        r"Hash mismatch",
        "a package differs from the one that mlx-stack was released with",
        "A mirror or a proxy altered it, or a download was damaged: `uv cache clean` and try "
        "again, or use another index.",
    ),
    _Cause(
        "no-wheel",
        r"has no wheels with a matching|has no usable wheels",
        "a package has no build for this machine",
        "mlx-stack needs macOS 14 or later on Apple Silicon, or Linux with glibc 2.35 or later.",
    ),
    _Cause(
        "untrusted-certificate",
        r"invalid peer certificate|UnknownIssuer|self.signed certificate",
        "the certificate of the package registry isn't trusted, as with a proxy that reads TLS",
        "UV_SYSTEM_CERTS=1 trusts the certificates that this machine trusts; SSL_CERT_FILE names a "
        "file with the proxy's. Then run the command again.",
    ),
    _Cause(
        "registry-unreachable",
        r"Failed to fetch|error sending request|client error \(Connect\)|dns error"
        r"|network was disabled|Request failed after|timed out",
        "the package registry can't be reached",
        "Check the network, then run the command again: what was downloaded is kept. "
        "UV_DEFAULT_INDEX names a mirror.",
    ),
)
_KILLED: Final = _Cause(
    "killed",
    "",
    "uv was killed",
    "Run the command again; if it happens again, look for a shortage of memory.",
)
_UNKNOWN: Final = _Cause("failed", "", "uv failed", None)
_SELF_EXPLAINING: Final = frozenset({"disk-full", "registry-unreachable", "killed"})

_TAIL_LINES: Final = 40
_STOP_AFTER_S: Final = 5.0


class Interruption:
    """One thread's way to stop the installations that run in others."""

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
        """Make `stop_and_wait` wait for this thread.

        Raises:
            EngineInstallError: When they are to stop; `what` was not begun.
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
        """Make `stop` stop `process` meanwhile."""
        with self._changed:
            self._running.add(process)
            if self.wanted.is_set():
                process.terminate()
        try:
            yield
        finally:
            with self._changed:
                self._running.discard(process)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What environments are made with.

    Attributes:
        python: The interpreter that environments are based on.
        variables: The caller's environment; indexes, proxies and certificates are taken from it.
    """

    uv: Path
    python: Path
    variables: Mapping[str, str]
    interruption: Interruption = field(default_factory=Interruption)

    def run(
        self, arguments: tuple[str, ...], folder: Path, what: str, on_line: Callable[[str], None]
    ) -> None:
        """Run uv to its end.

        Args:
            what: What is being installed, for messages.

        Raises:
            EngineInstallError: When uv failed, or was stopped; what it did so far is still there.
        """
        tail: deque[str] = deque(maxlen=_TAIL_LINES)
        with subprocess.Popen(
            # a uv.toml may name another target folder
            [str(self.uv), *arguments, "--no-config", "--color=never"],
            cwd=folder,
            env=hermetic_environment(self.variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            try:
                with self.interruption.covering(process):
                    assert process.stderr is not None
                    for line in process.stderr:
                        tail.append(line.rstrip())
                        on_line(line.strip())
                    returncode = process.wait()
            finally:
                _stop(process)
        if returncode != 0:
            raise explain_failure(what, returncode, "\n".join(tail))


def own_toolchain(variables: Mapping[str, str] = os.environ) -> Toolchain:
    """The uv that mlx-stack depends on, and the Python that it runs on."""
    return Toolchain(Path(find_uv_bin()), Path(sys.executable), variables)


def hermetic_environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that uv may see: those of every child, and where packages come from."""
    own = {
        name: value
        for name, value in variables.items()
        if name in _SOURCES or _INDEX_CREDENTIALS.fullmatch(name)
    }
    # the interpreter is given by its path: uv mustn't look for another, or download one
    return {**inherited_environment(variables), **own, "UV_PYTHON_DOWNLOADS": "never"}


def not_installed(what: str, why: str) -> EngineInstallError:
    """The error if uv was never started, since the installation was stopped."""
    message = f"{what} was not installed: {why}."
    return EngineInstallError(message, reason="killed")


def explain_failure(what: str, returncode: int, output: str) -> EngineInstallError:
    """The error that explains why uv failed.

    Args:
        returncode: As of `subprocess`: negative for a signal.
    """
    found = (cause for cause in _CAUSES if re.search(cause.pattern, output))
    cause = _KILLED if returncode < 0 else next(found, _UNKNOWN)
    message = f"{what} could not be installed: {cause.message}"
    if cause.reason not in _SELF_EXPLAINING:
        message += f" ({_telling_line(output, cause.pattern)})"
    kind = UnsupportedPlatformError if cause.reason == "no-wheel" else EngineInstallError
    return kind(f"{message}.", reason=cause.reason, hint=cause.hint)


def _telling_line(output: str, pattern: str) -> str:
    """The line in which uv says what went wrong: the recognized cause, or its first error."""
    for line in output.splitlines():
        if pattern and line.lstrip().startswith("cause: ") and re.search(pattern, line):
            return line.strip().removeprefix("cause: ")
    for line in output.splitlines():
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return output.splitlines()[-1] if output else "it wrote nothing"


def _stop(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_AFTER_S)
        except subprocess.TimeoutExpired:
            process.kill()
