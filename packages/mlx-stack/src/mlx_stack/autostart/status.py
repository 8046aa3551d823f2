"""What is installed under launchd, whether it runs, and whether it comes back after a power cut."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from mlx_launchd import (
    BootFinding,
    BootOutlook,
    BootVerdict,
    Installer,
    PrintedJob,
    boot_outlook,
    detect_boot_facts,
    read_entries,
)
from mlx_stack.autostart.job import job_label
from mlx_stack.autostart.mac import AS_DAEMON, JobKind, Mac, is_present
from mlx_stack.home import Home


@dataclass(frozen=True, slots=True)
class InstallStatus:
    """The watchdog's job.

    Attributes:
        kind: What is installed; None if nothing is.
        missing_program: The program that the job names if that is gone, as after an upgrade.
        disabled: Whether it is switched off; None if that is unknown.
        outlook: Whether the stack returns by itself after a power cut, and why.
    """

    kind: JobKind | None
    label: str
    plist: Path | None
    domain: str | None
    job: PrintedJob
    missing_program: str | None
    disabled: bool | None
    outlook: BootOutlook

    @property
    def running(self) -> bool:
        """Whether its program runs."""
        return self.job.pid is not None

    @property
    def last_end(self) -> str | None:
        """How the program ended last, such as "exited with 2"; None if it never ended."""
        if self.job.last_terminating_signal is not None:
            return f"ended by signal {self.job.last_terminating_signal}"
        code = self.job.last_exit_code
        return None if code is None else f"exited with {code}"

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "installed": self.kind is not None,
            "kind": self.kind,
            "label": self.label,
            "plist": None if self.plist is None else str(self.plist),
            "domain": self.domain,
            "loaded": self.domain is not None,
            "running": self.running,
            "state": self.job.state,
            "pid": self.job.pid,
            "runs": self.job.runs,
            "last_exit_code": self.job.last_exit_code,
            "last_terminating_signal": self.job.last_terminating_signal,
            "missing_program": self.missing_program,
            "disabled": self.disabled,
            "comes_back": self.outlook.comes_back,
            "findings": [asdict(finding) for finding in self.outlook.findings],
        }


def read_install_status(home: Home, mac: Mac) -> InstallStatus:
    """What is installed, whether it runs and whether it would come back; reads only.

    Raises:
        LaunchdError: When launchctl doesn't answer.
    """
    session = mac.session()
    label = job_label(home, mac.user_home)
    installers: dict[JobKind, Installer] = {
        "daemon": mac.daemon_installer(),
        "agent": mac.agent_installer(session.uid),
    }
    present: list[JobKind] = [kind for kind, each in installers.items() if is_present(each, label)]
    kind = present[0] if present else None
    installer = installers[kind or "agent"]
    loaded = installer.jobs.find(label, installer.domain)
    job = PrintedJob() if loaded is None else loaded.job
    plist = installer.files.read(installer.plist_path(label))
    loaded_domain = None if loaded is None else loaded.domain
    outlook = boot_outlook(
        detect_boot_facts(mac.run),
        domain=loaded_domain if plist is None else installer.domain,
        user=session.user,
        as_daemon=AS_DAEMON,
    )
    missing = _missing(job.program, plist)
    if missing is not None:
        gone = f"The job's program no longer exists: {missing}."
        finding = BootFinding("program", BootVerdict.PREVENTS, gone, "mlx-stack install")
        outlook = BootOutlook(comes_back=False, findings=(finding, *outlook.findings))
    return InstallStatus(
        kind=kind,
        label=label,
        plist=None if plist is None else installer.plist_path(label),
        domain=None if loaded_domain is None else loaded_domain.target,
        job=job,
        missing_program=missing,
        disabled=installer.jobs.is_disabled(label, installer.domain),
        outlook=outlook,
    )


def _missing(program: str | None, plist: bytes | None) -> str | None:
    """The program of the loaded job, or of its plist, if there is no such file."""
    arguments = read_entries(plist or b"").get("ProgramArguments")
    if program is None and isinstance(arguments, list):
        program = str(next(iter(cast("list[object]", arguments)), "")) or None
    if program is None:
        return None
    try:
        Path(program).stat()
    except (FileNotFoundError, NotADirectoryError):
        return program
    except OSError:
        return None  # whether it is there can't be seen from here
    return None
