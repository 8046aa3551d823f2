"""What launchd is told about a job: its plist's keys as one frozen value."""

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
    BACKGROUND = "Background"
    """Work that nobody waits for: strict limits."""
    INTERACTIVE = "Interactive"
    """As an application in the foreground: no limits. What a server with users wants."""
    ADAPTIVE = "Adaptive"
    """Between Background and Interactive, by activity over XPC."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """When launchd starts the job again; conditions are ORed, and any implies RunAtLoad.

    Attributes:
        successful_exit: True: after exit code 0. False: after any other end.
        crashed: True: after a signal of a crash, such as SIGSEGV. False: after any other end.
        path_state: While each path exists (True) or is absent (False).
        other_job_enabled: While another label is loaded (True) or not (False).
        after_initial_demand: Only once something has started it for the first time.
        network_state: Without effect since macOS 10.10; read so that old plists stay whole.
    """

    successful_exit: bool | None = field(default=None, metadata={"key": "SuccessfulExit"})
    crashed: bool | None = field(default=None, metadata={"key": "Crashed"})
    path_state: Mapping[str, bool] = field(
        default_factory=dict[str, bool], hash=False, metadata={"key": "PathState"}
    )
    other_job_enabled: Mapping[str, bool] = field(
        default_factory=dict[str, bool], hash=False, metadata={"key": "OtherJobEnabled"}
    )
    after_initial_demand: bool | None = field(default=None, metadata={"key": "AfterInitialDemand"})
    network_state: bool | None = field(default=None, metadata={"key": "NetworkState"})


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """Limits as setrlimit(2) takes them; None leaves the inherited one.

    Attributes:
        core_bytes: Size of a core file.
        cpu_s: CPU time.
        data_bytes: Size of the data segment.
        file_size_bytes: Size of a file that the job creates.
        memory_lock_bytes: Memory locked with mlock(2).
        number_of_files: Open files. In a LaunchDaemon's *hard or soft* limits this also changes
            `kern.maxfiles` and `kern.maxfilesperproc` of the whole machine.
        number_of_processes: Processes of the user.
        resident_set_size_bytes: Resident memory.
        stack_bytes: Size of the stack.
    """

    core_bytes: int | None = field(default=None, metadata={"key": "Core"})
    cpu_s: int | None = field(default=None, metadata={"key": "CPU"})
    data_bytes: int | None = field(default=None, metadata={"key": "Data"})
    file_size_bytes: int | None = field(default=None, metadata={"key": "FileSize"})
    memory_lock_bytes: int | None = field(default=None, metadata={"key": "MemoryLock"})
    number_of_files: int | None = field(default=None, metadata={"key": "NumberOfFiles"})
    number_of_processes: int | None = field(default=None, metadata={"key": "NumberOfProcesses"})
    resident_set_size_bytes: int | None = field(default=None, metadata={"key": "ResidentSetSize"})
    stack_bytes: int | None = field(default=None, metadata={"key": "Stack"})


@dataclass(frozen=True, slots=True)
class CalendarInterval:
    """A moment as in crontab(5); None matches any.

    Attributes:
        minute: 0 to 59.
        hour: 0 to 23.
        day: 1 to 31.
        weekday: 0 to 7, where 0 and 7 are Sunday.
        month: 1 to 12.
    """

    minute: int | None = field(default=None, metadata={"key": "Minute"})
    hour: int | None = field(default=None, metadata={"key": "Hour"})
    day: int | None = field(default=None, metadata={"key": "Day"})
    weekday: int | None = field(default=None, metadata={"key": "Weekday"})
    month: int | None = field(default=None, metadata={"key": "Month"})


@dataclass(frozen=True, slots=True)
class LaunchAgent:
    """A job for launchd: an agent of a user's session, or a daemon of the system domain.

    Each attribute is a key of launchd.plist(5), and a default means that the key is left out, so
    that launchd's own default counts. There is no shell and no expansion: every path is absolute,
    and a `~` or `$HOME` stays what it is.

    Attributes:
        label: `Label`: the unique name, in reverse-DNS form.
        program_arguments: `ProgramArguments`: the command; the first is an absolute path unless
            `program` is given.
        program: `Program`: what is executed, where the first argument is to be another word.
        disabled: `Disabled`: not loaded; `launchctl enable` and `disable` override it.
        run_at_load: `RunAtLoad`: started once when loaded.
        keep_alive: `KeepAlive`: True restarts it always; a KeepAlive under conditions.
        start_interval_s: `StartInterval`: started every so many seconds.
        start_calendar_interval: `StartCalendarInterval`: started at these moments.
        watch_paths: `WatchPaths`: started when one of these changes.
        queue_directories: `QueueDirectories`: kept running while one of these is not empty.
        environment_variables: `EnvironmentVariables`: launchd ignores any value but a string. A job
            without PATH gets `/usr/bin:/bin:/usr/sbin:/sbin`.
        working_directory: `WorkingDirectory`: the folder it starts in.
        root_directory: `RootDirectory`: chroot(2) there first.
        standard_in_path: `StandardInPath`: file connected to standard input.
        standard_out_path: `StandardOutPath`: file that standard output is appended to; its folder
            must exist, and launchd never rotates it.
        standard_error_path: `StandardErrorPath`: the same for standard error.
        throttle_interval_s: `ThrottleInterval`: not started more often than this; launchd's
            default is 10.
        exit_timeout_s: `ExitTimeOut`: from SIGTERM to SIGKILL; 0 waits for ever, which launchd
            advises against. Its own default shows as 5.
        process_type: `ProcessType`: limits on CPU and disk; the default throttles.
        nice: `Nice`: -20 to 20.
        low_priority_io: `LowPriorityIO`: disk access after everybody else.
        low_priority_background_io: `LowPriorityBackgroundIO`: the same while throttled.
        umask: `Umask`: as a number, so 0o022; written in decimal, as launchd reads it.
        soft_resource_limits: `SoftResourceLimits`.
        hard_resource_limits: `HardResourceLimits`.
        abandon_process_group: `AbandonProcessGroup`: when the job dies, leave the rest of its
            process group alive. Processes with a group of their own stay alive anyway.
        limit_load_to_session_type: `LimitLoadToSessionType` (agents): `Aqua`, `Background`,
            `LoginWindow`, `StandardIO`, `System`; launchd's default is Aqua.
        user_name: `UserName` (system domain only): whom it runs as.
        group_name: `GroupName` (system domain only).
        init_groups: `InitGroups` (system domain only): initgroups(3) for that user.
        session_create: `SessionCreate`: a security session of its own.
        legacy_timers: `LegacyTimers`: no coalescing of timers.
        associated_bundle_identifiers: `AssociatedBundleIdentifiers`: the application shown for it
            in Login Items.
        other_keys: Keys that this library has no name for, as they are in the plist.
    """

    label: str = field(metadata={"key": "Label"})
    program_arguments: tuple[str, ...] = field(default=(), metadata={"key": "ProgramArguments"})
    program: str | None = field(default=None, metadata={"key": "Program"})
    disabled: bool = field(default=False, metadata={"key": "Disabled"})
    run_at_load: bool = field(default=False, metadata={"key": "RunAtLoad"})
    keep_alive: bool | KeepAlive = field(default=False, metadata={"key": "KeepAlive"})
    start_interval_s: int | None = field(default=None, metadata={"key": "StartInterval"})
    start_calendar_interval: tuple[CalendarInterval, ...] = field(
        default=(), metadata={"key": "StartCalendarInterval"}
    )
    watch_paths: tuple[str, ...] = field(default=(), metadata={"key": "WatchPaths"})
    queue_directories: tuple[str, ...] = field(default=(), metadata={"key": "QueueDirectories"})
    environment_variables: Mapping[str, str] = field(
        default_factory=dict[str, str], hash=False, metadata={"key": "EnvironmentVariables"}
    )
    working_directory: str | None = field(default=None, metadata={"key": "WorkingDirectory"})
    root_directory: str | None = field(default=None, metadata={"key": "RootDirectory"})
    standard_in_path: str | None = field(default=None, metadata={"key": "StandardInPath"})
    standard_out_path: str | None = field(default=None, metadata={"key": "StandardOutPath"})
    standard_error_path: str | None = field(default=None, metadata={"key": "StandardErrorPath"})
    throttle_interval_s: int | None = field(default=None, metadata={"key": "ThrottleInterval"})
    exit_timeout_s: int | None = field(default=None, metadata={"key": "ExitTimeOut"})
    process_type: ProcessType | None = field(default=None, metadata={"key": "ProcessType"})
    nice: int | None = field(default=None, metadata={"key": "Nice"})
    low_priority_io: bool = field(default=False, metadata={"key": "LowPriorityIO"})
    low_priority_background_io: bool = field(
        default=False, metadata={"key": "LowPriorityBackgroundIO"}
    )
    umask: int | None = field(default=None, metadata={"key": "Umask"})
    soft_resource_limits: ResourceLimits = field(
        default=ResourceLimits(), metadata={"key": "SoftResourceLimits"}
    )
    hard_resource_limits: ResourceLimits = field(
        default=ResourceLimits(), metadata={"key": "HardResourceLimits"}
    )
    abandon_process_group: bool = field(default=False, metadata={"key": "AbandonProcessGroup"})
    limit_load_to_session_type: tuple[str, ...] = field(
        default=(), metadata={"key": "LimitLoadToSessionType"}
    )
    user_name: str | None = field(default=None, metadata={"key": "UserName"})
    group_name: str | None = field(default=None, metadata={"key": "GroupName"})
    init_groups: bool | None = field(default=None, metadata={"key": "InitGroups"})
    session_create: bool = field(default=False, metadata={"key": "SessionCreate"})
    legacy_timers: bool = field(default=False, metadata={"key": "LegacyTimers"})
    associated_bundle_identifiers: tuple[str, ...] = field(
        default=(), metadata={"key": "AssociatedBundleIdentifiers"}
    )
    other_keys: Mapping[str, PlistValue] = field(default_factory=dict[str, PlistValue], hash=False)
