"""Facts about a Mac, from programs of macOS (decision 0068)."""

from collections.abc import Mapping
from pathlib import Path

from mlx_launchd.boot import BootFacts
from mlx_launchd.command import CommandRunner, Completed
from mlx_launchd.domain import Session
from mlx_launchd.errors import LaunchdError, OutputError, ProgramMissingError
from mlx_launchd.plist import read_entries
from mlx_launchd.power import PowerSettings, parse_filevault, parse_pmset


def detect_session(run: CommandRunner, environment: Mapping[str, str]) -> Session:
    """The calling user and session, from `id`, the owner of `/dev/console` and sshd's variables.

    Raises:
        LaunchdError: `id` does not answer with a user.
    """
    uid = _uid(run(("id", "-u")).stdout)
    user = run(("id", "-un")).stdout.strip()
    if uid is None or not user:
        raise LaunchdError("`id` does not report the user")
    return Session(
        uid=uid,
        user=user,
        console_uid=_console_uid(run),
        is_ssh="SSH_CONNECTION" in environment or "SSH_TTY" in environment,
        is_sudo="SUDO_UID" in environment,
    )


def detect_boot_facts(run: CommandRunner) -> BootFacts:
    """The facts that decide whether the machine comes back; unknown ones are None."""
    filevault = _asked(run, ("fdesetup", "status"))
    version = _asked(run, ("sw_vers", "-productVersion"))
    power = detect_power_settings(run)
    batteries = _asked(run, ("pmset", "-g", "batt"))
    return BootFacts(
        filevault=None if filevault is None else parse_filevault(filevault.stdout),
        auto_login_user=_auto_login_user(run),
        autorestart=power.autorestart,
        autorestart_at_connect=power.autorestart_at_connect,
        has_battery=None if batteries is None else "InternalBattery" in batteries.stdout,
        sleep_minutes=power.sleep_minutes,
        macos_major=None if version is None else _macos_major(version.stdout),
    )


def detect_power_settings(run: CommandRunner) -> PowerSettings:
    """`pmset`'s settings for mains power; all None if it does not answer."""
    custom = _asked(run, ("pmset", "-g", "custom"))
    if custom is None or custom.returncode != 0:
        return PowerSettings()
    try:
        return parse_pmset(custom.stdout)
    except OutputError:
        return PowerSettings()


def volume_problem(run: CommandRunner, volume: Path) -> str | None:
    """Why a volume may be missing when the Mac starts, by `diskutil`; None if it is there by then.

    macOS mounts the fixed disks inside a Mac before anyone logs in, and all others afterwards.
    """
    answer = _asked(run, ("diskutil", "info", "-plist", str(volume)))
    facts = read_entries(answer.stdout.encode()) if answer is not None else {}
    if facts.get("MountPoint") != str(volume):
        return "diskutil doesn't know it"
    is_inside = facts.get("Internal"), facts.get("RemovableMediaOrExternalDevice")
    if is_inside != (True, False) or facts.get("Ejectable") is not False:
        return "it is not a disk inside the Mac"
    is_encrypted = facts.get("FileVault")
    if is_encrypted is None:
        return "diskutil doesn't say whether it is encrypted"
    return "it is encrypted, and may be locked then" if is_encrypted else None


def _macos_major(version: str) -> int | None:
    """26 for "26.5"; None for what macOS calls itself in front of an old program: 10.16, 16.0."""
    major = _uid(version.partition(".")[0])
    return None if major is None or major < 11 or 15 < major < 26 else major


def _console_uid(run: CommandRunner) -> int | None:
    """Who owns the console. GNU's `stat`, which many put first on PATH, wants another flag."""
    for flag in ("-f", "-c"):
        answer = _asked(run, ("stat", flag, "%u", "/dev/console"))
        if answer is not None and answer.returncode == 0 and _uid(answer.stdout) is not None:
            return _uid(answer.stdout)
    return None


def _auto_login_user(run: CommandRunner) -> str | None:
    """Who is logged in at boot, `""` for no one, None where `defaults` is not there.

    `defaults read` exits with 1 where the key does not exist, which is how the setting says off.
    """
    answer = _asked(
        run, ("defaults", "read", "/Library/Preferences/com.apple.loginwindow", "autoLoginUser")
    )
    if answer is None:
        return None
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _asked(run: CommandRunner, command: tuple[str, ...]) -> Completed | None:
    try:
        return run(command)
    except ProgramMissingError:
        return None


def _uid(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() else None
