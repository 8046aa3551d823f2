"""Loads a job into launchd and unloads it; each step is awaited and verified (decision 0065)."""

from dataclasses import dataclass, field
from pathlib import Path

from mlx_launchd.command import Clock, SystemClock
from mlx_launchd.domain import Domain, places_to_look
from mlx_launchd.errors import (
    DisabledError,
    LaunchctlError,
    NoSessionError,
    NotPermittedError,
    NotRunningError,
    OutputError,
    StillStoppingError,
)
from mlx_launchd.exit_codes import LaunchctlStatus
from mlx_launchd.launchctl import Launchctl, LaunchctlAnswer
from mlx_launchd.output import PrintedJob, parse_print, parse_print_disabled

_DEFAULT_EXIT_TIMEOUT_S = 5.0
"""What macOS shows for a job without `ExitTimeOut`."""


@dataclass(frozen=True, slots=True)
class JobTimeouts:
    """How long each wait may take.

    Attributes:
        poll_s: Between two questions.
        teardown_s: Until a job is gone, in addition to its own `ExitTimeOut`.
        endless_exit_s: Until a job is gone whose `ExitTimeOut` is 0, which means no limit.
        bootstrap_tries: How many times a load is tried while launchd still tears down the last one.
        retry_s: Between two of those tries.
        start_s: Until a program is running.
        steady_s: How long it must be the same process to count as running.
    """

    poll_s: float = 0.25
    teardown_s: float = 5.0
    endless_exit_s: float = 60.0
    bootstrap_tries: int = 6
    retry_s: float = 1.0
    start_s: float = 10.0
    steady_s: float = 1.0


@dataclass(frozen=True, slots=True)
class LoadedJob:
    """A job in the domain where it was found.

    Attributes:
        job: The output of `launchctl print` for it.
    """

    domain: Domain
    job: PrintedJob


