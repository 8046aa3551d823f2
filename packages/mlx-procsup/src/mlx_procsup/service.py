"""One service: what each call does in each state, and the calls.

               stopped      crashed              down: loading  hung, wedged   healthy, degraded
start_service  starts       starts               AlreadyRunningError, all three
bring_up       starts       clears, starts       waits          stops, starts  keeps, or replaces
                                                                               what is out of date
stop_service   not-running  ends what it left    stopped or forced, all three
adopt          None         None                 the process, its files repaired, all three
Watchdog       starts what  restarts what        nothing        restarts what  nothing, or recycles
               is wanted    is wanted                           is wanted      what grew too large

`start_service` and `bring_up` record that the service is wanted, `bring_up` even if it can't start
it; `stop_service` records that it isn't (decision 0013), or is only when there is work for it; the
watchdog acts on that record and never changes it. If another program listens on the service's port,
`bring_up` and the watchdog start nothing (`PortTakenError`). A process that can't be proven to be
the service's is never signalled, whatever the files say (decision 0010). Except for the watchdog,
none of these calls takes a lock: their callers do. No process owns the services (decision 0012):
each call reads the files again.
"""

import errno
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import StrEnum
from urllib.parse import urlsplit

from mlx_procsup.defaults import READY_TIMEOUT_S, STOP_GRACE_S
from mlx_procsup.errors import (
    AlreadyRunningError,
    PortTakenError,
    ReadinessTimeoutError,
    StartFailedError,
    SupervisionError,
    WaitCancelledError,
)
from mlx_procsup.http_probe import accepts_connection
from mlx_procsup.identity import ProcessIdentity, identify, runs_command, secret_within
from mlx_procsup.located import Located, group_members, locate
from mlx_procsup.looks import read_last_look
from mlx_procsup.progress import LoadTimeout
from mlx_procsup.readiness import wait_for_healthy
from mlx_procsup.spawn import StartedProcess, check_program, spawn_recorded
from mlx_procsup.spec import ProcessSpec, StateDirs
from mlx_procsup.statefiles import (
    RunRecord,
    WantedState,
    readable_run,
    remove_pid,
    set_wanted,
    write_pid,
    write_run,
)
from mlx_procsup.terminate import terminate
from mlx_procsup.usage import descendants, describe_process, measure_usage, port_listener

_LOOK_EVERY_S = 0.25
_HUNG_AFTER_S = 15.0
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class StartOutcome(StrEnum):
    """The outcome of bringing a service up."""

    STARTED = "started"
    ALREADY_RUNNING = "already-running"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StartPlan:
    """A service to bring up.

    Attributes:
        spec: What to run.
        needs_bytes: The memory that it will hold once loaded; 0 if that doesn't matter.
        verify: Called once a new process is ready; raises SupervisionError if it doesn't do its
            work.
    """

    spec: ProcessSpec
    needs_bytes: int = 0
    verify: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class StartResult:
    """The result for one service.

    Attributes:
        outcome: Started, already-running, failed, or skipped (the caller gave up first).
    """

    name: str
    outcome: StartOutcome
    pid: int | None
    seconds: float
    error: SupervisionError | None = None


class StopOutcome(StrEnum):
    """The outcome of a stop."""

    STOPPED = "stopped"
    FORCED = "forced"
    NOT_RUNNING = "not-running"
    STALE_REMOVED = "stale-removed"


@dataclass(frozen=True, slots=True)
class ShutdownResult:
    """What `stop_service` did.

    Attributes:
        name: The service.
        outcome: Stopped (all obeyed SIGTERM), forced (SIGKILL was needed), not-running (there was
            nothing), or stale-removed (only files were left).
    """

    name: str
    outcome: StopOutcome
    pid: int | None
    seconds: float


