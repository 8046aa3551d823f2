"""Installs a plist and its job together: both exist, or neither does (decision 0066)."""

from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from mlx_launchd.agent import LaunchAgent
from mlx_launchd.command import CommandRunner
from mlx_launchd.domain import Domain
from mlx_launchd.errors import LaunchdError, NotRunningError, PlistError, ProgramMissingError
from mlx_launchd.files import PlistFiles, check_plist_file, lint
from mlx_launchd.jobs import Jobs, LoadedJob
from mlx_launchd.plist import read_entries, to_plist


class JobOutcome(StrEnum):
    """The outcome of an installation."""

    INSTALLED = "installed"
    """Nothing was installed before."""
    UPDATED = "updated"
    """The plist was different, or its job was not loaded or did not run."""
    UNCHANGED = "unchanged"
    """Exactly this plist is loaded and its program runs: nothing was changed."""


@dataclass(frozen=True, slots=True)
class InstalledJob:
    """An installed job.

    Attributes:
        outcome: The outcome of the installation.
        plist: Its file.
    """

    outcome: JobOutcome
    plist: Path
    loaded: LoadedJob


@dataclass(frozen=True, slots=True)
class Installer:
    """Installs and removes jobs in one domain and the folder that belongs to it.

    Attributes:
        folder: The folder of the domain's plists: `~/Library/LaunchAgents`,
            `/Library/LaunchDaemons`.
        run: Runs `plutil -lint` on the written file, if there is a plutil; None skips this.
    """

    jobs: Jobs
    files: PlistFiles
    folder: Path
    domain: Domain
    run: CommandRunner | None = None

    def plist_path(self, label: str) -> Path:
        """The file of a job: its label and `.plist`."""
        return self.folder / f"{label}.plist"

    def install(self, agent: LaunchAgent) -> InstalledJob:
        """Write the plist, load the job and see it run; updates an installed job.

        If launchd does not accept the new job, the previous one is restored. If that fails too, or
        there was none, no plist stays behind, so that the next boot doesn't unexpectedly load a job
        that launchd refuses today. A job that loads but does not stay alive stays installed.

        Raises:
            PlistError: launchd would refuse the job or interpret it differently.
            LaunchdError: It did not load, or does not run.
        """
        data = to_plist(agent, system=self.domain.uid is None)
        path = self.plist_path(agent.label)
        before = self.files.read(path)
        self.jobs.require_domain(self.domain)
        present = self.jobs.find(agent.label, self.domain)
        if before == data and present is not None and self._is_current(present, path):
            return InstalledJob(JobOutcome.UNCHANGED, path, present)
        self.files.write(path, data)
        is_old_gone = False
        try:
            self._lint(path)
            self.jobs.unload(agent.label, self.domain)
            is_old_gone = True
            loaded = self._load(agent.label, path, data)
        except NotRunningError:
            raise
        except LaunchdError:
            self._put_back(agent.label, path, before, is_old_gone=is_old_gone)
            raise
        outcome = JobOutcome.INSTALLED if before is None and present is None else JobOutcome.UPDATED
        return InstalledJob(outcome, path, loaded)

    def uninstall(self, label: str) -> bool:
        """Unload the job and remove its plist; False if neither existed.

        Raises:
            LaunchdError: The job could not be unloaded (its plist stays), or the file not removed.
        """
        path = self.plist_path(label)
        unloaded = self.jobs.unload(label, self.domain)
        existed = self.files.read(path) is not None
        if existed:
            self.files.remove(path)
        return unloaded or existed

    def _load(self, label: str, path: Path, data: bytes) -> LoadedJob:
        entries = read_entries(data)
        starts = bool(entries.get("RunAtLoad") or entries.get("KeepAlive"))
        return self.jobs.load(label, path, self.domain, starts=starts)

    def _is_current(self, present: LoadedJob, path: Path) -> bool:
        job = present.job
        same_file = job.path in {None, str(path), str(path.resolve())}
        return (
            present.domain == self.domain
            and same_file
            and job.pid is not None
            and _is_trusted(path)
        )

    def _lint(self, path: Path) -> None:
        if self.run is not None:
            with suppress(ProgramMissingError):
                lint(self.run, path)

    def _put_back(self, label: str, path: Path, before: bytes | None, *, is_old_gone: bool) -> None:
        """Leave a job with its plist, or neither; the first failure is what the caller hears."""
        try:
            if self.jobs.find(label, self.domain) is not None:
                # What is loaded now is the new job, unless the old one never went.
                if not is_old_gone and before is not None:
                    self.files.write(path, before)
            elif before is not None:
                self.files.write(path, before)
                self._load(label, path, before)
            else:
                self.files.remove(path)
        except NotRunningError:
            # It was loaded with its plist before, and is again.
            return
        except LaunchdError:
            if self._is_certainly_gone(label):
                self.files.remove(path)

    def _is_certainly_gone(self, label: str) -> bool:
        try:
            return self.jobs.find(label, self.domain) is None
        except LaunchdError:
            return False


def _is_trusted(path: Path) -> bool:
    """Whether launchd would load this file again; a mode that others changed is put right."""
    try:
        check_plist_file(path, owner_uid=path.lstat().st_uid)
    except PlistError:
        return False
    return True
