"""The life cycle on a real launchd; needs a Mac on which somebody is logged in at the console."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlx_launchd import (
    Domain,
    DomainKind,
    Installer,
    LaunchAgent,
    Launchctl,
    Lifecycle,
    NotRunningError,
    Outcome,
    SubprocessRun,
    UserPlistFiles,
    detect_boot_facts,
    detect_session,
    from_plist,
    lint,
    to_plist,
)

pytestmark = pytest.mark.integration

RUN = SubprocessRun()


@pytest.fixture
def installer() -> Installer:
    domain = Domain(DomainKind.GUI, os.getuid())
    folder = Path.home() / "Library" / "LaunchAgents"
    return Installer(Lifecycle(Launchctl(RUN)), UserPlistFiles(), folder, domain, RUN)


@pytest.fixture
def label(installer: Installer) -> Iterator[str]:
    label = f"io.github.mlx-launchd.test.{uuid.uuid4().hex[:8]}"
    yield label
    installer.uninstall(label)


def test_a_job_lives_through_install_upgrade_crash_restart_and_uninstall(
    installer: Installer, label: str
) -> None:
    agent = LaunchAgent(
        label, ("/bin/sleep", "600"), run_at_load=True, keep_alive=True, throttle_interval_s=1
    )
    first = installer.install(agent)
    assert (first.outcome, first.loaded.job.state) == (Outcome.INSTALLED, "running")
    assert installer.install(agent).outcome is Outcome.UNCHANGED

    second = installer.install(
        LaunchAgent(label, ("/bin/sleep", "601"), run_at_load=True, keep_alive=True)
    )
    assert second.outcome is Outcome.UPDATED
    third = installer.lifecycle.restart(label, installer.domain)
    assert third.job.pid not in {first.loaded.job.pid, second.loaded.job.pid}
    listed = installer.lifecycle.listed(label)
    assert listed is not None
    assert listed.pid == third.job.pid

    assert installer.uninstall(label)
    assert installer.lifecycle.find(label, installer.domain) is None


def test_a_program_that_fails_at_once_is_reported(installer: Installer, label: str) -> None:
    with pytest.raises(NotRunningError):
        installer.install(LaunchAgent(label, ("/usr/bin/false",), run_at_load=True))


def test_plutil_reads_what_is_written(tmp_path: Path) -> None:
    path = tmp_path / "a.plist"
    agent = LaunchAgent("org.example.a", ("/bin/echo", "grüß <& 'dich'>"))
    path.write_bytes(to_plist(agent))
    lint(RUN, path)
    RUN(("plutil", "-convert", "binary1", str(path)))
    assert from_plist(path.read_bytes()) == agent


def test_the_machine_answers_what_it_is_asked() -> None:
    session = detect_session(RUN, os.environ)
    assert session.uid == os.getuid()
    facts = detect_boot_facts(RUN)
    assert facts.filevault is not None
    assert facts.macos_major is not None
    assert facts.macos_major >= 11
