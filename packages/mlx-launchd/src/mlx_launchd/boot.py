"""Whether a job would come back after a power cut, and what prevents it; pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlx_launchd.domain import Domain, DomainKind

_UNLOCKS_OVER_SSH = 26
"""First macOS whose FileVault can be unlocked over SSH before login, on Apple silicon."""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """The facts that decide whether a Mac is a server again after a power cut; None is unknown.

    Attributes:
        filevault: Whether the disk is encrypted with FileVault.
        auto_login_user: The user who is logged in at boot without a password, or `""` for no one.
        autorestart: Starts automatically after a power failure.
        autorestart_at_connect: Starts when power is connected.
        has_battery: Whether it has a battery, so that a short power cut does not switch it off.
        sleep_minutes: Idle time after which it sleeps; 0 is never.
        macos_major: 26 for macOS 26.5.
    """

    filevault: bool | None = None
    auto_login_user: str | None = None
    autorestart: bool | None = None
    autorestart_at_connect: bool | None = None
    has_battery: bool | None = None
    sleep_minutes: int | None = None
    macos_major: int | None = None


class BootVerdict(StrEnum):
    """What a finding means for coming back after a power cut."""

    OK = "ok"
    PREVENTS = "prevents"
    UNKNOWN = "unknown"
    WARNING = "warning"
    """The job comes back, but something else is wrong."""


@dataclass(frozen=True, slots=True)
class BootFinding:
    """One checked condition.

    Attributes:
        message: The result, as a sentence for a person.
    """

    name: str
    verdict: BootVerdict
    message: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class BootOutlook:
    """Whether the job comes back.

    Attributes:
        comes_back: False if something prevents it, None if something is unknown.
        findings: The checked conditions, in the order in which a Mac starts.
    """

    comes_back: bool | None
    findings: tuple[BootFinding, ...]


def boot_outlook(
    facts: BootFacts,
    *,
    domain: Domain | None,
    user: str,
    as_daemon: str = "install it as a LaunchDaemon",
) -> BootOutlook:
    """Whether a job in this domain would run again after a power cut with no one present.

    Args:
        domain: Where the job is installed; None if it isn't.
        as_daemon: How this caller's user installs the job as a LaunchDaemon, as an imperative.
    """
    findings = (
        _power(facts),
        _filevault(facts),
        *_job(facts, domain, user, as_daemon),
        _sleep(facts),
    )
    verdicts = {finding.verdict for finding in findings}
    comes_back: bool | None = True
    if BootVerdict.PREVENTS in verdicts:
        comes_back = False
    elif BootVerdict.UNKNOWN in verdicts:
        comes_back = None
    return BootOutlook(comes_back, findings)


def _power(facts: BootFacts) -> BootFinding:
    fix = "sudo pmset -a autorestart 1"
    if facts.autorestart and facts.autorestart_at_connect:
        return BootFinding(
            "autorestart",
            BootVerdict.WARNING,
            "Both autorestart and autorestartatconnect are on, and System Settings switches "
            "autorestart off again when it sees that.",
            "sudo pmset -a autorestartatconnect 0",
        )
    if facts.autorestart or facts.autorestart_at_connect:
        when = "after a power failure" if facts.autorestart else "when power is connected"
        return BootFinding("autorestart", BootVerdict.OK, f"The Mac starts by itself {when}.")
    if facts.has_battery:
        return BootFinding(
            "autorestart",
            BootVerdict.WARNING,
            "The battery bridges a power cut; when it is empty, someone must switch the Mac on.",
        )
    if facts.autorestart is None and facts.autorestart_at_connect is None:
        return BootFinding(
            "autorestart",
            BootVerdict.UNKNOWN,
            "Whether the Mac starts by itself after a power failure is not known: pmset doesn't "
            "report it.",
            fix,
        )
    return BootFinding(
        "autorestart", BootVerdict.PREVENTS, "The Mac stays off when its power returns.", fix
    )


def _filevault(facts: BootFacts) -> BootFinding:
    if facts.filevault is None:
        return BootFinding(
            "filevault",
            BootVerdict.UNKNOWN,
            "Whether FileVault is on is not known: fdesetup doesn't report it.",
        )
    if not facts.filevault:
        return BootFinding(
            "filevault", BootVerdict.OK, "FileVault is off: the disk is unlocked at boot."
        )
    by_ssh = facts.macos_major is not None and facts.macos_major >= _UNLOCKS_OVER_SSH
    unlock = (
        "or unlock it over SSH with your password (Remote Login on, wired network)"
        if by_ssh
        else "or unlock it at its keyboard"
    )
    return BootFinding(
        "filevault",
        BootVerdict.PREVENTS,
        "FileVault is on: nothing runs after a power cut until the disk is unlocked.",
        f"switch FileVault off in System Settings > Privacy & Security, {unlock}; before a "
        "planned restart: sudo fdesetup authrestart",
    )


def _job(
    facts: BootFacts, domain: Domain | None, user: str, as_daemon: str
) -> Iterator[BootFinding]:
    if domain is None:
        yield BootFinding(
            "job", BootVerdict.PREVENTS, "The job isn't installed, so nothing restarts."
        )
    elif domain.kind is DomainKind.SYSTEM:
        yield BootFinding("job", BootVerdict.OK, "A LaunchDaemon starts at boot, before any login.")
    elif domain.kind is DomainKind.USER:
        yield BootFinding(
            "job",
            BootVerdict.PREVENTS,
            f"The domain {domain.target} is not created again at boot.",
            as_daemon,
        )
    else:
        yield _login(facts, user, as_daemon)


def _login(facts: BootFacts, user: str, as_daemon: str) -> BootFinding:
    if facts.auto_login_user == user and not facts.filevault:
        return BootFinding(
            "login", BootVerdict.OK, f"At boot {user} is logged in, which starts the agent."
        )
    fix = (
        f"{as_daemon}, which needs no login; or switch on automatic login in System Settings > "
        "Users & Groups (not available with FileVault)"
    )
    if facts.auto_login_user is None:
        return BootFinding(
            "login", BootVerdict.UNKNOWN, f"Whether {user} is logged in at boot is not known.", fix
        )
    return BootFinding(
        "login", BootVerdict.PREVENTS, f"A LaunchAgent starts only once {user} logs in.", fix
    )


def _sleep(facts: BootFacts) -> BootFinding:
    if facts.sleep_minutes == 0:
        return BootFinding("sleep", BootVerdict.OK, "The Mac does not sleep by itself.")
    if facts.sleep_minutes is None:
        return BootFinding(
            "sleep",
            BootVerdict.WARNING,
            "When the Mac sleeps is not known: pmset doesn't report it.",
        )
    return BootFinding(
        "sleep",
        BootVerdict.WARNING,
        f"The Mac sleeps after {facts.sleep_minutes} idle minutes, and then answers no requests.",
        "sudo pmset -a sleep 0",
    )
