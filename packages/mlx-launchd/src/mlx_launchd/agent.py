"""What launchd needs to know about a job: the keys of its plist as one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

type PlistValue = (
    str | int | float | bool | bytes | datetime | list["PlistValue"] | dict[str, "PlistValue"]
)
"""What a property list can hold."""


class ProcessType(StrEnum):
    """How launchd treats the job's use of CPU and disk."""

    STANDARD = "Standard"
    """The default: light limits that throttle CPU and disk bandwidth."""
    INTERACTIVE = "Interactive"
    """Like an application in the foreground: no limits. Suits a server with users."""


@dataclass(frozen=True, slots=True)
class LaunchAgent:
    """A job for launchd: an agent of a user's session, or a daemon of the system domain.

    The attributes are the keys of launchd.plist(5) that a server needs. With a default value the
    key is left out, so that launchd's own default applies. There is no shell and no expansion:
    every path is absolute, and a `~` or `$HOME` isn't expanded.

    Attributes:
        keep_alive: `KeepAlive`: restarted however it ends; implies `run_at_load`.
        standard_out_path: `StandardOutPath`: file that standard output is appended to; its folder
            must exist, and launchd never rotates it.
        throttle_interval_s: `ThrottleInterval`: not started more often than this; launchd's default
            is 10.
        exit_timeout_s: `ExitTimeOut`: from SIGTERM to SIGKILL; 0 waits indefinitely, which launchd
            advises against. Its own default is shown as 5.
        process_type: `ProcessType`: limits on CPU and disk; the default throttles.
        number_of_files: `SoftResourceLimits.NumberOfFiles`: open files. In a daemon this also
            changes `kern.maxfiles` and `kern.maxfilesperproc` of the whole machine.
        user_name: `UserName`: the user that a daemon runs as; launchd ignores it in an agent.
        other_keys: All other keys, as they are written: `{"StartInterval": 3600}`. They are checked
            only for values that a property list can't contain.
    """

    label: str
    program_arguments: tuple[str, ...]
    run_at_load: bool = False
    keep_alive: bool = False
    environment_variables: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    working_directory: str | None = None
    standard_out_path: str | None = None
    standard_error_path: str | None = None
    throttle_interval_s: int | None = None
    exit_timeout_s: int | None = None
    process_type: ProcessType | None = None
    number_of_files: int | None = None
    user_name: str | None = None
    other_keys: Mapping[str, PlistValue] = field(default_factory=dict[str, PlistValue], hash=False)
