"""Bringing services up together: side by side as far as memory allows, each for itself."""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

import psutil

from mlx_procsup.admission import Need, admit
from mlx_procsup.errors import (
    PortTakenError,
    ReadinessTimeoutError,
    StartFailedError,
    StateFileError,
    SupervisionError,
    WaitCancelledError,
)
from mlx_procsup.http_probe import accepts_connection
from mlx_procsup.identity import runs_command
from mlx_procsup.located import locate
from mlx_procsup.progress import Patience
from mlx_procsup.readiness import TIMEOUT_S, wait_for_healthy
from mlx_procsup.spawn import StartedProcess, adopt, is_current, start_service
from mlx_procsup.spec import ProcessSpec, StateDirs
from mlx_procsup.statefiles import WantedState, read_run, set_wanted, write_pid
from mlx_procsup.terminate import GRACE_S, stop_service
from mlx_procsup.usage import describe_process, measure_usage, port_listener

_LOOK_EVERY_S = 0.25
_HUNG_AFTER_S = 15.0


class StartOutcome(StrEnum):
    """How bringing a service up went."""

    STARTED = "started"
    ALREADY_RUNNING = "already-running"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class StartPlan:
    """A service to bring up.

    Attributes:
        spec: what to run.
        needs_bytes: the memory that it will hold once loaded; 0 where it doesn't matter.
        verify: asked once a new process is ready; raises SupervisionError if it doesn't do
            its work.
    """

    spec: ProcessSpec
    needs_bytes: int = 0
    verify: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class StartResult:
    """What became of one service.

    Attributes:
        name: the service.
        outcome: started, already-running, failed, or skipped (the caller gave up before).
        pid: its process, if there is one.
        seconds: how long it took, waiting for memory not counted.
        error: why it failed.
    """

    name: str
    outcome: StartOutcome
    pid: int | None
    seconds: float
    error: SupervisionError | None = None


def start_all(
    plans: Sequence[StartPlan],
    dirs: StateDirs,
    *,
    timeout_s: float = TIMEOUT_S,
    on_result: Callable[[StartResult], None] = lambda _: None,
    on_hold: Callable[[str], None] = lambda _: None,
    read_available_bytes: Callable[[], int] = lambda: psutil.virtual_memory().available,
) -> list[StartResult]:
    """Bring services up side by side; one that fails leaves the others alone.

    If the caller is interrupted, what is ready stays and what is still loading is stopped.

    Args:
        plans: what to bring up; the first has precedence where memory is short.
        dirs: where their state is kept.
        timeout_s: how long each may take, longer while its load progresses.
        on_result: told of each as soon as it is decided, always from the calling thread.
        on_hold: told the name of each service that has to wait for memory, once.
        read_available_bytes: how much memory can still be taken.

    Returns:
        One result a plan, in the order of the plans.
    """
    cancelled = threading.Event()
    held: set[str] = set()
    waiting = list(plans)
    running: dict[Future[StartResult], StartPlan] = {}
    results: dict[str, StartResult] = {}

    with ThreadPoolExecutor(max_workers=max(1, len(plans))) as pool:
        try:
            while waiting or running:
                admitted = _admitted(waiting, list(running.values()), dirs, read_available_bytes)
                for plan in [plan for plan in waiting if plan.spec.name in admitted]:
                    waiting.remove(plan)
                    running[pool.submit(bring_up, plan, dirs, timeout_s, cancelled)] = plan
                for plan in waiting:
                    if plan.spec.name not in held:
                        held.add(plan.spec.name)
                        on_hold(plan.spec.name)
                pause_s = _LOOK_EVERY_S if waiting else None
                done, _ = wait(running, timeout=pause_s, return_when=FIRST_COMPLETED)
                for future in done:
                    result = future.result()
                    results[running.pop(future).spec.name] = result
                    on_result(result)
        except BaseException:
            cancelled.set()
            raise
    return [results[plan.spec.name] for plan in plans]


