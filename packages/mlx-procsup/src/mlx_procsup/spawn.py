"""Starting a process that outlives us, so that no moment leaves it running and unrecorded."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_procsup.errors import (
    AlreadyRunningError,
    CommandNotFoundError,
    StartFailedError,
    StateFileError,
)
from mlx_procsup.identity import ProcessIdentity, identify
from mlx_procsup.located import locate
from mlx_procsup.spec import ProcessSpec, StateDirs
from mlx_procsup.statefiles import (
    RunRecord,
    WantedState,
    read_run,
    remove_pid,
    write_pid,
    write_run,
)

# The process waits at a gate, a pipe on its standard input, until its PID is on disk. If we are
# killed before, the pipe closes and it ends without having run. `exec` keeps PID and start time.
# Shells export variables of their own; those that the environment doesn't name go again.
_GATE = 'read -r procsup_gate || exit 125; {unset}exec "$@" </dev/null'
_SHELL_VARIABLES = ("PWD", "OLDPWD", "SHLVL", "_")


@dataclass(frozen=True, slots=True)
class StartedProcess:
    """A process that was just started and recorded; nothing is known of its readiness.

    Attributes:
        spec: what was started.
        identity: the process; its PID leads a session and group of its own.
        log_path: where it prints to.
        log_offset: where its first line begins in that file, in bytes.
    """

    spec: ProcessSpec
    identity: ProcessIdentity
    log_path: Path
    log_offset: int

    @property
    def name(self) -> str:
        """The service's name."""
        return self.spec.name

    @property
    def pid(self) -> int:
        """The process id."""
        return self.identity.pid


def start_service(
    spec: ProcessSpec,
    dirs: StateDirs,
    *,
    keep_history: bool = False,
    clock: Callable[[], float] = time.time,
) -> StartedProcess:
    """Start a process in a session of its own, its output appended to its log.

    Standard input is closed (`/dev/null`), no file descriptor is passed on, and the environment
    is exactly the spec's. PID and run file are on disk before the command runs its first line.

    Args:
        spec: what to start.
        dirs: where its state is kept; made if missing.
        keep_history: keep restarts and flapping, as a watchdog does; a user's start forgets them.
        clock: seconds since the epoch.

    Raises:
        AlreadyRunningError: the service's process lives.
        CommandNotFoundError: there is no such program.
        StartFailedError: the start could not be recorded; nothing runs.
    """
    found = locate(dirs, spec.name, spec.command)
    if found.process is not None and found.proven:
        raise AlreadyRunningError(spec.name, found.process.pid)
    _check_program(spec)
    try:
        dirs.create()
        record = _history(spec.name, dirs) if keep_history else RunRecord()
        child, log_offset = _spawn_at_gate(spec, dirs)
        record = replace(record, started_at=clock(), log_offset=log_offset)
    except OSError as error:
        raise StartFailedError(f"{spec.name}: {error}", service=spec.name) from error
    try:
        identity = _record_start(child, spec, dirs, record)
        _open_gate(child)
    except BaseException as error:
        _abandon(child)
        with suppress(OSError):
            remove_pid(dirs, spec.name)
        if isinstance(error, OSError):
            raise StartFailedError(
                f"{spec.name} was not started: its PID can't be recorded ({error})",
                service=spec.name,
            ) from error
        raise
    # The process is meant to outlive us, and `reap` collects it: Popen need not warn about it.
    child.returncode = 0
    return StartedProcess(spec, identity, dirs.log_file(spec.name), log_offset)


def _spawn_at_gate(spec: ProcessSpec, dirs: StateDirs) -> tuple[subprocess.Popen[bytes], int]:
    unset = " ".join(name for name in _SHELL_VARIABLES if name not in spec.env)
    gate = _GATE.format(unset=f"unset {unset}; " if unset else "")
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    log = os.open(dirs.log_file(spec.name), flags, mode=0o600)
    try:
        log_offset = os.fstat(log).st_size
        child = subprocess.Popen(
            ("/bin/sh", "-c", gate, spec.name, *spec.command),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=spec.cwd,
            env=dict(spec.env),
            start_new_session=True,
        )
    finally:
        os.close(log)
    return child, log_offset


def is_current(spec: ProcessSpec, record: RunRecord | None) -> bool:
    """Whether what was last started is what the spec means now."""
    return record is not None and (record.command, record.fingerprint) == (
        spec.masked_command(),
        spec.fingerprint,
    )


def adopt(spec: ProcessSpec, dirs: StateDirs) -> StartedProcess | None:
    """The running process of a service as if it had just been started, its files mended.

    None where no process is proven to be the service's. A lost or wrong PID file is written anew,
    and so is a lost run file; what the user wants and what was restarted is left as it is.

    Raises:
        OSError: a file can't be written.
    """
    found = locate(dirs, spec.name, spec.masked_command())
    if found.process is None or not found.proven:
        return None
    record = found.record
    if record is None or record.identity is None:
        record = replace(
            record or RunRecord(), identity=found.process, command=spec.masked_command()
        )
        write_run(dirs, spec.name, record)
    if found.problem is not None:
        write_pid(dirs, spec.name, found.process.pid)
    return StartedProcess(spec, found.process, dirs.log_file(spec.name), record.log_offset)


def _record_start(
    child: subprocess.Popen[bytes], spec: ProcessSpec, dirs: StateDirs, record: RunRecord
) -> ProcessIdentity:
    identity = identify(child.pid)
    if identity is None:
        raise StartFailedError(f"{spec.name} ended at once", service=spec.name)
    record = replace(
        record,
        identity=identity,
        command=spec.masked_command(),
        fingerprint=spec.fingerprint,
        wanted=WantedState.RUNNING,
        last_error=None,
        shed_at=None,
    )
    write_run(dirs, spec.name, record)
    write_pid(dirs, spec.name, identity.pid)
    return identity


def _open_gate(child: subprocess.Popen[bytes]) -> None:
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin:
        child.stdin.write(b"go\n")


def _abandon(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that must not live, and collect it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with suppress(OSError):
            child.stdin.close()


def _check_program(spec: ProcessSpec) -> None:
    program = spec.command[0]
    path = spec.env.get("PATH", os.defpath)
    candidate = str(spec.cwd / program) if "/" in program else program
    if shutil.which(candidate, path=path) is None:
        raise CommandNotFoundError(spec.name, program)
    if not spec.cwd.is_dir():
        raise StartFailedError(f"{spec.name}: no folder {spec.cwd} to run in", service=spec.name)


def _history(name: str, dirs: StateDirs) -> RunRecord:
    try:
        return read_run(dirs, name) or RunRecord()
    except StateFileError:
        return RunRecord()  # a watchdog starts a new history rather than leave the service down
