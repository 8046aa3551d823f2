"""What a service uses: processor time and memory of its process and everything below it."""

import os
from collections.abc import Callable, Mapping, Sequence
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


type ProcessTree = Mapping[int, Sequence[int]]
"""Every process's children."""


def read_process_tree() -> ProcessTree:
    """The children of every process at this moment; one look for however many services."""
    tree: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        try:
            tree.setdefault(process.ppid(), []).append(process.pid)
        except psutil.Error:
            continue
    return tree


def measure_usage(pid: int, now: float, tree: ProcessTree | None = None) -> ProcessUsage | None:
    """The usage of a process and of what is below it in its session.

    None where the process is gone or belongs to another user.

    Args:
        tree: What `read_process_tree` gave, if several services are measured.
    """
    try:
        top = psutil.Process(pid)
        with top.oneshot():
            age_s = max(0.0, now - top.create_time())
            cpu_s, memory_bytes = _own(top)
    except psutil.Error:
        return None
    for child in descendants(pid, tree, beyond=_leads_session):
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
    pid: int, tree: ProcessTree | None = None, *, beyond: Callable[[int], bool]
) -> list[int]:
    """The processes below another, without those that `beyond` says yes to and what is below them.

    Args:
        pid: The process at the top, which is not among them.
        tree: What `read_process_tree` gave; read now if left out.
        beyond: Whether a process belongs to another service.
    """
    tree = read_process_tree() if tree is None else tree
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = [child for child in tree.get(waiting.pop(), ()) if not beyond(child)]
        found += children
        waiting += children
    return found


def _leads_session(pid: int) -> bool:
    """Whether a process is on its own: what a watchdog starts is not a part of the watchdog."""
    try:
        return os.getsid(pid) == pid
    except (ProcessLookupError, PermissionError):
        return True


def listens_on(pid: int, port: int) -> bool | None:
    """Whether a process or a descendant of it listens on a TCP port; None where that is unknown."""
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
    """The process that listens on a TCP port; None where that is not to be seen.

    Processes of other users show their sockets to root only.
    """
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if _is_listening(process, port):
                return process.pid
    return None


def describe_process(pid: int) -> str:
    """Such as "PID 4711 (python3)"."""
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
