"""A job on a Mac of stand-ins, done to in any order, and what must be true after each step."""

import plistlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mlx_launchd import (
    Domain,
    DomainKind,
    Installer,
    Jobs,
    LaunchAgent,
    Launchctl,
    LaunchctlError,
    LaunchdError,
    UserPlistFiles,
)
from stack_testkit.fake_mac import FakeMac
from stack_testkit.simulated_processes import Behaviour, SimulatedProcesses, VirtualClock

LABEL = "org.quill.indexd"
GUI = Domain(DomainKind.GUI, 501)
AGENT = LaunchAgent(
    LABEL,
    ("/opt/quill/bin/indexd", "--version=1"),
    run_at_load=True,
    keep_alive=True,
    exit_timeout_s=20,
)


@dataclass
class World:
    """A Mac whose clock stands still between two operations.

    Attributes:
        folder: A folder for it alone.
        clock: Its time.
        tally: How often each operation ended as asked, or with which error.
    """

    folder: Path
    clock: VirtualClock = field(default_factory=VirtualClock)
    tally: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        """Make the Mac."""
        self.processes = SimulatedProcesses(self.clock)
        self.mac = FakeMac.make(
            self.folder / "mac", now=self.clock.monotonic, processes=self.processes
        )
        self.agents = self.folder / "LaunchAgents"
        self.agents.mkdir()
        jobs = Jobs(Launchctl(self.mac.run), clock=self.clock)
        self.installer = Installer(jobs, UserPlistFiles(), self.agents, GUI)

    @property
    def plist(self) -> Path:
        """Give the job's file."""
        return self.agents / f"{LABEL}.plist"

    def jobs(self) -> dict[str, Any]:
        """Give the loaded jobs of this label by target."""
        with self.mac.launchd.state() as state:
            return {t: job for t, job in state["jobs"].items() if job["label"] == LABEL}

    def is_logged_in(self) -> bool:
        """Tell whether there is a login session."""
        with self.mac.launchd.state() as state:
            return bool(state["gui"])

    def check(self) -> None:
        """A loaded job has its plist, and a plist its job, as far as there is a session at all."""
        if self.is_logged_in():
            assert bool(self.jobs()) == self.plist.exists(), (self.jobs(), self.plist.exists())
            for job in self.jobs().values():
                assert job["entries"] == plistlib.loads(self.plist.read_bytes()), "another plist"
        # What runs belongs to a loaded job; nothing is left behind.
        assert self.processes.alive == {
            job["pid"] for job in self.jobs().values() if job["pid"] is not None
        }

    def do(self, name: str, *arguments: Any) -> None:
        """Do one operation by its name, and check."""
        if name == "change":
            self.mac.change(**arguments[0])
        else:
            getattr(self, name)(*arguments)
        self.check()

    def install(self, version: int) -> None:
        """Install this version; what launchd has then is what was asked for."""
        agent = replace(
            AGENT, program_arguments=(AGENT.program_arguments[0], f"--version={version}")
        )
        installed = _attempt(lambda: self.installer.install(agent), self.tally, "install")
        if installed is None:
            return
        (job,) = self.jobs().values()
        assert job["entries"] == plistlib.loads(self.plist.read_bytes())
        assert job["entries"]["ProgramArguments"][1] == f"--version={version}"
        assert job["domain"] == "gui/501"
        assert job["pid"] == installed.loaded.job.pid
        assert job["pid"] in self.processes.alive

    def uninstall(self) -> None:
        """Uninstall; nothing is left then."""
        if _attempt(lambda: self.installer.uninstall(LABEL), self.tally, "uninstall") is not None:
            assert not self.jobs()
            assert not self.plist.exists()

    def crash(self) -> None:
        """Kill every process."""
        for pid in self.processes.alive:
            self.processes.kill(pid)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.clock.sleep(seconds)
        self.jobs()

    def program_becomes(self, behaviour: Behaviour) -> None:
        """Make the program behave so from its next start on."""
        self.processes.behaviours[AGENT.program_arguments[0]] = behaviour

    def log_out(self) -> None:
        """Cut the power."""
        self.mac.launchd.power_cut()

    def log_in(self) -> None:
        """Log in again, which loads the agent where launchd takes it."""
        if not self.is_logged_in():
            self.mac.launchd.log_in(self.agents)
            if not self.jobs():
                # launchd was told not to load it: its user sees a plist that does nothing, and
                # the next install or uninstall tidies up.
                self.plist.unlink(missing_ok=True)

    def loaded_elsewhere(self) -> None:
        """Another tool has put the job into the user's own domain."""
        if self.plist.exists() and not self.jobs() and self.is_logged_in():
            self.mac.launchd.launchctl(["bootstrap", "user/501", str(self.plist)])


def _attempt[T](action: Callable[[], T], tally: Counter[str], name: str) -> T | None:
    """Give what the action gives, or None where it fails with an error that says enough."""
    try:
        result = action()
    except LaunchctlError as error:
        complete = bool(error.message and error.hint and error.command)
        tally[f"{name}: {type(error).__name__}"] += 1
    except LaunchdError as error:
        complete = bool(error.message)
        tally[f"{name}: {type(error).__name__}"] += 1
    else:
        tally[f"{name}: done"] += 1
        return result
    assert complete, "an error says what happened and what to do"
    return None
