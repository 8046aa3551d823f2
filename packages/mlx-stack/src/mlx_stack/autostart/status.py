"""What is installed under launchd, how it does, and whether it would come back."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

from mlx_launchd import (
    BootFinding,
    BootOutlook,
    BootVerdict,
    Installer,
    boot_outlook,
    detect_boot_facts,
    read_entries,
)
from mlx_stack.autostart.job import job_label
from mlx_stack.autostart.mac import AS_DAEMON, JobKind, Mac, is_present
from mlx_stack.home import Home


@dataclass(frozen=True, slots=True)
class InstallStatus:
    """What `install --status` tells.

    Attributes:
        kind: What is installed; None where nothing is.
        label: The job's label.
        plist: Its file, or None where there is none.
        domain: launchctl's name of the domain it is loaded in, or None.
        loaded: Whether launchd has it.
        running: Whether its program runs.
        state: launchd's own word.
        pid: The watchdog's process.
        runs: How often it was started.
        last_exit_code: How it ended last.
        last_terminating_signal: Which signal ended it last.
        missing_program: The program that the job names and that is not there any more, as after an
            upgrade; None where it is there, or where nothing is installed.
        disabled: Whether it is switched off; None where that is unknown.
        comes_back: Whether the stack returns by itself after a power cut; None where unknown.
        findings: What that depends on.
    """

    kind: JobKind | None
    label: str
    plist: str | None
    domain: str | None
    loaded: bool
    running: bool
    state: str | None
    pid: int | None
    runs: int | None
    last_exit_code: int | None
    last_terminating_signal: int | None
    missing_program: str | None
    disabled: bool | None
    comes_back: bool | None
    findings: tuple[BootFinding, ...]

    @property
    def last_end(self) -> str | None:
        """How the program ended last, "exited with 2"; None where it has not ended."""
        if self.last_terminating_signal is not None:
            return f"ended by signal {self.last_terminating_signal}"
        return None if self.last_exit_code is None else f"exited with {self.last_exit_code}"

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"installed": self.kind is not None, **asdict(self)}


def read_install_status(home: Home, mac: Mac) -> InstallStatus:
    """What is installed, how it does, and whether it would come back; reads only.

    Raises:
        LaunchdError: launchctl does not answer.
    """
    session = mac.session()
    label = job_label(home, mac.user_home)
    installers: dict[JobKind, Installer] = {
        "daemon": mac.daemon_installer(home),
        "agent": mac.agent_installer(session.uid),
    }
    present: list[JobKind] = [
        kind for kind, installer in installers.items() if is_present(installer, label)
    ]
    kind = present[0] if present else None
    chosen = installers[kind or "agent"]
    loaded = chosen.jobs.find(label, chosen.domain)
    job = loaded.job if loaded is not None else None
    plist = chosen.files.read(chosen.plist_path(label))
    has_plist = plist is not None
    outlook = boot_outlook(
        detect_boot_facts(mac.run),
        domain=chosen.domain if has_plist else loaded.domain if loaded is not None else None,
        user=session.user,
        as_daemon=AS_DAEMON,
    )
    missing = _missing(job.program if job is not None else None, plist)
    if missing is not None:
        gone = f"The program that the job names is gone: {missing}."
        finding = BootFinding("program", BootVerdict.PREVENTS, gone, "mlx-stack install")
        outlook = BootOutlook(comes_back=False, findings=(finding, *outlook.findings))
    return InstallStatus(
        kind=kind,
        label=label,
        plist=str(chosen.plist_path(label)) if has_plist else None,
        domain=loaded.domain.target if loaded is not None else None,
        loaded=loaded is not None,
        running=job is not None and job.pid is not None,
        state=job.state if job is not None else None,
        pid=job.pid if job is not None else None,
        runs=job.runs if job is not None else None,
        last_exit_code=job.last_exit_code if job is not None else None,
        last_terminating_signal=job.last_terminating_signal if job is not None else None,
        missing_program=missing,
        disabled=chosen.jobs.is_disabled(label, chosen.domain),
        comes_back=outlook.comes_back,
        findings=outlook.findings,
    )


def _missing(program: str | None, plist: bytes | None) -> str | None:
    """The program of the loaded job, or of its plist, where there is no such file."""
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
        return None  # whether it is there cannot be seen from here
    return None