@dataclass(frozen=True, slots=True)
class Jobs:
    """Loads and unloads jobs, and returns only once launchd itself confirms the result.

    Attributes:
        timeouts: How long each wait may take.
        as_daemon: How this caller's user installs the job as a LaunchDaemon, as an imperative.
    """

    launchctl: Launchctl
    clock: Clock = field(default_factory=SystemClock)
    timeouts: JobTimeouts = field(default_factory=JobTimeouts)
    as_daemon: str = "install it as a LaunchDaemon"

    def find(self, label: str, domain: Domain) -> LoadedJob | None:
        """The job with this label, or None if it is not loaded.

        The user's login session and the user's own domain are both searched.

        Raises:
            NotPermittedError: The domain is another user's.
            LaunchctlError: launchctl answered something else.
        """
        for place in places_to_look(domain):
            job = self._printed(label, place)
            if job is not None:
                return LoadedJob(place, job)
        return None

    def load(self, label: str, plist: Path, domain: Domain, *, starts: bool = True) -> LoadedJob:
        """Load the job from its plist, replacing any job with that label, and see it run.

        The label is enabled first. A bootstrap's own exit code is never trusted on its own: on some
        systems it is 5 although the job loads.

        Args:
            starts: Whether launchd starts the program at once (`RunAtLoad`, `KeepAlive`).

        Raises:
            NoSessionError: The domain does not exist.
            NotPermittedError: The domain is root's or another user's.
            DisabledError: The label is disabled and can't be enabled.
            StillStoppingError: The job that was loaded before does not stop.
            NotRunningError: The job is loaded, but its program does not stay alive.
            LaunchctlError: launchd refuses the job.
        """
        self.require_domain(domain)
        self.unload(label, domain)
        self._check(self.launchctl.enable(domain, label))
        self._bootstrap(label, plist, domain)
        if starts:
            return LoadedJob(domain, self._running(label, domain))
        job = self._printed(label, domain)
        if job is None:
            raise _not_there(self.launchctl.print_job(domain, label))
        return LoadedJob(domain, job)

    def unload(self, label: str, domain: Domain) -> bool:
        """Unload the job and wait until it has gone; False if it was not loaded.

        Raises:
            NotPermittedError: The domain is root's or another user's.
            StillStoppingError: The job does not stop.
            LaunchctlError: launchctl answered something else.
        """
        unloaded = False
        for place in places_to_look(domain):
            job = self._printed(label, place)
            if job is not None:
                self._bootout(label, place, job)
                unloaded = True
        return unloaded

    def require_domain(self, domain: Domain) -> None:
        """Returns if the domain exists and the caller may change it.

        Raises:
            NoSessionError: It does not exist.
            NotPermittedError: It is another user's.
            LaunchctlError: launchctl answered something else.
        """
        self._check(self.launchctl.print_domain(domain))

    def is_disabled(self, label: str, domain: Domain) -> bool | None:
        """Whether the label is disabled; None if launchctl does not say."""
        answer = self.launchctl.print_disabled(domain)
        if answer.status is not LaunchctlStatus.DONE:
            return None
        try:
            return parse_print_disabled(answer.stdout).get(label, False)
        except OutputError:
            return None

    def _printed(self, label: str, domain: Domain) -> PrintedJob | None:
        answer = self.launchctl.print_job(domain, label)
        if answer.status in {LaunchctlStatus.NOT_LOADED, LaunchctlStatus.NO_DOMAIN}:
            return None
        self._check(answer)
        return parse_print(answer.stdout)

    def _bootout(self, label: str, domain: Domain, job: PrintedJob) -> None:
        answer = self.launchctl.bootout(domain, label)
        if answer.status not in {
            LaunchctlStatus.NOT_LOADED,
            LaunchctlStatus.NO_DOMAIN,
            LaunchctlStatus.STOPPING,
            LaunchctlStatus.IO_ERROR,
        }:
            self._check(answer)
        # Also where bootout says that there was nothing: only `print` is believed.
        wait_s = self._exit_timeout_s(job) + self.timeouts.teardown_s
        deadline = self.clock.monotonic() + wait_s
        while self._printed(label, domain) is not None:
            if self.clock.monotonic() >= deadline:
                raise _failure(
                    StillStoppingError,
                    answer,
                    f"{label} has not stopped within {wait_s:g} s",
                    "its program ignores SIGTERM, or a child of it is stuck in the kernel; "
                    f"look at it with `launchctl print {domain.service_target(label)}`",
                )
            self.clock.sleep(self.timeouts.poll_s)

    def _exit_timeout_s(self, job: PrintedJob) -> float:
        if job.exit_timeout_s is None:
            return _DEFAULT_EXIT_TIMEOUT_S
        return job.exit_timeout_s or self.timeouts.endless_exit_s

    def _bootstrap(self, label: str, plist: Path, domain: Domain) -> None:
        enabled_again = False
        for tries_left in reversed(range(self.timeouts.bootstrap_tries)):
            answer = self.launchctl.bootstrap(domain, plist)
            job = self._printed(label, domain)
            if job is not None and job.path in {None, str(plist), str(plist.resolve())}:
                # Whatever the code says: the one thing that counts has happened.
                return
            if answer.status is LaunchctlStatus.DONE and job is None:
                raise _not_there(answer)
            off = answer.status is LaunchctlStatus.DISABLED or (
                answer.status is LaunchctlStatus.IO_ERROR and bool(self.is_disabled(label, domain))
            )
            if off and not enabled_again:
                self._check(self.launchctl.enable(domain, label))
                enabled_again = True
                continue
            if off or answer.status not in {
                LaunchctlStatus.IO_ERROR,
                LaunchctlStatus.ALREADY_LOADED,
            }:
                self._check_bootstrap(answer, label, plist, domain, is_disabled=off)
            if job is not None:
                self._bootout(label, domain, job)
            if tries_left:
                self.clock.sleep(self.timeouts.retry_s)
            else:
                self._check_bootstrap(answer, label, plist, domain, is_disabled=False)

    def _check_bootstrap(
        self, answer: LaunchctlAnswer, label: str, plist: Path, domain: Domain, *, is_disabled: bool
    ) -> None:
        if is_disabled:
            raise _failure(
                DisabledError,
                answer,
                f"{label} is disabled and can't be enabled",
                f"run `launchctl enable {domain.service_target(label)}`, and look into "
                "System Settings > General > Login Items & Extensions",
            )
        if answer.status is LaunchctlStatus.REFUSED:
            self.require_domain(domain)
            raise _failure(
                DisabledError,
                answer,
                f"{domain.target} takes no {label}, although it exists",
                "switch it on in System Settings > General > Login Items & Extensions, "
                "under Allow in the Background",
            )
        owner = "root" if domain.uid is None else "the user"
        file = self._volume_hint(plist) or (
            f"launchd wants a regular file that belongs to {owner}, mode 0644: {plist}"
        )
        hint = {
            LaunchctlStatus.BAD_FILE: file,
            LaunchctlStatus.NO_FILE: f"there is no file {plist}",
            LaunchctlStatus.IO_ERROR: f"check it with `plutil -lint {plist}`; {file}",
            LaunchctlStatus.ALREADY_LOADED: "another program loads the same label at the same time",
        }.get(answer.status)
        if hint is not None:
            raise _failure(LaunchctlError, answer, f"launchd does not load {label}", hint)
        self._check(answer)

    def _volume_hint(self, plist: Path) -> str:
        """What to do about a plist on another disk than the system's, or `""` for no such plist."""
        volume = volume_of(plist)
        if volume is None:
            return ""
        return (
            f"{plist} is on the volume {volume}: launchd loads nothing from a disk that ignores "
            "ownership (Finder > Get Info), or that is not there when the user logs in; "
            f"{self.as_daemon}, whose plist is on the system's own disk"
        )

    def _running(self, label: str, domain: Domain) -> PrintedJob:
        """The job once the same process has been there for a while, or has done its work.

        Raises:
            NotRunningError: It ended, again and again, or was never started.
        """
        deadline = self.clock.monotonic() + self.timeouts.start_s
        seen_pid, seen_at = None, 0.0
        kicked = False
        while True:
            answer = self.launchctl.print_job(domain, label)
            if answer.status is LaunchctlStatus.NOT_LOADED:
                raise _not_there(answer)
            self._check(answer)
            job = parse_print(answer.stdout)
            now = self.clock.monotonic()
            if job.pid is None:
                seen_pid = None
                if job.runs and job.last_exit_code == 0 and job.state == "not running":
                    return job
            elif job.pid != seen_pid:
                seen_pid, seen_at = job.pid, now
            elif now - seen_at >= self.timeouts.steady_s:
                return job
            if job.state == "not running" and not job.runs and not kicked:
                self._check(self.launchctl.kickstart(domain, label))
                kicked = True
            if now >= deadline:
                raise _not_running(answer, label, job)
            self.clock.sleep(self.timeouts.poll_s)

    def _check(self, answer: LaunchctlAnswer) -> None:
        """Return if the answer is DONE; else raise what its situation calls for."""
        match answer.status:
            case LaunchctlStatus.DONE:
                return
            case LaunchctlStatus.NO_DOMAIN | LaunchctlStatus.REFUSED:
                raise _failure(
                    NoSessionError,
                    answer,
                    "the domain does not exist: its user is not logged in at the console",
                    f"log in at the screen or over screen sharing, or {self.as_daemon}",
                )
            case LaunchctlStatus.NOT_PERMITTED:
                raise _failure(
                    NotPermittedError,
                    answer,
                    "launchd permits this to the domain's owner or root only",
                    "run it as that user; the system domain needs sudo",
                )
            case LaunchctlStatus.NOT_LOADED:
                raise _not_there(answer)
            case _:
                raise _failure(
                    LaunchctlError,
                    answer,
                    f"launchctl exited with {answer.returncode} ({answer.status})",
                    f"`launchctl error {answer.returncode}` says what that number means",
                )


