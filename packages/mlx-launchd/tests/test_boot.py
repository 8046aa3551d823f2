"""Whether a Mac would be a server again after a power cut, and what it says to change."""

import plistlib
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_launchd import (
    SYSTEM,
    BootFacts,
    BootVerdict,
    Completed,
    Domain,
    DomainKind,
    LaunchdError,
    OutputError,
    PlistValue,
    PowerSettings,
    ProgramMissingError,
    boot_outlook,
    detect_boot_facts,
    detect_session,
    parse_filevault,
    parse_pmset,
    volume_problem,
)

AGENT = Domain(DomainKind.GUI, 502)
READY = BootFacts(
    filevault=False,
    auto_login_user="robin",
    autorestart=True,
    autorestart_at_connect=False,
    has_battery=False,
    sleep_minutes=0,
    macos_major=26,
)


def verdicts(facts: BootFacts, domain: Domain | None) -> dict[str, BootVerdict]:
    outlook = boot_outlook(facts, domain=domain, user="robin")
    return {finding.name: finding.verdict for finding in outlook.findings}


def comes_back(facts: BootFacts, domain: Domain | None) -> bool | None:
    return boot_outlook(facts, domain=domain, user="robin").comes_back


def test_a_daemon_needs_no_login_and_an_agent_needs_automatic_login() -> None:
    nobody = replace(READY, auto_login_user="")
    assert comes_back(nobody, SYSTEM) is True
    assert comes_back(READY, AGENT) is True
    assert comes_back(nobody, AGENT) is False
    assert comes_back(replace(READY, auto_login_user="kim"), AGENT) is False
    assert comes_back(READY, None) is False
    assert comes_back(READY, Domain(DomainKind.USER, 502)) is False


@pytest.mark.parametrize("domain", [SYSTEM, AGENT])
def test_filevault_holds_everything_back(domain: Domain) -> None:
    assert comes_back(replace(READY, filevault=True), domain) is False


def test_unlocking_over_ssh_is_offered_where_macos_can() -> None:
    def fix(major: int) -> str:
        facts = replace(READY, filevault=True, macos_major=major)
        outlook = boot_outlook(facts, domain=SYSTEM, user="robin")
        return next(f.fix for f in outlook.findings if f.name == "filevault")

    assert "SSH" in fix(26)
    assert "SSH" not in fix(15)


def test_a_mac_that_stays_off_does_not_come_back() -> None:
    assert comes_back(replace(READY, autorestart=False), SYSTEM) is False
    at_connect = replace(READY, autorestart=False, autorestart_at_connect=True)
    assert comes_back(at_connect, SYSTEM) is True


def test_what_does_not_prevent_it_is_a_warning() -> None:
    both = replace(READY, autorestart_at_connect=True)
    assert verdicts(both, SYSTEM)["autorestart"] is BootVerdict.WARNING
    sleepy = replace(READY, sleep_minutes=10)
    assert verdicts(sleepy, SYSTEM)["sleep"] is BootVerdict.WARNING
    laptop = replace(READY, autorestart=None, autorestart_at_connect=None, has_battery=True)
    assert verdicts(laptop, SYSTEM)["autorestart"] is BootVerdict.WARNING
    assert all(comes_back(facts, SYSTEM) is True for facts in (both, sleepy, laptop))


@pytest.mark.parametrize(
    "unknown",
    [
        {"filevault": None},
        {"auto_login_user": None},
        {"autorestart": None, "autorestart_at_connect": None},
    ],
)
def test_what_is_unknown_is_not_promised(unknown: dict[str, None]) -> None:
    assert comes_back(replace(READY, **unknown), AGENT) is None


PMSET_CUSTOM = """Battery Power:
 Sleep On Power Button 1
 sleep                1
 womp                 0
AC Power:
 Sleep On Power Button 1
 autorestartatconnect 0
 standby              0
 womp                 1
 sleep                0
 hibernatefile        /var/vm/sleepimage
 autorestart          1
"""
PMSET_LIVE = """System-wide power settings:
 SleepDisabled          1
Currently in use:
 standby              1
 Sleep On Power Button 1
 sleep                15 (sleep prevented by powerd, caffeinate)
 womp                 1
"""


def test_the_settings_on_mains_power_count() -> None:
    assert parse_pmset(PMSET_CUSTOM) == PowerSettings(
        sleep_minutes=0, autorestart=True, autorestart_at_connect=False, wake_on_lan=True
    )


