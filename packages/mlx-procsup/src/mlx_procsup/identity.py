"""Which process is meant: a PID is only a number, which the kernel reuses.

A process is identified by its PID and its start time. That time must not change when the wall clock
is set, or a service would look like a different process after a clock jump:

- Linux counts a start in ticks since boot. We compare the time since boot, and the boot.

- macOS records the wall clock when a process starts, and never changes it. psutil adds later clock
  changes to it; we subtract them again (decision 0010).
"""

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_TOLERANCE_S = 0.005  # half a Linux tick, for rounding; macOS counts microseconds
_EXEC_S = 0.1  # a kernel thread never shows arguments
_EXEC_LOOK_S = 0.001
_FEW_WORDS = 2  # a command of so few words says too little of what a wrapper started
_BOOT_TIME_AT_IMPORT = psutil.boot_time()


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process, distinguished from every other process that had or will have its PID.

    Attributes:
        pid: Its process ID, also the ID of the session and group that it leads.
        start_time: When it started, in seconds since the epoch as the clock stood then.
        boot_time: When the machine was booted, by the same clock.
        boot_id: The kernel's name for that boot; empty if there is none (macOS).
    """

    pid: int
    start_time: float
    boot_time: float
    boot_id: str

    def same_process(self, other: "ProcessIdentity") -> bool:
        """Whether both are the same process, whatever the clock did in between."""
        if self.pid != other.pid or self.boot_id != other.boot_id:
            return False
        if self.boot_id:
            mine = self.start_time - self.boot_time
            theirs = other.start_time - other.boot_time
        else:
            mine, theirs = self.start_time, other.start_time
        return abs(mine - theirs) < _TOLERANCE_S


def identify(pid: int) -> ProcessIdentity | None:
    """The process that has this PID now; None if there is none, or only a zombie."""
    if pid <= 0:
        return None
    return _identify_linux(pid) if sys.platform == "linux" else _identify_by_psutil(pid)


def is_alive(identity: ProcessIdentity) -> bool:
    """Whether exactly this process is still alive; a zombie isn't."""
    current = identify(identity.pid)
    return current is not None and current.same_process(identity)


def reap(pid: int) -> int | None:
    """The exit status of our child if it has ended, negative for a signal; else None.

    Each status is returned once. Without this call, a dead child stays a zombie as long as we live.
    """
    try:
        reaped, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return None
    return os.waitstatus_to_exitcode(status) if reaped else None


def runs_command(pid: int, command: tuple[str, ...]) -> bool:
    """Whether a process shows this command's arguments, the only clue if there is no record.

    Arguments are compared from the end, because a script's interpreter comes before them, and a
    wrapper that replaced itself with another program is gone. During `exec` a process shows no
    arguments for a moment, so it is looked at again.
    """
    give_up_at = time.monotonic() + _EXEC_S
    try:
        while not (shown := tuple(psutil.Process(pid).cmdline())):
            if time.monotonic() > give_up_at:
                return False
            time.sleep(_EXEC_LOOK_S)
    except psutil.Error:
        return False
    return same_command(shown, command)


def same_command(shown: tuple[str, ...], command: tuple[str, ...]) -> bool:
    """Whether a process that shows `shown` can have been started with `command`."""
    if len(command) == 1:
        return shown[-1:] == command
    if len(shown) >= len(command):
        return shown[-len(command) + 1 :] == command[1:]
    return len(shown) > _FEW_WORDS and command[-len(shown) + 1 :] == shown[1:]


def _identify_linux(pid: int) -> ProcessIdentity | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the name before may hold spaces and brackets
    state, start_ticks = fields[0], int(fields[19])
    if state in "ZX":
        return None
    boot_time = psutil.boot_time()
    return ProcessIdentity(
        pid=pid,
        start_time=boot_time + start_ticks / os.sysconf("SC_CLK_TCK"),
        boot_time=boot_time,
        boot_id=Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
    )


def _identify_by_psutil(pid: int) -> ProcessIdentity | None:
    boot_time = psutil.boot_time()
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        started = process.create_time() - (boot_time - _BOOT_TIME_AT_IMPORT)
        return ProcessIdentity(pid=pid, start_time=started, boot_time=boot_time, boot_id="")
    return None


def secret_within(pid: int, variable: str) -> str:
    """The value of a variable with which one of our processes was started; "" if it has none."""
    try:
        return psutil.Process(pid).environ().get(variable, "") if variable else ""
    except (psutil.Error, OSError):
        return ""
