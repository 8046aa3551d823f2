"""The programs of macOS that decide whether a service comes back, put on PATH of a Linux machine.

`FakeMac.make(folder)` lays down a `bin` folder of real programs that share one state file, which
stands for the Mac: `launchctl`, `plutil`, `id`, `stat`, `sw_vers`, `pmset`, `fdesetup`, `defaults`,
`diskutil`, `caffeinate`, `sudo`. A test changes the Mac by `mac.change(filevault=True)`, and runs a
program under test with `mac.environment()`.
"""

import contextlib
import json
import os
import plistlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.parsers.expat import ExpatError

from stack_testkit.fake_launchd import FakeLaunchd, Processes, Reply, State, initial_state

if TYPE_CHECKING:
    from mlx_launchd import Completed

_PROGRAMS = (
    "caffeinate",
    "defaults",
    "diskutil",
    "fdesetup",
    "id",
    "launchctl",
    "plutil",
    "pmset",
    "stat",
    "sudo",
    "sw_vers",
)


@dataclass(frozen=True, slots=True)
class FakeMac:
    """A Mac in a folder.

    Attributes:
        folder: Where its state and its programs are.
        launchd: Its launchd.
    """

    folder: Path
    launchd: FakeLaunchd

    @classmethod
    def make(
        cls,
        folder: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        processes: Processes | None = None,
        **changes: Any,
    ) -> "FakeMac":
        """Make a Mac on which one user is logged in, FileVault off, restarting after a failure.

        With processes of the caller's own there are no programs: `run` answers instead.
        """
        folder.mkdir(parents=True)
        if processes is None:
            _write_programs(folder)
        (folder / "state.json").write_text(json.dumps(initial_state()))
        mac = cls(folder, FakeLaunchd(folder, now=now, processes=processes))
        mac.change(**changes)
        return mac

    def change(self, **changes: Any) -> None:
        """Set entries of the state, or of the machine where the state has none of that name."""
        with self.launchd.state() as state:
            for name, value in changes.items():
                (state if name in state else state["machine"])[name] = value

    def starts_by_itself(self) -> bool:
        """Tell whether this Mac is on again once its power returns; a battery never let it go."""
        with self.launchd.state() as state:
            machine = state["machine"]
        return bool(machine.get("autorestart", 1) or machine.get("battery"))

    def log_in(self, agents: Path) -> None:
        """Log the user in at the console, with real processes: loads that user's agents."""
        with self.launchd.state() as state:
            uid = state["uid"]
            state["gui"], state["user_domains"], state["console_uid"] = [uid], [uid], uid
        program = self.folder / "bin" / "launchctl"
        for plist in sorted(agents.glob("*.plist")):
            subprocess.run((program, "bootstrap", f"gui/{uid}", plist), check=True)

    def is_kept_awake(self) -> bool:
        """Tell whether a `caffeinate` of this Mac's is alive."""
        with self.launchd.state() as state:
            return any(_is_alive(pid) for pid in state["machine"].get("assertions", []))

    def turn_off(self, *, deadline_s: float = 10.0) -> None:
        """End every real process that this Mac's launchd started, and its background process."""
        with self.launchd.state() as state:
            daemon_pid = state["daemon_pid"]
        if daemon_pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon_pid, signal.SIGTERM)
        deadline = time.monotonic() + deadline_s
        while _is_alive(daemon_pid) and time.monotonic() < deadline:
            time.sleep(0.02)

    def environment(self, **more: str) -> dict[str, str]:
        """Give an environment whose PATH begins with this Mac's programs."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, **more}

    def run(self, command: Sequence[str], /, stdin: str | None = None) -> "Completed":
        """Answer a command without a process, for tests whose clock is not the machine's."""
        from mlx_launchd import Completed

        name = Path(command[0]).name
        reply = answer(self, name, list(command[1:]), as_root=False, stdin=stdin)
        return Completed(reply.returncode, reply.stdout, reply.stderr)


def _write_programs(folder: Path) -> None:
    binaries = folder / "bin"
    binaries.mkdir()
    for name in _PROGRAMS:
        program = binaries / name
        words = [sys.executable, "-m", "stack_testkit.fake_mac", str(folder), name]
        program.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        program.chmod(0o755)


def answer(
    mac: FakeMac, name: str, arguments: list[str], *, as_root: bool, stdin: str | None = None
) -> Reply:
    """Answer one command line as the program of that name; `stdin` is what it reads."""
    if name == "launchctl":
        return mac.launchd.launchctl(arguments, uid=0 if as_root else None)
    if name == "sudo":
        return _sudo(mac, arguments, stdin)
    if name in {"tee", "chmod", "rm"} and as_root:
        return _as_root(mac, name, arguments, stdin)
    if name == "plutil":
        return _plutil(arguments)
    with mac.launchd.state() as state:
        return _SMALL[name](state, arguments)


def _sudo(mac: FakeMac, arguments: list[str], stdin: str | None) -> Reply:
    with mac.launchd.state() as state:
        allowed = state["machine"].get("sudo", True)
    if arguments and arguments[0] == "-n":
        del arguments[0]
    if not allowed:
        return Reply(1, "", "sudo: a password is required\n")
    if arguments == ["-v"]:
        return Reply(0)
    name, rest = Path(arguments[0]).name, arguments[1:]
    return answer(mac, name, rest, as_root=True, stdin=stdin)