def test_a_live_listing_tells_who_keeps_the_mac_awake() -> None:
    assert parse_pmset(PMSET_LIVE) == PowerSettings(
        sleep_minutes=15,
        sleep_disabled=True,
        wake_on_lan=True,
        sleep_prevented_by=("powerd", "caffeinate"),
    )


@pytest.mark.parametrize("text", ["", "pmset: unknown option\n"])
def test_a_text_without_settings_is_refused(text: str) -> None:
    with pytest.raises(OutputError):
        parse_pmset(text)


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("FileVault is On.\n", True),
        ("FileVault is Off.\n", False),
        ("FileVault is Off, but will be enabled after the next restart.\n", False),
        ("Error: no volumes\n", None),
    ],
)
def test_filevaults_state_is_on_off_or_unknown(text: str, on: bool | None) -> None:
    assert parse_filevault(text) is on


class Programs:
    """A machine on which these commands answer and no others exist."""

    def __init__(self, answers: dict[str, Completed]) -> None:
        self.answers = answers

    def __call__(self, command: tuple[str, ...], /) -> Completed:
        line = " ".join(command)
        for start, answer in self.answers.items():
            if line.startswith(start):
                return answer
        raise ProgramMissingError(command[0])


def test_the_machine_is_asked_through_its_own_programs() -> None:
    facts = detect_boot_facts(
        Programs(
            {
                "fdesetup status": Completed(0, "FileVault is Off.\n"),
                "defaults read": Completed(1, "", "does not exist"),
                "sw_vers": Completed(0, "26.5.1\n"),
                "pmset -g custom": Completed(0, PMSET_CUSTOM),
                "pmset -g batt": Completed(0, "Now drawing from 'AC Power'\n"),
            }
        )
    )
    assert facts == replace(READY, auto_login_user="")


@pytest.mark.parametrize(
    ("version", "major"),
    [("26.5.1", 26), ("15.7", 15), ("16.0", None), ("10.16", None), ("", None)],
)
def test_a_version_that_macos_tells_old_programs_is_unknown(
    version: str, major: int | None
) -> None:
    facts = detect_boot_facts(Programs({"sw_vers": Completed(0, f"{version}\n")}))
    assert facts.macos_major == major


def test_a_machine_without_those_programs_says_nothing() -> None:
    assert detect_boot_facts(Programs({})) == BootFacts()


def test_a_volume_is_there_at_boot_only_where_diskutil_says_so() -> None:
    volume = Path("/Volumes/Two")
    facts: dict[str, PlistValue] = {
        "MountPoint": "/Volumes/Two",
        "Internal": True,
        "RemovableMediaOrExternalDevice": False,
        "Ejectable": False,
        "FileVault": False,
    }

    def told(changes: dict[str, PlistValue]) -> str | None:
        answer = Completed(0, plistlib.dumps(facts | changes).decode())
        return volume_problem(Programs({"diskutil info -plist /Volumes/Two": answer}), volume)

    assert told({}) is None
    assert told({"Internal": False}) == "it is not a disk inside the Mac"
    assert told({"FileVault": True}) == "it is encrypted, and may be locked then"
    assert volume_problem(Programs({}), volume) == "diskutil doesn't know it"
    damaged = Programs({"diskutil": Completed(0, "<plist")})
    assert volume_problem(damaged, volume) == "diskutil doesn't know it"


def test_a_session_is_told_by_id_the_console_and_sshds_variables() -> None:
    run = Programs(
        {
            "id -un": Completed(0, "robin\n"),
            "id -u": Completed(0, "502\n"),
            "stat -f %u /dev/console": Completed(0, "0\n"),
        }
    )
    session = detect_session(run, {"SSH_CONNECTION": "10.0.0.2 51000 10.0.0.3 22"})
    assert (session.uid, session.user, session.console_uid) == (502, "robin", 0)
    assert session.is_ssh
    assert not session.is_sudo


def test_gnus_stat_tells_the_consoles_owner_too() -> None:
    run = Programs(
        {
            "id -un": Completed(0, "robin\n"),
            "id -u": Completed(0, "502\n"),
            "stat -f": Completed(1, '  File: "/dev/console"\n', "stat: cannot read '%u'"),
            "stat -c %u /dev/console": Completed(0, "502\n"),
        }
    )
    assert detect_session(run, {}).console_uid == 502


def test_a_machine_that_does_not_know_its_user_is_an_error() -> None:
    with pytest.raises(LaunchdError, match="report the user"):
        detect_session(Programs({"id": Completed(1)}), {})
