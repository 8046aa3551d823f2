"""LaunchAgents and LaunchDaemons from Python: plists, launchctl, and its exit codes."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_launchd.agent import LaunchAgent as LaunchAgent
    from mlx_launchd.agent import PlistValue as PlistValue
    from mlx_launchd.agent import ProcessType as ProcessType
    from mlx_launchd.boot import BootFacts as BootFacts
    from mlx_launchd.boot import BootFinding as BootFinding
    from mlx_launchd.boot import BootOutlook as BootOutlook
    from mlx_launchd.boot import BootVerdict as BootVerdict
    from mlx_launchd.boot import boot_outlook as boot_outlook
    from mlx_launchd.command import Clock as Clock
    from mlx_launchd.command import CommandRunner as CommandRunner
    from mlx_launchd.command import Completed as Completed
    from mlx_launchd.command import InputRunner as InputRunner
    from mlx_launchd.command import SubprocessRun as SubprocessRun
    from mlx_launchd.command import SystemClock as SystemClock
    from mlx_launchd.detect import detect_boot_facts as detect_boot_facts
    from mlx_launchd.detect import detect_power_settings as detect_power_settings
    from mlx_launchd.detect import detect_session as detect_session
    from mlx_launchd.detect import volume_problem as volume_problem
    from mlx_launchd.domain import SYSTEM as SYSTEM
    from mlx_launchd.domain import Domain as Domain
    from mlx_launchd.domain import DomainChoice as DomainChoice
    from mlx_launchd.domain import DomainKind as DomainKind
    from mlx_launchd.domain import Session as Session
    from mlx_launchd.domain import choose_domain as choose_domain
    from mlx_launchd.domain import places_to_look as places_to_look
    from mlx_launchd.errors import DisabledError as DisabledError
    from mlx_launchd.errors import LaunchctlError as LaunchctlError
    from mlx_launchd.errors import LaunchdError as LaunchdError
    from mlx_launchd.errors import NoSessionError as NoSessionError
    from mlx_launchd.errors import NotPermittedError as NotPermittedError
    from mlx_launchd.errors import NotRunningError as NotRunningError
    from mlx_launchd.errors import OutputError as OutputError
    from mlx_launchd.errors import PlistError as PlistError
    from mlx_launchd.errors import ProgramMissingError as ProgramMissingError
    from mlx_launchd.errors import StillStoppingError as StillStoppingError
    from mlx_launchd.exit_codes import LaunchctlStatus as LaunchctlStatus
    from mlx_launchd.exit_codes import Verb as Verb
    from mlx_launchd.exit_codes import classify as classify
    from mlx_launchd.files import PlistFiles as PlistFiles
    from mlx_launchd.files import RootPlistFiles as RootPlistFiles
    from mlx_launchd.files import UserPlistFiles as UserPlistFiles
    from mlx_launchd.files import check_plist_file as check_plist_file
    from mlx_launchd.files import lint as lint
    from mlx_launchd.installation import InstalledJob as InstalledJob
    from mlx_launchd.installation import Installer as Installer
    from mlx_launchd.installation import JobOutcome as JobOutcome
    from mlx_launchd.jobs import Jobs as Jobs
    from mlx_launchd.jobs import JobTimeouts as JobTimeouts
    from mlx_launchd.jobs import LoadedJob as LoadedJob
    from mlx_launchd.jobs import volume_of as volume_of
    from mlx_launchd.launchctl import Launchctl as Launchctl
    from mlx_launchd.launchctl import LaunchctlAnswer as LaunchctlAnswer
    from mlx_launchd.output import PrintedJob as PrintedJob
    from mlx_launchd.output import parse_print as parse_print
    from mlx_launchd.output import parse_print_disabled as parse_print_disabled
    from mlx_launchd.plist import read_entries as read_entries
    from mlx_launchd.plist import to_plist as to_plist
    from mlx_launchd.power import PowerSettings as PowerSettings
    from mlx_launchd.power import parse_filevault as parse_filevault
    from mlx_launchd.power import parse_pmset as parse_pmset

__version__ = "0.1.0"

# A module is loaded when one of its names is first used.
_NAMES_IN = {
    "agent": "LaunchAgent PlistValue ProcessType",
    "boot": "BootFacts BootFinding BootOutlook BootVerdict boot_outlook",
    "command": "Clock CommandRunner Completed InputRunner SubprocessRun SystemClock",
    "detect": "detect_boot_facts detect_power_settings detect_session volume_problem",
    "domain": ("SYSTEM Domain DomainChoice DomainKind Session choose_domain places_to_look"),
    "errors": (
        "DisabledError LaunchctlError LaunchdError NoSessionError "
        "NotPermittedError NotRunningError OutputError PlistError "
        "ProgramMissingError StillStoppingError"
    ),
    "exit_codes": "LaunchctlStatus Verb classify",
    "files": "PlistFiles RootPlistFiles UserPlistFiles check_plist_file lint",
    "installation": "JobOutcome InstalledJob Installer",
    "jobs": "JobTimeouts Jobs LoadedJob volume_of",
    "launchctl": "Launchctl LaunchctlAnswer",
    "output": "PrintedJob parse_print parse_print_disabled",
    "plist": "read_entries to_plist",
    "power": "PowerSettings parse_filevault parse_pmset",
}
_MODULE_OF = {name: module for module, names in _NAMES_IN.items() for name in names.split()}


def __dir__() -> list[str]:
    return ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> object:
    if name == "__all__":
        return __dir__()
    if name in _MODULE_OF:
        return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
