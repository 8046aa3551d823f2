"""Where a plain value is not of a type, every place at once, as key paths."""

import difflib
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import EnumType
from typing import Any, TypeAliasType, Union, get_args, get_origin

import msgspec

from mlx_catalog.yaml12 import KeyPath, Value


@dataclass(frozen=True, slots=True)
class Violation:
    """A place in a value that breaks a rule."""

    path: KeyPath
    expected: str
    got: str


def dotted(path: KeyPath) -> str:
    """A key path as people write it: `tiers[0].port`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def mismatches(value: Value, kind: Any, path: KeyPath = ()) -> Iterator[Violation]:
    """Every place below `value` that isn't of the type `kind`, as `msgspec.convert` takes types."""
    kind = _plain(kind, value)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _struct_mismatches(value, kind, path)
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _leaf_mismatches(key, arguments[0], (*path, key))
            yield from mismatches(item, arguments[1], (*path, key))
    elif origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from mismatches(item, arguments[0], (*path, index))
    else:
        yield from _leaf_mismatches(value, kind, path)


def _plain(kind: Any, value: Value) -> Any:
    """`kind` without a `type` statement's name around it, and without None unless `value` is."""
    while isinstance(kind, TypeAliasType):
        kind = kind.__value__
    if get_origin(kind) in (Union, types.UnionType) and value is not None:
        others = [each for each in get_args(kind) if each is not types.NoneType]
        return _plain(others[0], value) if len(others) == 1 else kind
    return kind


def _struct_mismatches(
    value: Value, kind: type[msgspec.Struct], path: KeyPath
) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(path, "a mapping", _shown(value))
        return
    fields = {each.encode_name: each for each in msgspec.structs.fields(kind)}
    for name in value if kind.__struct_config__.forbid_unknown_fields else ():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            expected = f"{near[0]!r}" if near else f"one of {', '.join(fields)}"
            yield Violation((*path, name), expected, f"the unknown key {name!r}")
    for name, each in fields.items():
        if name in value:
            yield from mismatches(value[name], each.type, (*path, name))
        elif each.required:
            yield Violation((*path, name), "a value", "nothing: the key is missing")


def _leaf_mismatches(value: Value, kind: Any, path: KeyPath) -> Iterator[Violation]:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        yield Violation(path, _expectation(str(error), kind), _shown(value))


def _expectation(message: str, kind: Any) -> str:
    """What msgspec wanted: "int >= 1" from "Expected `int` >= 1, got `str`"."""
    choices: tuple[Any, ...] = tuple(kind) if isinstance(kind, EnumType) else get_args(kind)
    if choices and all(isinstance(each, str) for each in choices):
        return f"one of {', '.join(each or '""' for each in choices)}"
    return (
        message.split(", got", maxsplit=1)[0]
        .split(" - at", maxsplit=1)[0]
        .removeprefix("Expected ")
        .replace("`", "")
    )


def _shown(value: Value) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(value)