def start_service(
    spec: ProcessSpec,
    dirs: StateDirs,
    *,
    keep_history: bool = False,
    clock: Callable[[], float] = time.time,
) -> StartedProcess:
    """Start a process in its own session, with its output appended to its log.

    Standard input is closed (`/dev/null`), no file descriptor is passed on, and the environment is
    exactly the spec's. PID and run file are on disk before the command runs its first line.

    Args:
        keep_history: Keep restarts and flapping, as a watchdog does; a user's start forgets them.

    Raises:
        AlreadyRunningError: The service's process is alive.
        CommandNotFoundError: There is no such program.
        StartFailedError: The start could not be recorded; nothing runs.
    """
    found = locate(dirs, spec.name, spec.command)
    if found.own is not None:
        raise AlreadyRunningError(spec.name, found.own.pid)
    check_program(spec)
    try:
        dirs.create()
    except OSError as error:
        raise StartFailedError(f"{spec.name}: {error}", service=spec.name) from error
    # a watchdog starts a new history rather than leave a service with a damaged run file down
    record = found.record if keep_history else None
    return spawn_recorded(spec, dirs, record or RunRecord(), clock())


def bring_up(
    plan: StartPlan,
    dirs: StateDirs,
    timeout_s: float = READY_TIMEOUT_S,
    cancelled: threading.Event | None = None,
) -> StartResult:
    """Make one service run what its spec describes, and wait until it is ready.

    A service that already runs it is left alone, and waited for if it is still loading. A service
    that runs something else, or hangs, is stopped first. Failures are in the result, never raised.
    """
    spec = plan.spec
    cancelled = cancelled or threading.Event()
    began = time.monotonic()
    started: StartedProcess | None = None
    outcome = StartOutcome.STARTED
    error: SupervisionError | None = None
    try:
        started = _keep_if_ready(spec, dirs, timeout_s, cancelled)
        if started is not None:
            outcome = StartOutcome.ALREADY_RUNNING
        else:
            started = _clear_and_start(spec, dirs, cancelled)
            wait_for_healthy(started, timeout_s, cancelled=cancelled.is_set)
            if plan.verify is not None:
                _verify(spec.name, plan.verify, cancelled)
    except WaitCancelledError as gave_up:
        outcome, error = StartOutcome.SKIPPED, gave_up
        if started is not None:
            stop_service(spec.name, dirs)
    except SupervisionError as failure:
        outcome, error = StartOutcome.FAILED, failure
    except OSError as failure:
        outcome = StartOutcome.FAILED
        error = StartFailedError(f"{spec.name}: {failure}", service=spec.name)
    pid = started.pid if started is not None else None
    return StartResult(spec.name, outcome, pid, time.monotonic() - began, error)


def adopt(spec: ProcessSpec, dirs: StateDirs) -> StartedProcess | None:
    """The running process of a service as if it had just been started, with its files repaired.

    None if no process is proven to be the service's. A lost or wrong PID file is written again, and
    so is a lost run file; the user's wish and the record of restarts are left as they are.

    Raises:
        OSError: A file can't be written.
    """
    found = locate(dirs, spec.name, spec.masked_command())
    if found.own is None:
        return None
    record = found.record
    if record is None or record.identity is None:
        record = replace(
            record or RunRecord(),
            identity=found.own,
            command=spec.masked_command(),
            secret=secret_within(found.own.pid, spec.start_secret),
        )
        write_run(dirs, spec.name, record)
    if found.problem is not None:
        write_pid(dirs, spec.name, found.own.pid)
    return StartedProcess(spec, found.own, dirs.log_file(spec.name), record.log_offset)


def is_current(spec: ProcessSpec, record: RunRecord | None) -> bool:
    """Whether the last started process matches the spec as it is now."""
    return record is not None and (record.command, record.fingerprint) == (
        spec.masked_command(),
        spec.fingerprint,
    )