def volume_of(path: Path) -> Path | None:
    """The volume of a path, `/Volumes/Name`; None for the one that the Mac starts from."""
    parts = path.resolve().parts
    return Path(*parts[:3]) if parts[:2] == ("/", "Volumes") and len(parts) > 2 else None


def _not_there(answer: LaunchctlAnswer) -> LaunchctlError:
    return _failure(
        LaunchctlError,
        answer,
        "the job is not loaded",
        "launchd's reason is in `log show --last 5m --predicate 'process == \"launchd\"'`",
    )


def _failure[E: LaunchctlError](
    kind: type[E], answer: LaunchctlAnswer, message: str, hint: str
) -> E:
    said = _reason(answer.text)
    return kind(
        f"{message}: {said}" if said else message,
        command=answer.command,
        returncode=answer.returncode,
        text=answer.text,
        hint=hint,
    )


def _reason(text: str) -> str:
    """The line of launchctl's text that says what went wrong.

    Above it stands "Bad request.", below it the advice to try again as root "for richer errors",
    which would load the job into the wrong domain.
    """
    lines = [line.strip() for line in text.splitlines()]
    telling = [line for line in lines if line and not line.startswith(("Bad request", "Try re-"))]
    return telling[0] if telling else ""


def _not_running(answer: LaunchctlAnswer, label: str, job: PrintedJob) -> NotRunningError:
    if job.last_terminating_signal is not None:
        name = job.last_terminating_signal_name or "signal"
        ended = f"ended by {name} ({job.last_terminating_signal})"
    elif job.last_exit_code is not None:
        name = f", {job.last_exit_name}" if job.last_exit_name else ""
        ended = f"exited with {job.last_exit_code}{name}"
    else:
        ended = "was never started"
    hint = "its own output shows why"
    if job.last_exit_reason and "CODESIGNING" in job.last_exit_reason:
        hint = (
            "its file was replaced while macOS remembered the old one's signature: "
            "write the new file next to it and rename it into place"
        )
    return _failure(
        NotRunningError,
        answer,
        f"{label} is loaded ({job.state or 'state unknown'}), but its program {ended}",
        hint,
    )
