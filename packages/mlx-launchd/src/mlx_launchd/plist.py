"""Converts a LaunchAgent to a property list that launchd interprets as intended; pure.

Values that launchd would refuse, or silently interpret differently, are an error before anything is
written.
"""

import plistlib
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import cast
from xml.parsers.expat import ExpatError

from mlx_launchd.agent import LaunchAgent, PlistValue, ProcessType
from mlx_launchd.errors import PlistError

# XML 1.0 has no place for these, and its parsers turn a carriage return into a newline.
_UNWRITABLE = re.compile("[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]")
_LABEL = re.compile(r"[^/\s]+")
_SMALLEST_INTEGER = -(1 << 63)
_LARGEST_INTEGER = (1 << 64) - 1


def to_plist(agent: LaunchAgent, *, system: bool | None = None) -> bytes:
    """The XML property list of the job, keys in the order of LaunchAgent.

    Args:
        system: Whether it is a daemon of the system domain; None if that is not known yet, so that
            keys reserved for daemons are not checked.

    Raises:
        PlistError: launchd would refuse the job or interpret it differently.
    """
    _check_program(agent)
    _check_paths(agent)
    _check_environment(agent.environment_variables)
    _check_others(agent)
    if system is False and agent.user_name is not None:
        raise PlistError("UserName", expected="no such key in an agent", got=repr(agent.user_name))
    entries = _own_entries(agent)
    for key in agent.other_keys:
        if key in entries:
            raise PlistError(key, expected="its own attribute", got="an entry of other_keys")
    entries |= agent.other_keys
    for key, text in _texts("", entries):
        if _UNWRITABLE.search(text):
            raise PlistError(key, expected="text that XML can hold", got=ascii(text))
    return plistlib.dumps(entries, fmt=plistlib.FMT_XML, sort_keys=False)


def read_entries(plist: bytes) -> dict[str, object]:
    """The keys and values of a plist as they are; empty if it can't be read."""
    try:
        entries: object = plistlib.loads(plist)
    except (
        # plistlib lets through whatever its parsers meet in a damaged file.
        ExpatError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
        RecursionError,
    ):
        return {}
    return cast("dict[str, object]", entries) if isinstance(entries, dict) else {}


def _own_entries(agent: LaunchAgent) -> dict[str, PlistValue]:
    """The keys that have an attribute, those at their defaults left out."""
    files = agent.number_of_files
    entries: dict[str, PlistValue | None] = {
        "Label": agent.label,
        "ProgramArguments": list(agent.program_arguments),
        "RunAtLoad": agent.run_at_load or None,
        "KeepAlive": agent.keep_alive or None,
        "EnvironmentVariables": dict(agent.environment_variables) or None,
        "WorkingDirectory": agent.working_directory,
        "StandardOutPath": agent.standard_out_path,
        "StandardErrorPath": agent.standard_error_path,
        "ThrottleInterval": agent.throttle_interval_s,
        "ExitTimeOut": agent.exit_timeout_s,
        "ProcessType": agent.process_type.value if agent.process_type else None,
        "SoftResourceLimits": {"NumberOfFiles": files} if files is not None else None,
        "UserName": agent.user_name,
    }
    return {key: value for key, value in entries.items() if value is not None}


def _check_program(agent: LaunchAgent) -> None:
    _require_type("Label", agent.label, str)
    if not _LABEL.fullmatch(agent.label):
        raise PlistError(
            "Label", expected="a name without blanks or slashes", got=repr(agent.label)
        )
    _require_type("ProgramArguments", agent.program_arguments, tuple)
    if not agent.program_arguments:
        raise PlistError("ProgramArguments", expected="a command", got="nothing")
    for number, argument in enumerate(agent.program_arguments):
        _require_type(f"ProgramArguments.{number}", argument, str)
        _check_expanded(f"ProgramArguments.{number}", argument, argument)
    _check_path("ProgramArguments.0", agent.program_arguments[0])


def _check_paths(agent: LaunchAgent) -> None:
    paths = {
        "WorkingDirectory": agent.working_directory,
        "StandardOutPath": agent.standard_out_path,
        "StandardErrorPath": agent.standard_error_path,
    }
    for key, path in paths.items():
        if path is not None:
            _require_type(key, path, str)
            _check_path(key, path)


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
        _require_type("EnvironmentVariables", name, str)
        if not name or "=" in name:
            raise PlistError("EnvironmentVariables", expected="a variable's name", got=repr(name))
        # launchd ignores a value of another type.
        _require_type(f"EnvironmentVariables.{name}", value, str)
        for part in value.split(":"):
            _check_expanded(f"EnvironmentVariables.{name}", part, value)


def _check_expanded(key: str, part: str, whole: str) -> None:
    if part == "~" or part.startswith("~/"):
        raise PlistError(key, expected="a path that needs no shell to expand it", got=repr(whole))


def _check_others(agent: LaunchAgent) -> None:
    _require_type("RunAtLoad", agent.run_at_load, bool)
    _require_type("KeepAlive", agent.keep_alive, bool)
    _require_type("ProcessType", agent.process_type, ProcessType, type(None))
    _require_type("UserName", agent.user_name, str, type(None))
    numbers = {
        "ThrottleInterval": agent.throttle_interval_s,
        "ExitTimeOut": agent.exit_timeout_s,
        "SoftResourceLimits.NumberOfFiles": agent.number_of_files,
    }
    for key, number in numbers.items():
        _require_type(key, number, int, type(None))
        if number is not None and not 0 <= number <= _LARGEST_INTEGER:
            raise PlistError(key, expected=f"a number up to {_LARGEST_INTEGER}", got=str(number))


def _require_type(key: str, value: object, *types: type) -> None:
    """Refuse a value of another type, for callers whom no type checker stopped."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        wanted = " or ".join(one.__name__ for one in types if one is not type(None))
        raise PlistError(key, expected=wanted, got=f"{type(value).__name__} {value!r}")


def _texts(key: str, value: PlistValue) -> Iterator[tuple[str, str]]:
    """Every text in the value, with the dotted key that it stands under."""
    match value:
        case str():
            yield key, value
        case dict():
            for name, member in value.items():
                inner = f"{key}.{name}" if key else name
                yield inner, name
                yield from _texts(inner, member)
        case list():
            for index, member in enumerate(value):
                yield from _texts(f"{key}.{index}", member)
        case _:
            _check_scalar(key, value)


def _check_scalar(key: str, value: object) -> None:
    if not isinstance(value, int | float | bytes | datetime):
        raise PlistError(key, expected="what a property list can hold", got=repr(value))
    if isinstance(value, datetime) and (value.microsecond or value.tzinfo is not None):
        raise PlistError(key, expected="a UTC time in whole seconds", got=str(value))
    if isinstance(value, int) and not _SMALLEST_INTEGER <= value <= _LARGEST_INTEGER:
        raise PlistError(key, expected="a number of 64 bits", got=str(value))
