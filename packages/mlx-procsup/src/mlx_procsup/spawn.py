"""Starts a process that outlives us, without a moment in which it runs unrecorded.

It waits at a gate, a pipe on its standard input, until its PID is on disk. If we are killed first,
the pipe closes and the process ends without having run. `exec` keeps PID and start time (decision
0011).
"""

import os
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from mlx_procsup.errors import CommandNotFoundError, StartFailedError
from mlx_procsup.identity import ProcessIdentity, identify
from mlx_procsup.spec import ProcessSpec, StateDirs
from mlx_procsup.statefiles import RunRecord, WantedState, remove_pid, write_pid, write_run

_SECRET_BYTES = 32
_OPEN_FILES = 8192
# Servers need more open files than the 256 that launchd and a Mac's terminal allow. Shells export
# variables of their own; those that the environment doesn't name go again.
_GATE = (
    "read -r procsup_gate || exit 125; "
    f'[ "$(ulimit -Sn)" = unlimited ] || [ "$(ulimit -Sn)" -ge {_OPEN_FILES} ] || '
    f'ulimit -Sn {_OPEN_FILES} 2>/dev/null || ulimit -Sn "$(ulimit -Hn)"; '
    '{unset}exec "$@" </dev/null'
)
_SHELL_VARIABLES = ("PWD", "OLDPWD", "SHLVL", "_")


@dataclass(frozen=True, slots=True)
class StartedProcess:
    """A process that was started and recorded; nothing is known about its readiness.

    Attributes:
        identity: The process; its PID leads its own session and group.
        log_path: The file that it writes to.
        log_offset: Where its first line begins in that file, in bytes.
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


def check_program(spec: ProcessSpec) -> None:
    """Raise CommandNotFoundError or StartFailedError if the spec can't be started here."""
    program = spec.command[0]
    path = spec.env.get("PATH", os.defpath)
    candidate = str(spec.cwd / program) if "/" in program else program
    if shutil.which(candidate, path=path) is None:
        raise CommandNotFoundError(spec.name, program)
    if not spec.cwd.is_dir():
        raise StartFailedError(f"{spec.name}: no folder {spec.cwd} to run in", service=spec.name)


def spawn_recorded(
    spec: ProcessSpec, dirs: StateDirs, record: RunRecord, started_at: float
) -> StartedProcess:
    """Start a process; PID and run file are on disk before the command runs its first line.

    Args:
        record: The part of its past to keep in the run file.

    Raises:
        StartFailedError: It could not be started or recorded; nothing runs.
    """
    try:
        secret = secrets.token_hex(_SECRET_BYTES) if spec.start_secret else ""
        child, log_offset = spawn_at_gate(spec, dirs, secret)
    except OSError as error:
        raise StartFailedError(f"{spec.name}: {error}", service=spec.name) from error
    try:
        record = replace(record, started_at=started_at, log_offset=log_offset, secret=secret)
        identity = _record_start(child, spec, dirs, record)
        open_gate(child)
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


def spawn_at_gate(
    spec: ProcessSpec, dirs: StateDirs, secret: str = ""
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process that waits at the gate; returns it and where its first log line begins.

    It runs its command once `open_gate` lets it, and ends without running it if we end first.

    Raises:
        OSError: It could not be started; nothing runs.
    """
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
            env={**spec.env, spec.start_secret: secret} if secret else dict(spec.env),
            start_new_session=True,
        )
    finally:
        os.close(log)
    return child, log_offset


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


def open_gate(child: subprocess.Popen[bytes]) -> None:
    """Let a process that waits at the gate run its command."""
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