def _as_root(mac: FakeMac, name: str, arguments: list[str], stdin: str | None) -> Reply:
    """Write or remove a file, remembering that root owns it; the test may not be root."""
    target = Path(arguments[-1])
    if name == "rm":
        target.unlink(missing_ok=True)
        with mac.launchd.state() as state:
            state["root_owned"] = [p for p in state["root_owned"] if p != str(target)]
        return Reply(0)
    if not target.parent.is_dir():
        return Reply(1, "", f"{name}: {target}: No such file or directory\n")
    if name == "chmod":
        target.chmod(int(arguments[0], 8))
        return Reply(0)
    text = sys.stdin.read() if stdin is None else stdin
    is_new = not target.exists()
    target.write_text(text)
    if is_new:
        target.chmod(0o600)  # as the strictest umask leaves it
        with mac.launchd.state() as state:
            state["root_owned"].append(str(target))
    return Reply(0, text)


def _plutil(arguments: list[str]) -> Reply:
    path = Path(arguments[-1])
    try:
        plistlib.loads(path.read_bytes())
    except FileNotFoundError:
        return Reply(1, "", f"{path}: file does not exist or is not readable\n")
    except (ValueError, ExpatError) as error:
        return Reply(1, f"{path}: {error}\n")
    return Reply(0, f"{path}: OK\n")


def _id(state: State, arguments: list[str]) -> Reply:
    return Reply(0, f"{state['user'] if 'n' in arguments[0] else state['uid']}\n")


def _stat(state: State, arguments: list[str]) -> Reply:
    if arguments[:2] != ["-f", "%u"] or arguments[2:] != ["/dev/console"]:
        return Reply(1, "", "stat: this stand-in knows `stat -f %u /dev/console` only\n")
    return Reply(0, f"{state['console_uid']}\n")


def _sw_vers(state: State, _arguments: list[str]) -> Reply:
    return Reply(0, f"{state['macos']}\n")


def _fdesetup(state: State, _arguments: list[str]) -> Reply:
    return Reply(0, f"FileVault is {'On' if state['machine'].get('filevault') else 'Off'}.\n")


def _defaults(state: State, arguments: list[str]) -> Reply:
    user = state["machine"].get("auto_login_user")
    if user is None:
        pair = f"({arguments[1]}, {arguments[-1]})"
        return Reply(1, "", f"The domain/default pair of {pair} does not exist\n")
    return Reply(0, f"{user}\n")


def _diskutil(state: State, arguments: list[str]) -> Reply:
    """Tell of a volume what the machine's `volumes` say of it, by its mount point."""
    volume = arguments[-1]
    facts = state["machine"].get("volumes", {}).get(volume)
    if arguments[:-1] != ["info", "-plist"] or facts is None:
        message = f"Could not find disk: {volume}"
        return Reply(1, plistlib.dumps({"Error": True, "ErrorMessage": message}).decode())
    return Reply(0, plistlib.dumps({"MountPoint": volume, **facts}).decode())


def _pmset(state: State, arguments: list[str]) -> Reply:
    machine = state["machine"]
    if arguments[:1] == ["-a"]:
        machine[arguments[1]] = int(arguments[2])
        return Reply(0)
    if arguments == ["-g", "batt"]:
        battery = "\n -InternalBattery-0 (id=31)\t88%; charged; 0:00 remaining present: true"
        return Reply(0, f"Now drawing from 'AC Power'{battery if machine.get('battery') else ''}\n")
    settings = {
        "Sleep On Power Button": 1,
        "autorestart": machine.get("autorestart", 1),
        "displaysleep": 10,
        "womp": 1,
        "sleep": machine.get("sleep", 0),
        "disksleep": 10,
    }
    rows = "".join(f" {name:<20} {value}\n" for name, value in settings.items())
    heading = "AC Power:" if arguments == ["-g", "custom"] else "Currently in use:"
    return Reply(0, f"{heading}\n{rows}")


_SMALL: Mapping[str, Callable[[State, list[str]], Reply]] = {
    "id": _id,
    "stat": _stat,
    "sw_vers": _sw_vers,
    "fdesetup": _fdesetup,
    "defaults": _defaults,
    "diskutil": _diskutil,
    "pmset": _pmset,
}


def _caffeinate(mac: FakeMac, arguments: list[str]) -> Reply:
    """Hold an assertion, which is to be alive, for as long as the process after `-w` lives."""
    watched = int(arguments[arguments.index("-w") + 1])
    with mac.launchd.state() as state:
        state["machine"].setdefault("assertions", []).append(os.getpid())
    while _is_alive(watched):
        time.sleep(0.05)
    return Reply(0)


def _is_alive(pid: int) -> bool:
    import psutil  # a tenth of a second that most of these programs need not spend

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _start_daemon(mac: FakeMac) -> None:
    with mac.launchd.state() as state:
        if state["daemon_pid"] is not None and _is_alive(state["daemon_pid"]):
            return
        daemon = subprocess.Popen(
            (sys.executable, "-m", "stack_testkit.fake_launchd_daemon", str(mac.folder)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(mac.folder / "daemon.log").open("ab"),
            start_new_session=True,
        )
        state["daemon_pid"] = daemon.pid


def main() -> int:
    """Be the program that the first two words name."""
    folder, name, *arguments = sys.argv[1:]
    mac = FakeMac(Path(folder), FakeLaunchd(Path(folder), now=time.monotonic))
    if name == "caffeinate":
        reply = _caffeinate(mac, arguments)
    else:
        reply = answer(mac, name, arguments, as_root=False)
    if "bootstrap" in arguments and reply.returncode == 0:
        _start_daemon(mac)
    sys.stdout.write(reply.stdout)
    sys.stderr.write(reply.stderr)
    return reply.returncode


if __name__ == "__main__":
    sys.exit(main())
