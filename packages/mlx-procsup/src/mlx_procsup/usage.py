"""What a service uses: processor time and memory of its process and all descendants."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Totals over a process and its descendants.

    Attributes:
        memory_bytes: Resident memory.
        age_s: How long ago the process itself was started.
    """

    cpu_s: float
    memory_bytes: int
    age_s: float


type Sessions = Mapping[int, Sequence[int]]
"""The processes of every session, by the session's leader."""


def read_sessions() -> Sessions:
    """The processes of every session at this moment; one look for any number of services.

    This takes one system call per process, while reading a parent takes several and a file: on a
    machine with hundreds of processes that would be most of the cost of a look.
    """
    sessions: dict[int, list[int]] = {}
    for pid in psutil.pids():
        if pid > 0:  # macOS lists its kernel as 0, which here would mean ourselves
            with suppress(ProcessLookupError, PermissionError):
                sessions.setdefault(os.getsid(pid), []).append(pid)
    return sessions


def measure_usage(pid: int, now: float, sessions: Sessions | None = None) -> ProcessUsage | None:
    """The usage of a process and its descendants in its session.

    A process that a watchdog starts leads its own session, so it isn't counted for the watchdog.
    None if the process is gone or belongs to another user.

    Args:
        sessions: The result of `read_sessions`, if several services are measured.
    """
    try:
        top = psutil.Process(pid)
        with top.oneshot():
            age_s = max(0.0, now - top.create_time())
            cpu_s, memory_bytes = _own(top)
    except psutil.Error:
        return None
    for child in _below(pid, read_sessions() if sessions is None else sessions):
        try:
            process = psutil.Process(child)
            with process.oneshot():
                child_cpu_s, child_bytes = _own(process)
        except psutil.Error:
            continue  # it ended, or isn't ours to look at
        cpu_s += child_cpu_s
        memory_bytes += child_bytes
    return ProcessUsage(cpu_s, memory_bytes, age_s)


def descendants(
    pid: int, *, beyond: Callable[[int], bool] = lambda _: False, among: Iterable[int] | None = None
) -> list[int]:
    """The processes below another, without those for which `beyond` is true and their descendants.

    Args:
        pid: The process at the top, which is not included.
        beyond: Whether a process belongs to another service.
        among: The processes to look at; by default all of them.
    """
    tree: dict[int, list[int]] = {}
    for each in psutil.pids() if among is None else among:
        with suppress(psutil.Error):
            tree.setdefault(psutil.Process(each).ppid(), []).append(each)
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = [child for child in tree.get(waiting.pop(), ()) if not beyond(child)]
        found += children
        waiting += children
    return found


def _below(pid: int, sessions: Sessions) -> list[int]:
    try:
        session = os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return []
    members = [member for member in sessions.get(session, ()) if member != pid]
    return members if session == pid else descendants(pid, among=members)


def listens_on(pid: int, port: int) -> bool | None:
    """Whether a process or its descendant listens on a TCP port; None if that is unknown."""
    try:
        top = psutil.Process(pid)
        tree = [top, *top.children(recursive=True)]
    except psutil.Error:
        return None
    unknown = False
    for process in tree:
        try:
            if _is_listening(process, port):
                return True
        except psutil.Error:
            unknown = True
    return None if unknown else False


def port_listener(port: int) -> int | None:
    """The process that listens on a TCP port; None if it can't be seen.

    The sockets of other users' processes are visible only to root.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_listening(process, port):
                return process.pid
    return None


def describe_process(pid: int) -> str:
    """A description such as "PID 4711 (python3)"."""
    try:
        return f"PID {pid} ({psutil.Process(pid).name()})"
    except psutil.Error:
        return f"PID {pid}"


def _is_listening(process: psutil.Process, port: int) -> bool:
    connections = process.net_connections(kind="tcp")
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)


def _own(process: psutil.Process) -> tuple[float, int]:
    times = process.cpu_times()
    return times.user + times.system, process.memory_info().rss
