"""Jobs under a real launchd; needs a Mac on which someone is logged in at the console."""

import os
import plistlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_launchd import (
    Domain,
    DomainKind,
    Installer,
    JobOutcome,
    Jobs,
    LaunchAgent,
    Launchctl,
    NotRunningError,
    SubprocessRun,
    UserPlistFiles,
    detect_boot_facts,
    detect_session,
    lint,
    to_plist,
)

pytestmark = pytest.mark.integration

RUN = SubprocessRun()


@pytest.fixture
def installer() -> Installer:
    domain = Domain(DomainKind.GUI, os.getuid())
    folder = Path.home() / "Library" / "LaunchAgents"
    return Installer(Jobs(Launchctl(RUN)), UserPlistFiles(), folder, domain, RUN)


@pytest.fixture
def label(installer: Installer) -> Iterator[str]:
    label = f"io.github.mlx-launchd.test.{uuid.uuid4().hex[:8]}"
    yield label
    installer.uninstall(label)


def test_a_job_lives_through_install_upgrade_and_uninstall(
    installer: Installer, label: str
) -> None:
    agent = LaunchAgent(
        label, ("/bin/sleep", "600"), run_at_load=True, keep_alive=True, throttle_interval_s=1
    )
    first = installer.install(agent)
    assert (first.outcome, first.loaded.job.state) == (JobOutcome.INSTALLED, "running")
    assert installer.install(agent).outcome is JobOutcome.UNCHANGED

    second = installer.install(
        LaunchAgent(label, ("/bin/sleep", "601"), run_at_load=True, keep_alive=True)
    )
    assert second.outcome is JobOutcome.UPDATED
    assert second.loaded.job.pid not in {None, first.loaded.job.pid}

    assert installer.uninstall(label)
    assert installer.jobs.find(label, installer.domain) is None


def test_a_program_that_fails_at_once_is_reported(installer: Installer, label: str) -> None:
    with pytest.raises(NotRunningError):
        installer.install(LaunchAgent(label, ("/usr/bin/false",), run_at_load=True))


def test_plutil_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    agent = LaunchAgent("org.example.a", ("/bin/echo", "grüß <& 'dich'>"))
    path.write_bytes(to_plist(agent))
    lint(RUN, path)
    RUN(("plutil", "-convert", "binary1", str(path)))
    assert plistlib.loads(path.read_bytes()) == {
        "Label": agent.label,
        "ProgramArguments": list(agent.program_arguments),
    }


def test_the_machine_answers_what_it_is_asked() -> None:
    session = detect_session(RUN, os.environ)
    assert session.uid == os.getuid()
    facts = detect_boot_facts(RUN)
    assert facts.filevault is not None
    assert facts.macos_major is not None
    assert facts.macos_major >= 11
