"""Pure parsers for what macOS says about power, disk encryption and automatic login."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_launchd.errors import OutputError

_SETTING = re.compile(r"\s+(\S.*?)\s+(\S+)(?:\s+\((.*)\))?\s*")
_SECTION = re.compile(r"(\S.*):\s*")
_FILEVAULT = re.compile(r"FileVault is (On|Off)\b")


@dataclass(frozen=True, slots=True)
class PowerSettings:
    """The settings that `pmset -g custom` or `pmset -g` shows; None for what a machine lacks.

    Attributes:
        sleep_minutes: Idle time after which the machine sleeps; 0 is never.
        sleep_disabled: `pmset disablesleep`: it doesn't even sleep when the lid is closed.
        autorestart: Starts automatically after a power failure.
        autorestart_at_connect: Starts when power is connected; Mac minis since 2024.
        wake_on_lan: Wakes for network access.
        sleep_prevented_by: Programs that keep it awake right now; only `pmset -g` shows them.
    """

    sleep_minutes: int | None = None
    sleep_disabled: bool | None = None
    autorestart: bool | None = None
    autorestart_at_connect: bool | None = None
    wake_on_lan: bool | None = None
    sleep_prevented_by: tuple[str, ...] = ()


def parse_pmset(text: str) -> PowerSettings:
    """The settings that apply on mains power, from `pmset -g custom` or `pmset -g`.

    Raises:
        OutputError: There is no setting in the text.
    """
    sections: dict[str, dict[str, tuple[str, str]]] = {}
    current = sections.setdefault("", {})
    for line in text.split("\n"):
        section = _SECTION.fullmatch(line.rstrip())
        setting = _SETTING.fullmatch(line)
        if section:
            current = sections.setdefault(section[1], {})
        elif setting:
            current.setdefault(setting[1], (setting[2], setting[3] or ""))
    on_mains: dict[str, tuple[str, str]] = {}
    for name, settings in sections.items():
        if name not in {"Battery Power", "UPS Power"}:
            on_mains |= settings
    if not on_mains:
        raise OutputError("this is not what `pmset -g` writes")
    prevented = on_mains.get("sleep", ("", ""))[1].removeprefix("sleep prevented by ")
    return PowerSettings(
        sleep_minutes=_number(on_mains, "sleep"),
        sleep_disabled=_switch(on_mains, "SleepDisabled"),
        autorestart=_switch(on_mains, "autorestart"),
        autorestart_at_connect=_switch(on_mains, "autorestartatconnect"),
        wake_on_lan=_switch(on_mains, "womp"),
        sleep_prevented_by=tuple(name.strip() for name in prevented.split(",") if name.strip()),
    )


def parse_filevault(text: str) -> bool | None:
    """Whether `fdesetup status` says that FileVault is on; None if it says neither."""
    found = _FILEVAULT.search(text)
    return None if found is None else found[1] == "On"


def _number(settings: Mapping[str, tuple[str, str]], key: str) -> int | None:
    value = settings.get(key, ("", ""))[0]
    return int(value) if re.fullmatch(r"[0-9]{1,9}", value) else None


def _switch(settings: Mapping[str, tuple[str, str]], key: str) -> bool | None:
    number = _number(settings, key)
    return None if number is None else number != 0
