"""A LaunchAgent as the entries of a property list, and back; pure."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, cast, get_type_hints

from mlx_launchd.agent import (
    CalendarInterval,
    KeepAlive,
    LaunchAgent,
    PlistValue,
    ProcessType,
    ResourceLimits,
)
from mlx_launchd.errors import PlistError

type _Part = KeepAlive | ResourceLimits | CalendarInterval
type _Read = Callable[[str, object], object]


def to_entries(agent: LaunchAgent) -> dict[str, PlistValue]:
    """Give launchd's keys with the job's values, those at their defaults left out."""
    entries: dict[str, PlistValue] = {}
    for f in fields(agent):
        value = getattr(agent, f.name)
        if f.name != "other_keys" and value != _default(f):
            entries[f.metadata["key"]] = _written(value)
    return {**entries, **agent.other_keys}


def from_entries(entries: Mapping[str, object]) -> LaunchAgent:
    """Give the job that launchd's keys describe.

    What its man page allows in two forms is read in both: a session type or a bundle identifier
    alone or in an array, one calendar interval or several, an umask as a number or as octal text.

    Raises:
        PlistError: A value has another type than launchd documents.
    """
    if "Label" not in entries:
        raise PlistError("Label", expected="text", got="nothing")
    other = {key: value for key, value in entries.items() if key not in _AGENT_KEYS}
    values = _read_fields(LaunchAgent, "", entries)
    return LaunchAgent(**values, other_keys=cast("dict[str, PlistValue]", other))


def _default(f: "Field[Any]") -> object:
    if f.default is not MISSING:
        return f.default
    return f.default_factory() if f.default_factory is not MISSING else MISSING


def _written(value: object) -> PlistValue:
    match value:
        case KeepAlive() | ResourceLimits() | CalendarInterval():
            return {
                f.metadata["key"]: _written(getattr(value, f.name))
                for f in fields(value)
                if getattr(value, f.name) != _default(f)
            }
        case tuple():
            return [_written(member) for member in cast("tuple[object, ...]", value)]
        case Mapping():
            return dict(cast("Mapping[str, PlistValue]", value))
        case ProcessType():
            return value.value
        case _:
            return cast("PlistValue", value)


def _read_fields(
    kind: type[LaunchAgent] | type[_Part], prefix: str, entries: Mapping[str, object]
) -> dict[str, Any]:
    hints = get_type_hints(kind)
    values: dict[str, Any] = {}
    for f in fields(kind):
        key = f.metadata.get("key")
        if key is not None and key in entries:
            read = _umask if key == "Umask" else _READERS[hints[f.name]]
            values[f.name] = read(f"{prefix}{key}", entries[key])
    return values


def _part[P: (KeepAlive, ResourceLimits, CalendarInterval)](
    kind: type[P], key: str, value: object
) -> P:
    entries = as_dictionary(key, value)
    known = {f.metadata["key"] for f in fields(kind)}
    for name in entries:
        if name not in known:
            raise PlistError(
                f"{key}.{name}", expected="one of " + ", ".join(sorted(known)), got=repr(name)
            )
    return kind(**_read_fields(kind, f"{key}.", entries))


def _wrong(key: str, expected: str, value: object) -> PlistError:
    return PlistError(key, expected=expected, got=f"{type(value).__name__} {value!r}")


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    return value


def _boolean(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def _number(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wrong(key, "a whole number", value)
    return value


def _umask(key: str, value: object) -> int:
    if isinstance(value, str):
        try:
            return int(value, 8)
        except ValueError as error:
            raise _wrong(key, "a number or octal text", value) from error
    return _number(key, value)


def as_dictionary(key: str, value: object) -> dict[str, object]:
    """Give the value as a dictionary whose keys are text.

    Raises:
        PlistError: It is none.
    """
    if not isinstance(value, dict):
        raise _wrong(key, "a dictionary", value)
    for name in cast("dict[object, object]", value):
        if not isinstance(name, str):
            raise PlistError(key, expected="keys that are text", got=repr(name))
    return cast("dict[str, object]", value)


def _members(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def _text_list(key: str, value: object) -> tuple[str, ...]:
    alone_allowed = key in {"LimitLoadToSessionType", "AssociatedBundleIdentifiers"}
    members = _members(value)
    if members == [value] and not alone_allowed:
        raise _wrong(key, "an array", value)
    return tuple(_text(f"{key}.{i}", member) for i, member in enumerate(members))


def _text_map(key: str, value: object) -> dict[str, str]:
    return {name: _text(f"{key}.{name}", text) for name, text in as_dictionary(key, value).items()}


def _boolean_map(key: str, value: object) -> dict[str, bool]:
    return {name: _boolean(f"{key}.{name}", it) for name, it in as_dictionary(key, value).items()}


def _process_type(key: str, value: object) -> ProcessType:
    text = _text(key, value)
    if text not in set(ProcessType):
        raise PlistError(key, expected="one of " + ", ".join(ProcessType), got=repr(text))
    return ProcessType(text)


def _keep_alive(key: str, value: object) -> bool | KeepAlive:
    return value if isinstance(value, bool) else _part(KeepAlive, key, value)


def _limits(key: str, value: object) -> ResourceLimits:
    return _part(ResourceLimits, key, value)


def _moments(key: str, value: object) -> tuple[CalendarInterval, ...]:
    return tuple(
        _part(CalendarInterval, f"{key}.{i}", member) for i, member in enumerate(_members(value))
    )


_AGENT_KEYS = {f.metadata["key"] for f in fields(LaunchAgent) if "key" in f.metadata}

_READERS: dict[object, _Read] = {
    str: _text,
    str | None: _text,
    bool: _boolean,
    bool | None: _boolean,
    int | None: _number,
    tuple[str, ...]: _text_list,
    Mapping[str, str]: _text_map,
    Mapping[str, bool]: _boolean_map,
    ProcessType | None: _process_type,
    bool | KeepAlive: _keep_alive,
    ResourceLimits: _limits,
    tuple[CalendarInterval, ...]: _moments,
}
