"""Stopping a service and everything that it started, and nothing else."""

import errno
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum

from mlx_procsup.errors import StateFileError, StopFailedError
from mlx_procsup.identity import ProcessIdentity, identify, is_alive, reap
from mlx_procsup.located import Located, group_members, locate
from mlx_procsup.spec import StateDirs
from mlx_procsup.statefiles import (
    RunRecord,
    WantedState,
    read_run,
    remove_pid,
    set_wanted,
    write_run,
)
from mlx_procsup.usage import descendants

GRACE_S = 10.0
_AFTER_KILL_S = 5.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StopOutcome(StrEnum):
    """How a stop went."""

    GRACEFUL = "graceful"
    FORCED = "forced"
    NOT_RUNNING = "not-running"
    STALE_REMOVED = "stale-removed"


@dataclass(frozen=True, slots=True)
class ShutdownResult:
    """What `stop_service` did.

    Attributes:
        name: the service.
        outcome: graceful (all obeyed SIGTERM), forced (SIGKILL was needed), not-running (there was
            nothing), or stale-removed (only files were left).
        pid: the process that was stopped, or None.
        seconds: how long it took.
    """

    name: str
    outcome: StopOutcome
    pid: int | None
    seconds: float


def stop_service(
    name: str,
    dirs: StateDirs,
    grace_s: float = GRACE_S,
    *,
    command: tuple[str, ...] = (),
    wanted: WantedState | None = WantedState.STOPPED,
) -> ShutdownResult:
    """Stop a service: SIGTERM to its group, `grace_s`, SIGKILL, verified; then forget its PID.

    What the service left behind after a crash goes too, and so do descendants that made sessions
    of their own, as far as they can still be found. A process that can't be proven to be the
    service is never signalled.

    Args:
        name: the service.
        dirs: where its state is kept.
        grace_s: how long the processes may take to obey SIGTERM.
        command: what it runs; recognizes the process when the run file is lost.
        wanted: noted before the first signal, so that a watchdog doesn't start it again;
            None leaves the note as it is, for a restart.

    Raises:
        StopFailedError: something outlived SIGKILL; the PID file is kept.
        OSError: the state files can't be written.
    """
    started = time.monotonic()
    found = locate(dirs, name, command)
    noted = wanted is None or _note(dirs, name, wanted, found)
    targets = _targets(name, dirs, found)
    forced = bool(targets) and _terminate(name, targets, _group(found), grace_s)
    if found.recorded:
        remove_pid(dirs, name)
    if noted:
        _forget_process(dirs, name)
    else:
        dirs.run_file(name).unlink(missing_ok=True)  # without any file it counts as stopped, too
    pid = found.process.pid if found.process is not None and found.proven else None
    if targets:
        outcome = StopOutcome.FORCED if forced else StopOutcome.GRACEFUL
    else:
        outcome = StopOutcome.STALE_REMOVED if found.recorded else StopOutcome.NOT_RUNNING
    return ShutdownResult(name, outcome, pid, time.monotonic() - started)


def _note(dirs: StateDirs, name: str, wanted: WantedState, found: Located) -> bool:
    """Note what is wanted of a service that left files; False where the disk is too full for it.

    That keeps nobody from stopping what may have filled it.
    """
    if not found.recorded and not dirs.run_file(name).exists():
        return True
    try:
        set_wanted(dirs, name, wanted)
    except OSError as error:
        if wanted is WantedState.STOPPED and error.errno in _DISK_FULL:
            return False
        raise
    return True


def _group(found: Located) -> int | None:
    if found.process is not None and found.proven:
        leads = _leads_session(found.process.pid)
        return found.process.pid if leads else None
    if found.leftovers and found.record is not None and found.record.identity is not None:
        return found.record.identity.pid
    return None


def _leads_session(pid: int) -> bool:
    """Whether a process leads its own session, as everything does that we start."""
    try:
        return os.getsid(pid) == pid and os.getpgid(pid) == pid
    except (ProcessLookupError, PermissionError):
        return False


def _targets(name: str, dirs: StateDirs, found: Located) -> tuple[ProcessIdentity, ...]:
    """Everything to end: the process, its group, and its descendants outside the group."""
    if found.process is None or not found.proven:
        return found.leftovers
    group = _group(found)
    members = set(group_members(group)) if group is not None else set[ProcessIdentity]()
    others = _other_services(dirs, name)
    below = descendants(found.process.pid, beyond=lambda pid: pid in others)
    outside = {identity for pid in below if (identity := identify(pid)) is not None}
    return tuple({found.process} | members | outside)


def _other_services(dirs: StateDirs, name: str) -> set[int]:
    """The processes of other services: one that a watchdog started is its child, but no part."""
    pids: set[int] = set()
    for other in dirs.names():
        if other == name:
            continue
        try:
            record = read_run(dirs, other)
        except StateFileError:
            continue
        if record is not None and record.identity is not None:
            pids.add(record.identity.pid)
    return pids


def _terminate(
    name: str, targets: tuple[ProcessIdentity, ...], group: int | None, grace_s: float
) -> bool:
    """End the targets and whatever they start meanwhile; whether SIGKILL was needed."""
    _signal(targets, group, signal.SIGTERM)
    _signal(targets, group, signal.SIGCONT)  # a suspended process can't obey
    left = _left_after(targets, group, grace_s)
    if not left:
        return False
    _signal(left, group, signal.SIGKILL)
    left = _left_after(left, group, _AFTER_KILL_S)
    if left:
        raise StopFailedError(name, tuple(sorted(survivor.pid for survivor in left)))
    return True


def _signal(targets: tuple[ProcessIdentity, ...], group: int | None, number: int) -> None:
    """Signal the group, as long as one of the targets holds its number, and those outside it."""
    in_group = [target for target in targets if group is not None and _group_of(target) == group]
    if group is not None and any(is_alive(target) for target in in_group):
        # macOS answers EPERM where only zombies are left
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for target in targets:
        if target not in in_group and is_alive(target):
            with suppress(ProcessLookupError):
                os.kill(target.pid, number)


def _group_of(target: ProcessIdentity) -> int | None:
    try:
        return os.getpgid(target.pid)
    except (ProcessLookupError, PermissionError):
        return None


def _left_after(
    targets: tuple[ProcessIdentity, ...], group: int | None, seconds: float
) -> tuple[ProcessIdentity, ...]:
    """Wait until every target is dead, and every process that joined the group since.

    Returns what still lives after `seconds`.
    """
    deadline = time.monotonic() + seconds
    pause_s = 0.005
    while True:
        for target in targets:
            reap(target.pid)
        left = {target for target in targets if is_alive(target)}
        left |= set(group_members(group)) if group is not None else set()
        if not left or time.monotonic() >= deadline:
            return tuple(left)
        time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
        pause_s = min(pause_s * 2, 0.05)


def _forget_process(dirs: StateDirs, name: str) -> None:
    try:
        record = read_run(dirs, name)
    except StateFileError:
        record = RunRecord()  # what can't be read is replaced
    if record is not None:
        write_run(dirs, name, replace(record, identity=None))
