"""LaunchAgents and LaunchDaemons from Python: plists, launchctl, and its exit codes."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlx_launchd.agent import (
        CalendarInterval,
        KeepAlive,
        LaunchAgent,
        PlistValue,
        ProcessType,
        ResourceLimits,
    )
    from mlx_launchd.assertion import KeepAwake, ServingHistory, caffeinate_command, should_hold
    from mlx_launchd.boot import BootFacts, BootFinding, BootOutlook, Verdict, boot_outlook
    from mlx_launchd.command import Clock, Completed, Run, SubprocessRun, SystemClock
    from mlx_launchd.domain import (
        SYSTEM,
        Domain,
        DomainChoice,
        DomainKind,
        Session,
        choose_domain,
        places_to_look,
    )
    from mlx_launchd.errors import (
        DisabledError,
        LaunchctlError,
        LaunchdError,
        NoSessionError,
        NotPermittedError,
        NotRunningError,
        OutputError,
        PlistError,
        ProgramMissingError,
        StillStoppingError,
    )
    from mlx_launchd.exit_codes import Situation, Verb, classify
    from mlx_launchd.files import PlistFiles, RootPlistFiles, UserPlistFiles, check_plist_file, lint
    from mlx_launchd.installation import Installed, Installer, Outcome
    from mlx_launchd.launchctl import Answer, Launchctl
    from mlx_launchd.lifecycle import Lifecycle, LoadedJob, Patience
    from mlx_launchd.machine import detect_boot_facts, detect_power_settings, detect_session
    from mlx_launchd.output import (
        ListedJob,
        PrintedJob,
        parse_list,
        parse_print,
        parse_print_disabled,
    )
    from mlx_launchd.plist import from_plist, to_plist
    from mlx_launchd.power import PowerSettings, parse_filevault, parse_pmset
    from mlx_launchd.validation import validate

__version__ = "0.1.0"

_MODULE_OF = {
    "Answer": "launchctl",
    "BootFacts": "boot",
    "BootFinding": "boot",
    "BootOutlook": "boot",
    "CalendarInterval": "agent",
    "Clock": "command",
    "Completed": "command",
    "DisabledError": "errors",
    "Domain": "domain",
    "DomainChoice": "domain",
    "DomainKind": "domain",
    "Installed": "installation",
    "Installer": "installation",
    "KeepAlive": "agent",
    "KeepAwake": "assertion",
    "LaunchAgent": "agent",
    "Launchctl": "launchctl",
    "LaunchctlError": "errors",
    "LaunchdError": "errors",
    "Lifecycle": "lifecycle",
    "ListedJob": "output",
    "LoadedJob": "lifecycle",
    "NoSessionError": "errors",
    "NotPermittedError": "errors",
    "NotRunningError": "errors",
    "Outcome": "installation",
    "OutputError": "errors",
    "Patience": "lifecycle",
    "PlistError": "errors",
    "PlistFiles": "files",
    "PlistValue": "agent",
    "PowerSettings": "power",
    "PrintedJob": "output",
    "ProcessType": "agent",
    "ProgramMissingError": "errors",
    "ResourceLimits": "agent",
    "RootPlistFiles": "files",
    "Run": "command",
    "SYSTEM": "domain",
    "ServingHistory": "assertion",
    "Session": "domain",
    "Situation": "exit_codes",
    "StillStoppingError": "errors",
    "SubprocessRun": "command",
    "SystemClock": "command",
    "UserPlistFiles": "files",
    "Verb": "exit_codes",
    "Verdict": "boot",
    "boot_outlook": "boot",
    "caffeinate_command": "assertion",
    "check_plist_file": "files",
    "choose_domain": "domain",
    "classify": "exit_codes",
    "detect_boot_facts": "machine",
    "detect_power_settings": "machine",
    "detect_session": "machine",
    "from_plist": "plist",
    "lint": "files",
    "parse_filevault": "power",
    "parse_list": "output",
    "parse_pmset": "power",
    "parse_print": "output",
    "parse_print_disabled": "output",
    "places_to_look": "domain",
    "should_hold": "assertion",
    "to_plist": "plist",
    "validate": "validation",
}

__all__ = [
    "SYSTEM",
    "Answer",
    "BootFacts",
    "BootFinding",
    "BootOutlook",
    "CalendarInterval",
    "Clock",
    "Completed",
    "DisabledError",
    "Domain",
    "DomainChoice",
    "DomainKind",
    "Installed",
    "Installer",
    "KeepAlive",
    "KeepAwake",
    "LaunchAgent",
    "Launchctl",
    "LaunchctlError",
    "LaunchdError",
    "Lifecycle",
    "ListedJob",
    "LoadedJob",
    "NoSessionError",
    "NotPermittedError",
    "NotRunningError",
    "Outcome",
    "OutputError",
    "Patience",
    "PlistError",
    "PlistFiles",
    "PlistValue",
    "PowerSettings",
    "PrintedJob",
    "ProcessType",
    "ProgramMissingError",
    "ResourceLimits",
    "RootPlistFiles",
    "Run",
    "ServingHistory",
    "Session",
    "Situation",
    "StillStoppingError",
    "SubprocessRun",
    "SystemClock",
    "UserPlistFiles",
    "Verb",
    "Verdict",
    "__version__",
    "boot_outlook",
    "caffeinate_command",
    "check_plist_file",
    "choose_domain",
    "classify",
    "detect_boot_facts",
    "detect_power_settings",
    "detect_session",
    "from_plist",
    "lint",
    "parse_filevault",
    "parse_list",
    "parse_pmset",
    "parse_print",
    "parse_print_disabled",
    "places_to_look",
    "should_hold",
    "to_plist",
    "validate",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