def stop_service(
    name: str,
    dirs: StateDirs,
    grace_s: float = STOP_GRACE_S,
    *,
    command: tuple[str, ...] = (),
    wanted: WantedState | None = WantedState.STOPPED,
) -> ShutdownResult:
    """Stop a service: SIGTERM to its group, `grace_s`, SIGKILL, verified; then forget its PID.

    Processes that the service left behind after a crash are ended too, and so are descendants that
    created their own sessions, as far as they can still be found. A process that can't be proven to
    be the service is never signalled.

    Args:
        grace_s: How long the processes may take to obey SIGTERM.
        command: The command that it runs; recognizes the process if the run file is lost.
        wanted: Recorded before the first signal, so that a watchdog doesn't start it again;
            ON_REQUEST for a service that waits for work; None leaves the record as it is, for a
            restart.

    Raises:
        StopFailedError: A process survived SIGKILL; the PID file is kept.
        OSError: The state files can't be written.
    """
    started = time.monotonic()
    found = locate(dirs, name, command)
    noted = wanted is None or _note(dirs, name, wanted, found)
    targets = _targets(name, dirs, found)
    forced = bool(targets) and terminate(name, targets, _group(found), grace_s)
    if found.has_pid_file:
        remove_pid(dirs, name)
    if noted:
        _forget_process(dirs, name)
    else:
        dirs.run_file(name).unlink(missing_ok=True)  # without any file it counts as stopped, too
    if targets:
        outcome = StopOutcome.FORCED if forced else StopOutcome.STOPPED
    else:
        outcome = StopOutcome.STALE_REMOVED if found.has_pid_file else StopOutcome.NOT_RUNNING
    pid = found.own.pid if found.own is not None else None
    return ShutdownResult(name, outcome, pid, time.monotonic() - started)


def clear_the_way(
    spec: ProcessSpec,
    dirs: StateDirs,
    grace_s: float = STOP_GRACE_S,
    *,
    wanted: WantedState | None = None,
) -> None:
    """Stop what is left of a service, so that it can be started again.

    If its run file is damaged, a process that holds its port and shows its command counts as its
    own: it is recorded again, and stopped with the rest. An intact run file takes precedence.

    Args:
        wanted: Recorded for it, even if it can't be started; None leaves the record as it is.

    Raises:
        PortTakenError: Another process listens on the service's port.
        StopFailedError: A process survived SIGKILL.
        OSError: A state file can't be written.
    """
    command = spec.masked_command()
    if locate(dirs, spec.name, command).own is None and _is_damaged(spec.name, dirs):
        lost = _lost_process(spec)
        if lost is not None:
            dirs.create()
            dirs.run_file(spec.name).unlink(missing_ok=True)
            write_pid(dirs, spec.name, lost)
    stop_service(spec.name, dirs, grace_s, command=command, wanted=wanted)
    if spec.readiness is None or not accepts_connection(spec.readiness.url):
        return
    port = urlsplit(spec.readiness.url).port or 80
    listener = port_listener(port)
    raise PortTakenError(spec.name, port, describe_process(listener) if listener else None)


def _keep_if_ready(
    spec: ProcessSpec, dirs: StateDirs, timeout_s: float, cancelled: threading.Event
) -> StartedProcess | None:
    """The process that runs already, once it is ready; None if one has to be started."""
    found = locate(dirs, spec.name, spec.masked_command())
    if found.record is not None and not is_current(spec, found.record):
        return None
    running = adopt(spec, dirs)
    if running is None:
        return None
    set_wanted(dirs, spec.name, WantedState.RUNNING)
    look = read_last_look(dirs)
    if look is not None and look.wedge_of(spec.name, running.pid, time.time()) is not None:
        return None
    timeout = LoadTimeout.of(timeout_s)
    usage = measure_usage(running.pid, time.time())
    if usage is not None and usage.age_s > timeout_s:
        # It had its time to load. It is given some to show that it works on a long answer.
        hung_after_s = min(_HUNG_AFTER_S, timeout_s)
        timeout = LoadTimeout(hung_after_s, hung_after_s, timeout.limit_s)
    try:
        wait_for_healthy(running, timeout=timeout, cancelled=cancelled.is_set)
    except ReadinessTimeoutError:
        if usage is not None and usage.age_s <= timeout_s:
            raise
        return None
    return running


