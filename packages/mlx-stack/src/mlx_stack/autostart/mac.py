"""The Mac that `install` works on: its launchd, its plist folders, its user (decision 0068)."""

import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mlx_launchd import (
    SYSTEM,
    Clock,
    CommandRunner,
    Completed,
    Domain,
    DomainKind,
    InputRunner,
    Installer,
    Jobs,
    JobTimeouts,
    Launchctl,
    RootPlistFiles,
    Session,
    SubprocessRun,
    SystemClock,
    UserPlistFiles,
    detect_session,
)
from mlx_launchd.launchctl import PROGRAM
from mlx_stack.child_environment import inherited_environment
from mlx_stack.errors import MissingError, StackError

_PASSWORD_TIMEOUT_S = 300.0
_START_S = 30.0
_STEADY_S = 3.0
"""Longer than the watchdog takes to find out that it cannot watch."""
AS_DAEMON = "mlx-stack install --system"
SYSTEMD_PAGE = "docs/how-to/always-on-linux.md"

type JobKind = Literal["agent", "daemon"]
type RootStepHandler = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Mac:
    """What installing needs of the machine; a test replaces any part of it.

    Attributes:
        run_privileged: Runs sudo, which may ask for a password at the terminal.
        sudo_program: Its absolute path, so that no other program on PATH gets the password.
        has_terminal: Whether a person is there to type a password.
    """

    run: CommandRunner
    run_privileged: InputRunner
    sudo_program: str
    environment: Mapping[str, str]
    user_home: Path
    daemons: Path
    interpreter: Path
    has_terminal: bool
    clock: Clock = field(default_factory=SystemClock)
    timeouts: JobTimeouts = field(default_factory=JobTimeouts)

    @property
    def agents(self) -> Path:
        """The folder of the user's LaunchAgents."""
        return self.user_home / "Library" / "LaunchAgents"

    @property
    def sudo(self) -> tuple[str, ...]:
        """The prefix of a command that needs root; without a terminal, it never asks."""
        return (self.sudo_program,) if self.has_terminal else (self.sudo_program, "-n")

    def session(self) -> Session:
        """Who runs this, and from where."""
        return detect_session(self.run, self.environment)

    def agent_installer(self, uid: int) -> Installer:
        """Installs LaunchAgents into a user's login session."""
        jobs = Jobs(Launchctl(self.run), self.clock, self.timeouts, f"run `{AS_DAEMON}`")
        domain = Domain(DomainKind.GUI, uid)
        return Installer(jobs, UserPlistFiles(), self.agents, domain, self.run)

    def daemon_installer(self) -> Installer:
        """Installs LaunchDaemons, with sudo for every change."""
        jobs = Jobs(Launchctl(self._run_any, privilege=self.sudo), self.clock, self.timeouts)
        return Installer(jobs, self.daemon_files, self.daemons, SYSTEM, self.run)

    @property
    def daemon_files(self) -> RootPlistFiles:
        """Writes the plists of LaunchDaemons, which only root may."""
        return RootPlistFiles(self.run_privileged, self.sudo)

    def _run_any(self, command: Sequence[str], /) -> Completed:
        is_privileged = command[0] == self.sudo_program
        return (self.run_privileged if is_privileged else self.run)(command)

    def installation_steps(self, label: str, *, loaded: bool) -> list[tuple[str, ...]]:
        """The commands that, as root, install the daemon or replace a loaded one."""
        plist = self.daemons / f"{label}.plist"
        bootout = (*self.sudo, PROGRAM, "bootout", f"system/{label}")
        return [
            *self.daemon_files.write_commands(plist),
            *([bootout] if loaded else []),
            (*self.sudo, PROGRAM, "enable", f"system/{label}"),
            (*self.sudo, PROGRAM, "bootstrap", "system", str(plist)),
        ]

    def removal_steps(self, label: str) -> list[tuple[str, ...]]:
        """The commands that, as root, remove the daemon."""
        plist = self.daemons / f"{label}.plist"
        return [
            (*self.sudo, PROGRAM, "bootout", f"system/{label}"),
            self.daemon_files.remove_command(plist),
        ]


def this_mac(environment: Mapping[str, str] = os.environ) -> Mac:
    """The machine that this process runs on, if it has launchd (`launchctl` on PATH).

    Raises:
        MissingError: When there is no `launchctl`; the hint says what to do instead.
    """
    if shutil.which("launchctl", path=environment.get("PATH")) is None:
        raise MissingError(
            "The watchdog runs under launchd, which only macOS has.",
            hint="On a Mac this writes ~/Library/LaunchAgents/io.github.mlx-stack.watch.plist, "
            "which runs `mlx-stack watch --up` at login, or with --system a LaunchDaemon that "
            f"needs no login. Here, a systemd user unit does the same: {SYSTEMD_PAGE}.",
        )
    # who sits at the terminal, and how sudo may ask
    own = ("TERM", "SUDO_ASKPASS", "DISPLAY", "SSH_CONNECTION", "SSH_TTY")
    seen = inherited_environment(environment)
    seen |= {name: environment[name] for name in own if name in environment}
    return Mac(
        run=SubprocessRun(environment=seen),
        run_privileged=SubprocessRun(_PASSWORD_TIMEOUT_S, seen),
        # elsewhere, whatever calls itself launchctl brings a sudo of its own
        sudo_program="/usr/bin/sudo" if sys.platform == "darwin" else "sudo",
        environment=environment,
        user_home=Path.home(),
        daemons=Path("/Library/LaunchDaemons"),
        interpreter=Path(sys.executable),
        has_terminal=sys.stdin.isatty(),
        timeouts=JobTimeouts(start_s=_START_S, steady_s=_STEADY_S),
    )


def is_present(installer: Installer, label: str) -> bool:
    """Whether the job's plist is there, or the job is loaded."""
    return (
        installer.files.read(installer.plist_path(label)) is not None
        or installer.jobs.find(label, installer.domain) is not None
    )


def ask_for_rights(mac: Mac, on_step: RootStepHandler, steps: list[tuple[str, ...]]) -> None:
    """Report what root is needed for, and get the password once, before anything is changed.

    Raises:
        StackError: When sudo grants no rights.
    """
    for step in steps:
        on_step(shlex.join(word for word in step if word != "-n"))
    done = mac.run_privileged((*mac.sudo, "-v"))
    if done.returncode != 0:
        raise StackError(
            f"sudo granted no rights ({done.stderr.strip() or 'without a reason'}).",
            hint="Run this in a terminal, where sudo can ask for your password; over SSH, `ssh -t` "
            "gives you one.",
        )
