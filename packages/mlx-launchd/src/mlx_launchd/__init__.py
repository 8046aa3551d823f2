"""LaunchAgents and LaunchDaemons from Python: plists, launchctl, and its exit codes."""

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
