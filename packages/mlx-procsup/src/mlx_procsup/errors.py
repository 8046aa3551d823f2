"""What can go wrong while supervising: one family of exceptions with fields."""

from pathlib import Path
from typing import TypedDict, Unpack


class SupervisionError(Exception):
    """The base of everything that this library raises on purpose."""

    def __init__(self, message: str, *, service: str | None = None) -> None:
        super().__init__(message)
        self.service = service


class StateFileError(SupervisionError):
    """A PID file, a run file or a log's archive has unexpected content."""

    def __init__(self, path: Path, problem: str, *, service: str | None = None) -> None:
        super().__init__(f"{path}: {problem}", service=service)
        self.path = path
        self.problem = problem


class CommandNotFoundError(SupervisionError):
    """The program of a command doesn't exist or can't be executed."""

    def __init__(self, service: str, program: str) -> None:
        super().__init__(f"{service}: no program to execute at {program}", service=service)
        self.program = program


class StartFailedError(SupervisionError):
    """A process was not started, or was killed because its start couldn't be recorded."""


class AlreadyRunningError(SupervisionError):
    """A service of this name is already running."""

    def __init__(self, service: str, pid: int) -> None:
        super().__init__(f"{service} already runs as PID {pid}", service=service)
        self.pid = pid


class _Waited(TypedDict):
    service: str
    pid: int
    seconds: float
    log_tail: tuple[str, ...]


class NotReadyError(SupervisionError):
    """A started service did not become ready; `log_tail` has its last log lines.

    Attributes:
        log_tail: The last lines that this run wrote to its log, plain, with secrets masked.
    """

    def __init__(self, problem: str, **waited: Unpack[_Waited]) -> None:
        super().__init__(f"{waited['service']} {problem}", service=waited["service"])
        self.pid: int = waited["pid"]
        self.seconds: float = waited["seconds"]
        self.log_tail: tuple[str, ...] = waited["log_tail"]


class ExitedEarlyError(NotReadyError):
    """The process ended before it was ready.

    Attributes:
        exit_code: Its exit status, negative for a signal; None if another process is its parent.
    """

    def __init__(self, *, exit_code: int | None, **waited: Unpack[_Waited]) -> None:
        after = f"after {waited['seconds']:.1f} s, before it was ready"
        super().__init__(f"{describe_exit(exit_code)} {after}", **waited)
        self.exit_code = exit_code


class ReadinessTimeoutError(NotReadyError):
    """The process is alive but did not answer in time.

    Attributes:
        last_answer: The result of the last poll, such as "HTTP 503" or "connection refused".
    """

    def __init__(self, *, last_answer: str, **waited: Unpack[_Waited]) -> None:
        problem = f"was not ready after {waited['seconds']:.0f} s ({last_answer})"
        super().__init__(problem, **waited)
        self.last_answer = last_answer


class WaitCancelledError(SupervisionError):
    """The caller gave up waiting for a service; what was started is still running."""


class PortTakenError(SupervisionError):
    """Another process listens on the service's port.

    Attributes:
        owner: A short description of that process, such as "PID 4711 (python3)"; None if unknown.
    """

    def __init__(self, service: str, port: int, owner: str | None) -> None:
        by = owner or "another process"
        super().__init__(f"{service} can't start: port {port} is taken by {by}", service=service)
        self.port = port
        self.owner = owner


class StopFailedError(SupervisionError):
    """Processes survived SIGKILL; their PID file is kept."""

    def __init__(self, service: str, pids: tuple[int, ...]) -> None:
        listed = ", ".join(str(pid) for pid in pids)
        super().__init__(f"{service}: SIGKILL did not end PID {listed}", service=service)
        self.pids = pids


def describe_exit(exit_code: int | None) -> str:
    """A description of an exit status as `subprocess` counts it: negative means a signal."""
    if exit_code is None:
        return "ended"
    if exit_code < 0:
        return f"was killed by signal {-exit_code}"
    return f"exited with status {exit_code}"