def bring_up(
    plan: StartPlan,
    dirs: StateDirs,
    timeout_s: float = TIMEOUT_S,
    cancelled: threading.Event | None = None,
) -> StartResult:
    """Make one service run what its spec means, and wait until it is ready.

    A service that runs it already is left alone, and waited for if it is still loading. One that
    runs something else, or hangs, is stopped first. Failures are in the result, never raised.
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
            started = _start_afresh(spec, dirs, cancelled)
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


def clear_the_way(spec: ProcessSpec, dirs: StateDirs, grace_s: float = GRACE_S) -> None:
    """Stop what is left of a service, so that it can be started anew.

    Where its run file is damaged, a process that holds its port and shows its command is its own:
    it is written down again, and stopped with the rest. An intact run file knows better.

    Raises:
        PortTakenError: somebody else listens where the service would.
        StopFailedError: something outlived SIGKILL.
        OSError: a state file can't be written.
    """
    command = spec.masked_command()
    found = locate(dirs, spec.name, command)
    if not (found.process is not None and found.proven) and _is_damaged(spec.name, dirs):
        lost = _lost_process(spec)
        if lost is not None:
            dirs.create()
            dirs.run_file(spec.name).unlink(missing_ok=True)
            write_pid(dirs, spec.name, lost)
    stop_service(spec.name, dirs, grace_s, command=command, wanted=None)
    if spec.readiness is None or not accepts_connection(spec.readiness.url):
        return
    port = urlsplit(spec.readiness.url).port or 80
    listener = port_listener(port)
    raise PortTakenError(spec.name, port, describe_process(listener) if listener else None)


def _is_damaged(name: str, dirs: StateDirs) -> bool:
    try:
        read_run(dirs, name)
    except StateFileError:
        return True
    return False


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


def _keep_if_ready(
    spec: ProcessSpec, dirs: StateDirs, timeout_s: float, cancelled: threading.Event
) -> StartedProcess | None:
    """The process that runs already, once it is ready; None if one has to be started."""
    found = locate(dirs, spec.name, spec.masked_command())
    if found.process is None or not found.proven:
        return None
    if found.record is not None and not is_current(spec, found.record):
        return None
    running = adopt(spec, dirs)
    if running is None:
        return None
    set_wanted(dirs, spec.name, WantedState.RUNNING)
    patience = Patience.of(timeout_s)
    usage = measure_usage(running.pid, time.time())
    if usage is not None and usage.age_s > timeout_s:
        # It had its time to load. It is given some to show that it works on a long answer.
        hung_after_s = min(_HUNG_AFTER_S, timeout_s)
        patience = Patience(hung_after_s, hung_after_s, patience.limit_s)
    try:
        wait_for_healthy(running, patience=patience, cancelled=cancelled.is_set)
    except ReadinessTimeoutError:
        if usage is not None and usage.age_s <= timeout_s:
            raise
        return None
    return running


def _start_afresh(spec: ProcessSpec, dirs: StateDirs, cancelled: threading.Event) -> StartedProcess:
    if cancelled.is_set():
        raise WaitCancelledError(f"{spec.name} was not started", service=spec.name)
    clear_the_way(spec, dirs)
    return start_service(spec, dirs)


def _verify(name: str, verify: Callable[[], None], cancelled: threading.Event) -> None:
    """What `verify` says; its answer is no longer waited for once the caller gave up."""
    answer: Future[None] = Future()
    asking = threading.Thread(target=_ask, args=(verify, answer), name="verify", daemon=True)
    asking.start()
    while not answer.done():
        if cancelled.is_set():
            raise WaitCancelledError(f"nobody waits for {name} any more", service=name)
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
        answer.cancel()  # a defect of `verify` gives none; nobody waits for it for ever


def _admitted(
    waiting: Sequence[StartPlan],
    running: Sequence[StartPlan],
    dirs: StateDirs,
    read_available_bytes: Callable[[], int],
) -> list[str]:
    if not waiting:
        return []
    if not any(plan.needs_bytes for plan in waiting):
        return [plan.spec.name for plan in waiting]
    wanted = [Need(plan.spec.name, _still_needed(plan, dirs)) for plan in waiting]
    loading = [Need(plan.spec.name, plan.needs_bytes, _held_bytes(plan, dirs)) for plan in running]
    return admit(wanted, loading, read_available_bytes())


def _still_needed(plan: StartPlan, dirs: StateDirs) -> int:
    """A service that runs already has what it needs."""
    return max(0, plan.needs_bytes - _held_bytes(plan, dirs))


def _held_bytes(plan: StartPlan, dirs: StateDirs) -> int:
    process = locate(dirs, plan.spec.name, plan.spec.masked_command()).process
    usage = measure_usage(process.pid, time.time()) if process is not None else None
    return usage.memory_bytes if usage is not None else 0
