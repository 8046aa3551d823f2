"""A plist and its job are both there, or neither is."""

import plistlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from xml.parsers.expat import ExpatError

import pytest

from mlx_launchd import (
    Completed,
    Domain,
    DomainKind,
    Installer,
    JobOutcome,
    Jobs,
    LaunchAgent,
    Launchctl,
    LaunchctlError,
    NotRunningError,
    PlistError,
    StillStoppingError,
    UserPlistFiles,
)

LABEL = "org.quill.indexd"
GUI = Domain(DomainKind.GUI, 502)


@dataclass
class SmallLaunchd:
    """launchctl with one job, and what it refuses."""

    refused: set[str] = field(default_factory=set[str])
    path: str | None = None
    version: str | None = None
    pid: int = 100
    dies: bool = False
    stuck: bool = False
    lint: Completed = field(default_factory=lambda: Completed(0))
    now_s: float = 0.0

    def __call__(self, command: Sequence[str], /) -> Completed:
        if command[0] == "plutil":
            return self.lint
        verb, target = command[1], command[2]
        if verb == "bootstrap":
            return self._bootstrap(Path(command[3]))
        if verb == "bootout" and self.stuck:
            self.pid += 1  # its process ended, and launchd has started another
        elif verb == "bootout":
            self.path = None
        if verb == "print" and target.endswith(LABEL):
            return self._print(target)
        return Completed(0)

    def _bootstrap(self, plist: Path) -> Completed:
        try:
            arguments = plistlib.loads(plist.read_bytes())["ProgramArguments"]
        except ExpatError:
            return Completed(5, "", "Bootstrap failed: 5: Input/output error")
        if arguments[1] in self.refused:
            return Completed(122, "", "Bootstrap failed: 122")
        self.path, self.version = str(plist), arguments[1]
        self.pid += 1
        return Completed(0)

    def _print(self, target: str) -> Completed:
        if self.path is None or target.startswith("user/"):
            return Completed(113)
        ending = "\tlast exit code = 1\n" if self.dies else f"\tpid = {self.pid}\n"
        return Completed(0, f"{target} = {{\n\tpath = {self.path}\n\truns = 2\n{ending}}}\n")

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        self.now_s += seconds


def agent(version: str) -> LaunchAgent:
    return LaunchAgent(LABEL, ("/opt/quill/bin/indexd", version), run_at_load=True)


@pytest.fixture
def launchd() -> SmallLaunchd:
    return SmallLaunchd()


@pytest.fixture
def installer(launchd: SmallLaunchd, tmp_path: Path) -> Installer:
    jobs = Jobs(Launchctl(launchd), clock=launchd)
    return Installer(jobs, UserPlistFiles(), tmp_path, GUI, launchd)


def version_on_disk(installer: Installer) -> str | None:
    data = installer.files.read(installer.plist_path(LABEL))
    return None if data is None else plistlib.loads(data)["ProgramArguments"][1]


def test_installing_twice_changes_nothing_and_another_version_replaces_it(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    assert installer.install(agent("1")).outcome is JobOutcome.INSTALLED
    pid = launchd.pid
    assert installer.install(agent("1")).outcome is JobOutcome.UNCHANGED
    assert launchd.pid == pid
    assert installer.install(agent("2")).outcome is JobOutcome.UPDATED
    assert (launchd.version, version_on_disk(installer)) == ("2", "2")


def test_a_plist_whose_job_is_not_loaded_is_loaded(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    installer.install(agent("1"))
    launchd.path = None
    assert installer.install(agent("1")).outcome is JobOutcome.UPDATED
    assert launchd.path is not None


def test_where_the_new_job_is_refused_the_old_one_is_put_back(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    installer.install(agent("1"))
    launchd.refused = {"2"}
    with pytest.raises(LaunchctlError) as raised:
        installer.install(agent("2"))
    assert raised.value.returncode == 122
    assert (launchd.version, version_on_disk(installer)) == ("1", "1")
    assert launchd.path is not None


def test_where_neither_is_taken_no_plist_is_left(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    launchd.refused = {"1", "2"}
    with pytest.raises(LaunchctlError):
        installer.install(agent("1"))
    assert version_on_disk(installer) is None
    launchd.refused = set()
    installer.install(agent("1"))
    launchd.refused = {"1", "2"}
    with pytest.raises(LaunchctlError):
        installer.install(agent("2"))
    assert (launchd.path, version_on_disk(installer)) == (None, None)


def test_a_job_that_does_not_stop_keeps_its_own_plist(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    installer.install(agent("1"))
    launchd.stuck = True
    with pytest.raises(StillStoppingError):
        installer.install(agent("2"))
    assert (launchd.version, version_on_disk(installer)) == ("1", "1")
    with pytest.raises(StillStoppingError):
        installer.uninstall(LABEL)
    assert version_on_disk(installer) == "1"


def test_a_job_that_does_not_stay_alive_stays_installed_for_launchd_to_try_again(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    launchd.dies = True
    with pytest.raises(NotRunningError):
        installer.install(agent("1"))
    assert launchd.path is not None
    assert version_on_disk(installer) == "1"


def test_a_job_that_starts_at_its_time_only_is_installed_without_a_process(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    launchd.dies = True
    nightly = replace(agent("1"), run_at_load=False, other_keys={"StartInterval": 86400})
    assert installer.install(nightly).loaded.job.pid is None


def test_a_damaged_plist_of_before_is_replaced_and_where_that_fails_removed(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    installer.plist_path(LABEL).write_bytes(b"<plist><dict>")
    launchd.refused = {"2"}
    with pytest.raises(LaunchctlError):
        installer.install(agent("2"))
    assert version_on_disk(installer) is None
    installer.plist_path(LABEL).write_bytes(b"<plist><dict>")
    assert installer.install(agent("1")).outcome is JobOutcome.UPDATED


def test_what_plutil_refuses_is_not_loaded(launchd: SmallLaunchd, installer: Installer) -> None:
    launchd.lint = Completed(1, "a.plist: bad\n")
    with pytest.raises(PlistError):
        installer.install(agent("1"))
    assert (launchd.path, version_on_disk(installer)) == (None, None)


def test_a_plist_that_others_may_write_is_written_again(installer: Installer) -> None:
    path = installer.install(agent("1")).plist
    path.chmod(0o664)
    assert installer.install(agent("1")).outcome is JobOutcome.UPDATED
    assert path.stat().st_mode & 0o777 == 0o644


def test_uninstalling_leaves_nothing_and_says_whether_there_was_something(
    launchd: SmallLaunchd, installer: Installer
) -> None:
    installer.install(agent("1"))
    assert installer.uninstall(LABEL)
    assert (launchd.path, version_on_disk(installer)) == (None, None)
    assert not installer.uninstall(LABEL)
