"""Put the watchdog under launchd, or remove it from there (decision 0067)."""

from contextlib import suppress
from dataclasses import dataclass

from mlx_launchd import (
    DomainChoice,
    DomainKind,
    Installer,
    JobOutcome,
    LaunchdError,
    Session,
    choose_domain,
)
from mlx_procsup import StateDirs, locate
from mlx_stack.autostart.job import job_label, require_lasting, watch_job
from mlx_stack.autostart.mac import JobKind, Mac, RootStepHandler, ask_for_rights, is_present
from mlx_stack.autostart.status import InstallStatus, read_install_status
from mlx_stack.errors import StackError, UsageError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.service import WATCHDOG


@dataclass(frozen=True, slots=True)
class InstallReport:
    """What `install` did.

    Attributes:
        outcome: `installed`, `updated` or `unchanged`.
    """

    outcome: JobOutcome
    reason: str
    status: InstallStatus

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        status = self.status.to_document()
        names = ("kind", "label", "plist", "domain", "pid", "comes_back", "findings")
        fields = {name: status[name] for name in names}
        return {"outcome": self.outcome, "reason": self.reason, **fields}


@dataclass(frozen=True, slots=True)
class Uninstalled:
    """What was under launchd and is gone."""

    removed: tuple[JobKind, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        outcome = "uninstalled" if self.removed else "not-installed"
        return {"outcome": outcome, "removed": list(self.removed)}


def install(
    opened: OpenStack,
    mac: Mac,
    *,
    system: bool = False,
    on_step: RootStepHandler = lambda _: None,
) -> InstallReport:
    """Install the watchdog as an agent or, with `system`, as a daemon, or bring it up to date.

    The other kind is removed first, since there must be only one watchdog; if launchd refuses the
    new one, it is put back.

    Args:
        system: A LaunchDaemon, which starts before any login and needs `sudo`.
        on_step: Called with each command that needs root, before it runs.

    Raises:
        StackError: When no stack is defined, the engines are not installed, no user is logged in,
            mlx-stack is not installed permanently, or another watchdog runs.
        LaunchdError: When launchd refuses the job.
    """
    home, session = opened.home, mac.session()
    interpreter = require_lasting(mac.interpreter, mac.run)
    choice = _choose_domain(session, system=system)
    assemble(opened, gateway_key="")  # what the watchdog will need is there
    agent, daemon = mac.agent_installer(session.uid), mac.daemon_installer()
    installer, other = (daemon, agent) if system else (agent, daemon)
    job, other_job = (
        watch_job(home, interpreter, session.user, mac.user_home, system=kind)
        for kind in (system, not system)
    )
    _require_no_other_watchdog(home.state_dirs, (agent, daemon), job.label)
    home.create()
    home.logs.mkdir(mode=0o700, exist_ok=True)
    if system:
        loaded = daemon.jobs.find(job.label, daemon.domain) is not None
        ask_for_rights(mac, on_step, mac.installation_steps(job.label, loaded=loaded))
    elif is_present(daemon, job.label):
        ask_for_rights(mac, on_step, mac.removal_steps(job.label))
    replaced = other.uninstall(job.label)
    try:
        outcome = installer.install(job).outcome
    except LaunchdError:
        if replaced and not is_present(installer, job.label):
            with suppress(LaunchdError):  # the first failure is what the user sees
                other.install(other_job)
        raise
    return InstallReport(outcome, choice.reason, read_install_status(home, mac))


def uninstall(
    home: Home, mac: Mac, *, system: bool = False, on_step: RootStepHandler = lambda _: None
) -> Uninstalled:
    """Remove the watchdog from launchd, however it was installed; the services stay as they are.

    Args:
        system: Only the LaunchDaemon; an agent stays.

    Raises:
        LaunchdError: When launchd doesn't let the job go.
        StackError: When sudo grants no rights.
    """
    label = job_label(home, mac.user_home)
    removed: list[JobKind] = []
    if not system and mac.agent_installer(mac.session().uid).uninstall(label):
        removed.append("agent")
    daemon = mac.daemon_installer()
    if is_present(daemon, label):
        ask_for_rights(mac, on_step, mac.removal_steps(label))
        daemon.uninstall(label)
        removed.append("daemon")
    return Uninstalled(tuple(removed))


def _choose_domain(session: Session, *, system: bool) -> DomainChoice:
    if session.uid == 0:
        raise UsageError(
            "mlx-stack is installed for a user, and this is root.",
            hint="Run it as that user, without sudo; `--system` asks for sudo when it needs it.",
        )
    choice = choose_domain(session, system=system)
    if choice.domain.kind is DomainKind.USER:
        raise StackError(
            f"A LaunchAgent would not run here: {choice.reason}.",
            hint="`mlx-stack install --system` needs no login. Or log in at the screen, or over "
            "screen sharing, and run this again.",
        )
    return choice


def _require_no_other_watchdog(
    dirs: StateDirs, installers: tuple[Installer, ...], label: str
) -> None:
    """Raise if a watchdog runs that launchd did not start: there must be only one."""
    running = locate(dirs, WATCHDOG).own
    if running is None:
        return
    found = [installer.jobs.find(label, installer.domain) for installer in installers]
    if running.pid not in {one.job.pid for one in found if one is not None}:
        raise StackError(
            f"A watchdog that launchd did not start is already running (PID {running.pid}).",
            hint=f"Stop it with `kill {running.pid}`, then run this again. "
            "The services keep running.",
        )
