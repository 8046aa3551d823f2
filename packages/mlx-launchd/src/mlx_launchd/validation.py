"""What launchd would refuse, or silently read as something else, said before a file is written."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import datetime
from pathlib import PurePosixPath

from mlx_launchd.agent import (
    CalendarInterval,
    KeepAlive,
    LaunchAgent,
    PlistValue,
    ResourceLimits,
)
from mlx_launchd.entries import from_entries, to_entries
from mlx_launchd.errors import PlistError

# XML 1.0 has no place for these, and its parsers turn a carriage return into a newline.
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_LABEL = re.compile(r"[^/\s]+")
_SMALLEST_INTEGER = -(1 << 63)
_LARGEST_INTEGER = (1 << 64) - 1
_SESSION_TYPES = frozenset({"Aqua", "Background", "LoginWindow", "StandardIO", "System"})

_RANGES = {
    "StartInterval": (1, _LARGEST_INTEGER),
    "ThrottleInterval": (0, _LARGEST_INTEGER),
    "ExitTimeOut": (0, _LARGEST_INTEGER),
    "Nice": (-20, 20),
    "Umask": (0, 0o777),
    "Minute": (0, 59),
    "Hour": (0, 23),
    "Day": (1, 31),
    "Weekday": (0, 7),
    "Month": (1, 12),
}


def validate(agent: LaunchAgent, *, system: bool | None = None) -> None:
    """Return if launchd would take this job as it is meant.

    Args:
        agent: The job.
        system: True for a LaunchDaemon, False for an agent of a session; None where that is
            not known yet, so that what only one of them may have is not checked.

    Raises:
        PlistError: The first thing that launchd would refuse or read differently.
    """
    _check_other_keys(agent)
    # As launchd reads it back: a value of another type than it documents is refused.
    agent = from_entries(to_entries(agent))
    _check_label(agent)
    _check_program(agent)
    _check_paths(agent)
    _check_environment(agent.environment_variables)
    _check_numbers(agent)
    _check_sessions(agent, system=system)
    _check_keep_alive(agent.keep_alive)
    for key, text in _texts(agent):
        _check_text(key, text)


def _check_label(agent: LaunchAgent) -> None:
    if not _LABEL.fullmatch(agent.label):
        raise PlistError(
            "Label", expected="a name without blanks or slashes", got=repr(agent.label)
        )


def _check_program(agent: LaunchAgent) -> None:
    if agent.program is None and not agent.program_arguments:
        raise PlistError("ProgramArguments", expected="a command", got="nothing")
    if agent.program is None:
        _check_path("ProgramArguments.0", agent.program_arguments[0])
    else:
        _check_path("Program", agent.program)
    for number, argument in enumerate(agent.program_arguments):
        if argument == "~" or argument.startswith("~/"):
            raise PlistError(
                f"ProgramArguments.{number}",
                expected="a path that needs no shell to expand it",
                got=repr(argument),
            )


def _check_paths(agent: LaunchAgent) -> None:
    singles = {
        "WorkingDirectory": agent.working_directory,
        "RootDirectory": agent.root_directory,
        "StandardInPath": agent.standard_in_path,
        "StandardOutPath": agent.standard_out_path,
        "StandardErrorPath": agent.standard_error_path,
    }
    for key, path in singles.items():
        if path is not None:
            _check_path(key, path)
    for key, paths in (
        ("WatchPaths", agent.watch_paths),
        ("QueueDirectories", agent.queue_directories),
    ):
        for number, path in enumerate(paths):
            _check_path(f"{key}.{number}", path)


def _check_path(key: str, path: str) -> None:
    if not PurePosixPath(path).is_absolute():
        raise PlistError(
            key,
            expected="an absolute path",
            got=repr(path),
            hint="launchd expands neither ~ nor variables and searches no PATH.",
        )


def _check_environment(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        if not name or "=" in name:
            raise PlistError("EnvironmentVariables", expected="a variable's name", got=repr(name))
        if any(part == "~" or part.startswith("~/") for part in value.split(":")):
            raise PlistError(
                f"EnvironmentVariables.{name}",
                expected="a path that needs no shell to expand it",
                got=repr(value),
            )


def _check_numbers(agent: LaunchAgent) -> None:
    numbers: list[tuple[str, int | None]] = [
        ("StartInterval", agent.start_interval_s),
        ("ThrottleInterval", agent.throttle_interval_s),
        ("ExitTimeOut", agent.exit_timeout_s),
        ("Nice", agent.nice),
        ("Umask", agent.umask),
        *_members("SoftResourceLimits", agent.soft_resource_limits),
        *_members("HardResourceLimits", agent.hard_resource_limits),
    ]
    for index, moment in enumerate(agent.start_calendar_interval):
        numbers += _members(f"StartCalendarInterval.{index}", moment)
    for key, number in numbers:
        low, high = _RANGES.get(key.rpartition(".")[2], (0, _LARGEST_INTEGER))
        if number is not None and not low <= number <= high:
            raise PlistError(key, expected=f"a number from {low} to {high}", got=str(number))


def _members(prefix: str, value: ResourceLimits | CalendarInterval) -> list[tuple[str, int | None]]:
    return [(f"{prefix}.{f.metadata['key']}", getattr(value, f.name)) for f in fields(value)]


def _check_sessions(agent: LaunchAgent, *, system: bool | None) -> None:
    for session in agent.limit_load_to_session_type:
        if session not in _SESSION_TYPES:
            raise PlistError(
                "LimitLoadToSessionType",
                expected="one of " + ", ".join(sorted(_SESSION_TYPES)),
                got=repr(session),
            )
    if system is False:
        for key, value in (("UserName", agent.user_name), ("GroupName", agent.group_name)):
            if value is not None:
                raise PlistError(key, expected="no such key in an agent", got=repr(value))
    if system is True and agent.limit_load_to_session_type:
        raise PlistError(
            "LimitLoadToSessionType",
            expected="no such key in a daemon",
            got=", ".join(agent.limit_load_to_session_type),
        )


def _check_keep_alive(keep_alive: bool | KeepAlive) -> None:
    if isinstance(keep_alive, KeepAlive):
        for path in keep_alive.path_state:
            _check_path("KeepAlive.PathState", path)


def _check_other_keys(agent: LaunchAgent) -> None:
    own = {f.metadata["key"] for f in fields(LaunchAgent) if "key" in f.metadata}
    for key in agent.other_keys:
        if key in own:
            raise PlistError(key, expected="its own attribute", got="an entry of other_keys")


def _texts(agent: LaunchAgent) -> Iterator[tuple[str, str]]:
    """Give every text that would be written, with the key it stands under."""
    for f in fields(agent):
        value = getattr(agent, f.name)
        if f.name == "other_keys":
            for key, other in agent.other_keys.items():
                yield key, key
                yield from _nested_texts(key, other)
        elif isinstance(value, str):
            yield f.metadata["key"], value
        elif isinstance(value, tuple):
            yield from ((f.metadata["key"], part) for part in value if isinstance(part, str))  # pyright: ignore[reportUnknownVariableType] -- any tuple
    for name, text in agent.environment_variables.items():
        yield "EnvironmentVariables", name
        yield f"EnvironmentVariables.{name}", text
    if isinstance(agent.keep_alive, KeepAlive):
        for name in (*agent.keep_alive.path_state, *agent.keep_alive.other_job_enabled):
            yield "KeepAlive", name


def _nested_texts(key: str, value: PlistValue) -> Iterator[tuple[str, str]]:
    match value:
        case str():
            yield key, value
        case dict():
            for name, member in value.items():
                yield key, name
                yield from _nested_texts(f"{key}.{name}", member)
        case list():
            for index, member in enumerate(value):
                yield from _nested_texts(f"{key}.{index}", member)
        case _:
            _check_scalar(key, value)


def _check_scalar(key: str, value: object) -> None:
    if not isinstance(value, int | float | bytes | datetime):
        raise PlistError(key, expected="what a property list can hold", got=repr(value))
    if isinstance(value, datetime) and (value.microsecond or value.tzinfo is not None):
        raise PlistError(key, expected="a UTC time in whole seconds", got=str(value))
    if isinstance(value, int) and not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        raise PlistError(key, expected="a number of 64 bits", got=str(value))


def _check_text(key: str, text: str) -> None:
    unwritable = _UNWRITABLE.search(text)
    if unwritable:
        raise PlistError(key, expected="text that XML can hold", got=ascii(text))