def _clear_and_start(
    spec: ProcessSpec, dirs: StateDirs, cancelled: threading.Event
) -> StartedProcess:
    if cancelled.is_set():
        raise WaitCancelledError(f"{spec.name} was not started", service=spec.name)
    clear_the_way(spec, dirs, wanted=WantedState.RUNNING)
    return start_service(spec, dirs)


def _verify(name: str, verify: Callable[[], None], cancelled: threading.Event) -> None:
    """What `verify` says; its answer is no longer waited for once the caller gave up."""
    answer: Future[None] = Future()
    asking = threading.Thread(target=_ask, args=(verify, answer), name="verify", daemon=True)
    asking.start()
    while not answer.done():
        if cancelled.is_set():
            raise WaitCancelledError(f"the wait for {name} was cancelled", service=name)
        asking.join(_LOOK_EVERY_S)
    answer.result()


def _ask(verify: Callable[[], None], answer: Future[None]) -> None:
    try:
        verify()
    except (SupervisionError, OSError) as failure:
        answer.set_exception(failure)
    else:
        answer.set_result(None)
    finally:
        answer.cancel()  # a defect of `verify` gives none; it isn't waited for, either


def _note(dirs: StateDirs, name: str, wanted: WantedState, found: Located) -> bool:
    """Note what is wanted of a service; False where the disk is too full for it.

    What may have filled the disk can be stopped all the same. Of a service without files, only
    that it is wanted is worth one.
    """
    has_files = found.has_pid_file or dirs.run_file(name).exists()
    if wanted is WantedState.STOPPED and not has_files:
        return True
    try:
        set_wanted(dirs, name, wanted)
    except OSError as error:
        if wanted is WantedState.STOPPED and error.errno in _DISK_FULL:
            return False
        raise
    return True


def _group(found: Located) -> int | None:
    """The process group that is the service's alone, if it has one."""
    if found.own is not None:
        return found.own.pid if _leads_session(found.own.pid) else None
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
    if found.own is None:
        return found.leftovers
    group = _group(found)
    members = set(group_members(group)) if group is not None else set[ProcessIdentity]()
    others = _other_services(dirs, name)
    below = descendants(found.own.pid, beyond=lambda pid: pid in others)
    outside = {identity for pid in below if (identity := identify(pid)) is not None}
    return tuple({found.own} | members | outside)


def _other_services(dirs: StateDirs, name: str) -> set[int]:
    """The processes of other services: one that a watchdog started is its child, but no part."""
    records = [readable_run(dirs, other) for other in dirs.names() if other != name]
    return {record.identity.pid for record in records if record and record.identity}


def _forget_process(dirs: StateDirs, name: str) -> None:
    record = readable_run(dirs, name)
    if record is not None or dirs.run_file(name).exists():  # what can't be read is replaced
        write_run(dirs, name, replace(record or RunRecord(), identity=None, secret=""))


def _is_damaged(name: str, dirs: StateDirs) -> bool:
    return dirs.run_file(name).exists() and readable_run(dirs, name) is None


def _lost_process(spec: ProcessSpec) -> int | None:
    """The process that runs a service's command on its port, without a file that says so."""
    if spec.readiness is None or not accepts_connection(spec.readiness.url):
        return None
    listener = port_listener(urlsplit(spec.readiness.url).port or 80)
    if listener is None:
        return None
    try:
        leader = os.getsid(listener)
    except ProcessLookupError:
        return None
    command = spec.masked_command()
    return next((pid for pid in (leader, listener) if runs_command(pid, command)), None)
