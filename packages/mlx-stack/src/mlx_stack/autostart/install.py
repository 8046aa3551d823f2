"""Put the watchdog under launchd, so that it runs after every login or boot (decision 0067)."""

from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from mlx_launchd import (
    BootFinding,
    DomainKind,
    Installer,
    LaunchdError,
    Session,
    boot_outlook,
    choose_domain,
    detect_boot_facts,
    to_plist,
)
from mlx_procsup import StateDirs, locate
from mlx_stack.autostart.job import require_lasting, watch_job
from mlx_stack.autostart.mac import (
    AS_DAEMON,
    JobKind,
    Mac,
    RootStepHandler,
    ask_for_rights,
    is_present,
)
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
        kind: An agent of the login session, or a daemon of the machine.
        label: The job's label.
        plist: Its file.
        domain: launchctl's name of the domain.
        reason: Why that domain.
        pid: The watchdog's process.
        comes_back: Whether the stack returns by itself after a power cut; None where unknown.
        findings: What that depends on.
    """

    outcome: str
    kind: JobKind
    label: str
    plist: str
    domain: str
    reason: str
    pid: int | None
    comes_back: bool | None
    findings: tuple[BootFinding, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return asdict(self)


def install(
    home: Home, mac: Mac, *, system: bool = False, on_step: RootStepHandler = lambda _: None
) -> InstallReport:
    """Install the watchdog as an agent or, with `system`, as a daemon, or bring it up to date.

    The other kind is removed first, since two watchdogs would be one too many; where the new one is
    refused, it is put back.

    Args:
        home: Where the stack is.
        mac: The machine.
        system: A LaunchDaemon, which starts before any login and takes `sudo`.
        on_step: Told of each command that needs root, before it is run.

    Raises:
        StackError: No stack is defined, the engines are not installed, nobody is logged in,
            mlx-stack is not installed to stay, or another watchdog runs.
        LaunchdError: launchd does not take the job.
    """
    session = mac.session()
    installation = replace(mac.installation(session), interpreter=require_lasting(mac.interpreter))
    _require_session(session, system=system)
    assemble(OpenStack(home), master_key="")  # what the watchdog will need is there
    choice = choose_domain(session, system=system)
    agent, daemon = mac.agent_installer(session.uid), mac.daemon_installer(home)
    installer, other = (daemon, agent) if system else (agent, daemon)
    job = watch_job(home, installation, system=system)
    _require_no_other_watchdog(home.state_dirs, (agent, daemon), job.label)
    home.create()
    home.logs.mkdir(exist_ok=True)
    if system:
        mac.daemon_files(home).stage(daemon.plist_path(job.label), to_plist(job))
        loaded = daemon.jobs.find(job.label, daemon.domain) is not None
        ask_for_rights(mac, on_step, mac.installation_steps(home, job.label, loaded=loaded))
    elif is_present(daemon, job.label):
        ask_for_rights(mac, on_step, mac.removal_steps(home, job.label))
    replaced = other.uninstall(job.label)
    try:
        installed = installer.install(job)
    except LaunchdError:
        if replaced and not is_present(installer, job.label):
            with suppress(LaunchdError):  # the first failure is what the user hears
                other.install(watch_job(home, installation, system=not system))
        raise
    outlook = boot_outlook(
        detect_boot_facts(mac.run),
        domain=installed.loaded.domain,
        user=session.user,
        as_daemon=AS_DAEMON,
    )
    return InstallReport(
        outcome=installed.outcome.value,
        kind="daemon" if system else "agent",
        label=job.label,
        plist=str(installed.plist),
        domain=choice.domain.target,
        reason=choice.reason,
        pid=installed.loaded.job.pid,
        comes_back=outlook.comes_back,
        findings=outlook.findings,
    )


def _require_session(session: Session, *, system: bool) -> None:
    if session.uid == 0:
        raise UsageError(
            "mlx-stack is installed for a user, and this is root.",
            hint="Run it as that user, without sudo; `--system` asks for sudo where it needs it.",
        )
    choice = choose_domain(session, system=system)
    if choice.domain.kind is DomainKind.USER:
        raise StackError(
            f"A LaunchAgent would not run here: {choice.reason}.",
            hint="`mlx-stack install --system` needs no login. Or log in at the screen, or over "
            "screen sharing, and run this again.",
        )


def _require_no_other_watchdog(
    dirs: StateDirs, installers: tuple[Installer, ...], label: str
) -> None:
    """Return unless a watchdog runs that launchd did not start: two would be one too many."""
    running = locate(dirs, WATCHDOG)
    if running.own is None:
        return
    pid = running.own.pid
    found = [installer.jobs.find(label, installer.domain) for installer in installers]
    if pid not in {one.job.pid for one in found if one is not None}:
        raise StackError(
            f"A watchdog that launchd did not start runs already (PID {pid}).",
            hint=f"Stop it with `kill {pid}`, then run this again. The services stay as they are.",
        )
