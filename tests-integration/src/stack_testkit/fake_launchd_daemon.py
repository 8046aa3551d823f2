"""The part of the stand-in launchd that owns real processes: starts, reaps and ends them.

It is started by the first `launchctl bootstrap`, and ends when the last job has gone. Usage:
`python -m stack_testkit.fake_launchd_daemon STATE_FOLDER`.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from stack_testkit.fake_launchd import FakeLaunchd

_TICK_S = 0.03
_DEFAULT_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"


class RealProcesses:
    """Programs as launchd starts them: own process group, bare environment, no standard input."""

    def __init__(self, base_environment: Mapping[str, str], programs: Path) -> None:
        """Take what a user's session gives every job, and the folder that stands for /usr/bin."""
        self._base = dict(base_environment)
        self._programs = programs
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, job: dict[str, Any]) -> int:
        """Start the job's program and give its pid."""
        entries = job["entries"]
        environment = {"PATH": _DEFAULT_PATH} | self._base
        environment |= entries.get("EnvironmentVariables", {})
        environment["PATH"] = f"{self._programs}:{environment['PATH']}"
        environment["XPC_SERVICE_NAME"] = job["label"]
        with contextlib.ExitStack() as files:
            streams = [
                files.enter_context(Path(entries[key]).open("ab"))
                if key in entries
                else subprocess.DEVNULL
                for key in ("StandardOutPath", "StandardErrorPath")
            ]
            child = subprocess.Popen(
                entries["ProgramArguments"],
                executable=entries.get("Program"),
                stdin=subprocess.DEVNULL,
                stdout=streams[0],
                stderr=streams[1],
                cwd=entries.get("WorkingDirectory", "/"),
                env=environment,
                start_new_session=True,
            )
        self._children[child.pid] = child
        return child.pid

    def ended(self, pid: int) -> tuple[str, int] | None:
        """Give `("exit", code)` or `("signal", number)` once it has ended."""
        code = self._children[pid].poll()
        if code is None:
            return None
        return ("exit", code) if code >= 0 else ("signal", -code)

    def terminate(self, pid: int) -> None:
        """Send SIGTERM."""
        self._children[pid].terminate()

    def kill(self, pid: int) -> None:
        """Send SIGKILL to the whole process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def power_off(self) -> None:
        """End everything that was started, at once."""
        for pid, child in self._children.items():
            if child.poll() is None:
                self.kill(pid)
                child.wait()


def _leave(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    """Settle the jobs until none is left."""
    folder = Path(sys.argv[1])
    home = {"HOME": os.environ["HOME"]} if "HOME" in os.environ else {}
    processes = RealProcesses(home, folder / "bin")
    fake = FakeLaunchd(folder, now=time.monotonic, processes=processes)
    signal.signal(signal.SIGTERM, _leave)
    try:
        while True:
            with fake.state() as state:
                if not state["jobs"] and not state["ghosts"]:
                    state["daemon_pid"] = None
                    return
            time.sleep(_TICK_S)
    finally:
        processes.power_off()


if __name__ == "__main__":
    main()
