"""Which live process a service's state files refer to, if any (decision 0010).

Nothing in this module writes or signals.
"""

import os
from dataclasses import dataclass

import psutil

from mlx_procsup.errors import StateFileError
from mlx_procsup.identity import ProcessIdentity, identify, is_alive, runs_command
from mlx_procsup.spec import StateDirs
from mlx_procsup.statefiles import RunRecord, read_pid, read_run

_READS = 5
"""How often both files are read at most if they keep changing."""


@dataclass(frozen=True, slots=True)
class Located:
    """The state files of a service, compared with the machine.

    Attributes:
        has_pid_file: Whether there is one, whatever its content.
        process: The live process that the files refer to, or None.
        own: The same process, if start time or command prove that it is the service's; only then
            may it be signalled. A PID is not enough as proof.
        leftovers: Live members of a dead service's process group.
        problem: A description of what is wrong with the files; None if they agree.
    """

    has_pid_file: bool
    process: ProcessIdentity | None
    own: ProcessIdentity | None
    leftovers: tuple[ProcessIdentity, ...]
    record: RunRecord | None
    problem: str | None


def locate(dirs: StateDirs, name: str, command: tuple[str, ...] = ()) -> Located:
    """The live process of a service, found through its PID and run files.

    The run file contains the start time, so it decides; a PID file that disagrees is stale.

    Args:
        command: The command that it runs; recognizes the process if the run file is lost.
    """
    pid, has_pid_file, record, problems = _read_files(dirs, name)
    known = record.identity if record else None
    if known is not None:
        own = known if is_alive(known) else None
        problems += _disagreement(
            pid, has_pid_file=has_pid_file, known=known, alive=own is not None
        )
        leftovers = () if own else _leftovers(known)
        return Located(has_pid_file, own, own, leftovers, record, "; ".join(problems) or None)
    process = identify(pid) if pid else None
    own = process if process and command and runs_command(process.pid, command) else None
    if process is not None and own is None:
        problems.append(f"nothing proves that PID {process.pid} is {name}")
        if record is not None or command:  # the number is another process's by now
            process = None
    return Located(has_pid_file, process, own, (), record, "; ".join(problems) or None)


def group_members(group: int) -> tuple[ProcessIdentity, ...]:
    """The live processes of a group that is its own session; zombies don't count."""
    found: list[ProcessIdentity] = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) != group or os.getsid(pid) != group:
                continue
        except (ProcessLookupError, PermissionError):
            continue
        member = identify(pid)
        if member is not None:
            found.append(member)
    return tuple(found)


def _read_files(dirs: StateDirs, name: str) -> tuple[int | None, bool, RunRecord | None, list[str]]:
    """What both files say at one moment: the PID, whether it has a file, the record, problems.

    They are read again if the service was started or stopped between the first and the second.
    """
    pid_file = _read_pid_file(dirs, name)
    record = problem = None
    for _ in range(_READS):
        record = problem = None
        try:
            record = read_run(dirs, name)
        except StateFileError as error:
            problem = str(error)
        before, pid_file = pid_file, _read_pid_file(dirs, name)
        if pid_file == before:
            break
    pid, has_pid_file, pid_problem = pid_file
    return pid, has_pid_file, record, [each for each in (pid_problem, problem) if each is not None]


def _read_pid_file(dirs: StateDirs, name: str) -> tuple[int | None, bool, str | None]:
    """The PID, whether it has a file, and what is wrong with that."""
    try:
        pid = read_pid(dirs, name)
    except StateFileError as error:
        return None, True, str(error)
    return pid, pid is not None, None


def _leftovers(leader: ProcessIdentity) -> tuple[ProcessIdentity, ...]:
    """What a dead leader left behind in its session.

    No kernel hands out a PID that still names a group, so as long as one of ours lives, the
    number can't belong to anyone else. If a process has it, our group is gone.
    """
    if identify(leader.pid) is not None:
        return ()
    return tuple(
        member
        for member in group_members(leader.pid)
        if member.boot_id == leader.boot_id and member.start_time >= leader.start_time - 1.0
    )


def _disagreement(
    pid: int | None, *, has_pid_file: bool, known: ProcessIdentity, alive: bool
) -> list[str]:
    if alive and not has_pid_file:
        return [f"runs as PID {known.pid} without a PID file"]
    if pid is not None and pid != known.pid:
        return [f"the PID file says {pid}, but the process was {known.pid}"]
    if pid is not None and not alive and identify(pid) is not None:
        return [f"PID {pid} now belongs to another process"]
    return []
