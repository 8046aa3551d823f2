"""The states of services, observed from outside without changing anything."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlx_procsup.http_probe import PendingPoll, PollAnswer
from mlx_procsup.identity import is_alive
from mlx_procsup.located import Located, locate
from mlx_procsup.logfiles import last_line
from mlx_procsup.looks import LastLook, read_last_look
from mlx_procsup.spec import HttpReadiness, ProcessSpec, StateDirs
from mlx_procsup.state import DOWN_AFTER_S, ServiceState, classify
from mlx_procsup.statefiles import RunRecord
from mlx_procsup.usage import ProcessUsage, measure_usage, read_sessions


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """A service to look at.

    Attributes:
        command: The command that it runs; recognizes the process if the run file is lost.
    """

    name: str
    readiness: HttpReadiness | None = None
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """What one look at a service showed.

    Attributes:
        pid: Its process; for a crashed service the one that died; else None.
        response_ms: The time until its answer; None without one.
        memory_bytes: Resident memory, including descendants.
        last_error: What is wrong, or was wrong at the last look; None if nothing is.
        files_problem: A description of what is wrong with its state files; None if they agree.
        wedged: Why it doesn't deliver even if it answers, as a watchdog found; None if no watchdog
            says so. A wedged service is never healthy.
    """

    name: str
    state: ServiceState
    pid: int | None
    response_ms: float | None
    uptime_s: float | None
    memory_bytes: int | None
    cpu_s: float | None
    last_error: str | None
    record: RunRecord | None
    files_problem: str | None
    wedged: str | None = None


def target_of(spec: ProcessSpec) -> ProbeTarget:
    """The target that a spec describes."""
    return ProbeTarget(spec.name, spec.readiness, spec.masked_command())


def probe_service(
    target: ProbeTarget, dirs: StateDirs, *, timeout_s: float = DOWN_AFTER_S
) -> ServiceStatus:
    """One service's state, after at most `timeout_s` of waiting for its answer."""
    return probe_all([target], dirs, timeout_s=timeout_s)[0]


def probe_all(
    targets: Sequence[ProbeTarget],
    dirs: StateDirs,
    *,
    timeout_s: float = DOWN_AFTER_S,
    clock: Callable[[], float] = time.time,
) -> list[ServiceStatus]:
    """Every service's state in the same order; all are asked at once.

    However many hang, this takes only slightly longer than `timeout_s`.
    """
    began = time.monotonic()
    located = [locate(dirs, target.name, target.command) for target in targets]
    processes = [found.process if found.has_pid_file else None for found in located]
    pending = {
        index: PendingPoll(target.readiness, timeout_s, began=began)
        for index, target in enumerate(targets)
        if processes[index] is not None and target.readiness is not None
    }
    now = clock()  # while the answers are on their way
    sessions = read_sessions()
    usages = [measure_usage(one.pid, now, sessions) if one else None for one in processes]
    last_look = read_last_look(dirs)
    answers = {index: poll.finish() for index, poll in pending.items()}
    return [
        _status(target.name, dirs, found, answers.get(index), usage, last_look, now)
        for index, (target, found, usage) in enumerate(zip(targets, located, usages, strict=True))
    ]


def _status(
    name: str,
    dirs: StateDirs,
    found: Located,
    answer: PollAnswer | None,
    usage: ProcessUsage | None,
    last_look: LastLook | None,
    now: float,
) -> ServiceStatus:
    process = found.process if found.has_pid_file else None
    alive = process is not None and usage is not None and is_alive(process)
    usage = usage if alive else None
    state = classify(
        has_pid_file=found.has_pid_file,
        alive=alive,
        answered_ok=answer.ok if answer else None,
        response_s=answer.response_s if answer else None,
    )
    wedge = None
    if process is not None and alive and last_look is not None:
        wedge = last_look.wedge_of(name, process.pid, now)
    if wedge is not None and state is ServiceState.HEALTHY:
        state = ServiceState.DEGRADED
    dead = found.record.identity if found.record is not None else None
    pid = process.pid if process is not None else dead.pid if found.has_pid_file and dead else None
    response_s = answer.response_s if answer and alive else None
    return ServiceStatus(
        name=name,
        state=state,
        pid=pid,
        response_ms=None if response_s is None else response_s * 1000,
        uptime_s=usage.age_s if usage else None,
        memory_bytes=usage.memory_bytes if usage else None,
        cpu_s=usage.cpu_s if usage else None,
        last_error=wedge.reason if wedge else _last_error(name, dirs, found, answer, state, usage),
        record=found.record,
        files_problem=found.problem,
        wedged=wedge.reason if wedge else None,
    )


def _last_error(
    name: str,
    dirs: StateDirs,
    found: Located,
    answer: PollAnswer | None,
    state: ServiceState,
    usage: ProcessUsage | None,
) -> str | None:
    if state is ServiceState.DOWN and answer is not None:
        # without its run file, a service can't be shown that it is us who ask
        return "; ".join(filter(None, [found.problem, answer.describe()]))
    noted = found.record.last_error if found.record is not None else None
    if state is ServiceState.CRASHED:
        offset = found.record.log_offset if found.record is not None else 0
        said = last_line(dirs.log_file(name), offset)
        return noted or (f"crashed; last log line: {said}" if said else "crashed")
    if usage is None:
        return noted or found.problem
    return found.problem or noted
