"""A program that is itself a service: it records its own PID, and runs only once."""

import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mlx_procsup.errors import (
    AlreadyRunningError,
    ExitedEarlyError,
    StartFailedError,
    StateFileError,
)
from mlx_procsup.identity import ProcessIdentity, identify
from mlx_procsup.lock import LockHeldError, acquire_lock
from mlx_procsup.logfiles import last_words
from mlx_procsup.spawn import check_program, open_gate, spawn_at_gate
from mlx_procsup.spec import ProcessSpec, StateDirs, check_name
from mlx_procsup.statefiles import RunRecord, read_pid, remove_pid, write_pid, write_run

_APPEARS_WITHIN_S = 15.0
_LOG_TAIL_LINES = 10


@contextmanager
def run_as(
    name: str, dirs: StateDirs, command: tuple[str, ...] = tuple(sys.orig_argv)
) -> Generator[ProcessIdentity]:
    """Be the service `name` while the block runs: write PID and run file, and allow no second one.

    A lock, `<run>/<name>.lock`, protects it; a crash releases the lock.

    Raises:
        AlreadyRunningError: Another process is that service.
        OSError: The files can't be written.
    """
    dirs.create()
    own = identify(os.getpid())
    assert own is not None
    try:
        with acquire_lock(_lock_file(name, dirs), name):
            record = RunRecord(identity=own, command=command, started_at=time.time())
            write_run(dirs, name, record)
            write_pid(dirs, name, own.pid)
            try:
                yield own
            finally:
                remove_pid(dirs, name)
                write_run(dirs, name, replace(record, identity=None))
    except LockHeldError as error:
        if error.path != _lock_file(name, dirs):
            raise  # of the block's own
        raise AlreadyRunningError(name, error.owner.pid if error.owner else 0) from error


def pid_running_as(name: str, dirs: StateDirs) -> int | None:
    """The PID of the service `name` that used `run_as`, even if its files are lost.

    None if there is none, or if it hasn't written its PID yet.
    """
    try:
        with acquire_lock(_lock_file(name, dirs), name):
            return None
    except LockHeldError as error:
        return error.owner.pid if error.owner else None


def _lock_file(name: str, dirs: StateDirs) -> Path:
    return dirs.run / f"{check_name(name)}.lock"


def start_detached(spec: ProcessSpec, dirs: StateDirs) -> int:
    """Start a program that uses `run_as`, detached from this terminal; returns its PID.

    It has its own session and no input, and its output goes to its log. The call returns once the
    program is present; if the call ends earlier, even by Ctrl-C, the program is ended as well.

    Raises:
        ExitedEarlyError: The program ended first; its last log lines say why.
        CommandNotFoundError: There is no such program.
        StartFailedError: It could not be started, or wasn't present in time.
    """
    check_program(spec)
    dirs.create()
    began = time.monotonic()
    try:
        child, offset = spawn_at_gate(spec, dirs)
    except OSError as error:
        raise StartFailedError(f"{spec.name}: {error}", service=spec.name) from error
    try:
        open_gate(child)
        while _runs(child.pid):
            with suppress(StateFileError):  # left by an earlier one, until the child writes its own
                if read_pid(dirs, spec.name) == child.pid:
                    child.returncode = 0  # it is meant to outlive us: Popen need not warn about it
                    return child.pid
            if time.monotonic() - began > _APPEARS_WITHIN_S:
                raise StartFailedError(f"{spec.name} did not start working", service=spec.name)
            time.sleep(0.02)
    finally:
        child.kill()  # does nothing where the return code is known: it is meant to outlive us
        child.wait()
    raise ExitedEarlyError(
        service=spec.name,
        pid=child.pid,
        seconds=time.monotonic() - began,
        log_tail=tuple(last_words(dirs.log_file(spec.name), _LOG_TAIL_LINES, offset)),
        exit_code=child.returncode,
    )


def _runs(pid: int) -> bool:
    """Whether a child of ours hasn't ended; if it has, it remains to be collected.

    `Popen.poll` takes a lock, and keeps it if Ctrl-C comes at the wrong moment: then `Popen.wait`
    would never return.
    """
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
