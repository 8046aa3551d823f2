"""Text to entries, with every mistake of a file told at once."""

import copy
import difflib
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import EnumType
from typing import Any, TypeAliasType, Union, get_args, get_origin

import msgspec

from mlx_catalog import _yaml
from mlx_catalog.errors import Problem
from mlx_catalog.rules import Violation, violations
from mlx_catalog.schema import CatalogEntry


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one file holds: an entry, or the problems that prevent it."""

    entry: CatalogEntry | None
    problems: tuple[Problem, ...]


def parse_entry(text: str, file: str) -> Parsed:
    """The entry in `text`, or all that is wrong with it; `file` is only named in problems."""
    try:
        value = _yaml.read(text)
    except _yaml.Misread as misread:
        problem = Problem(file, misread.line, "", misread.expected, misread.got)
        return Parsed(None, (problem,))
    try:
        entry = msgspec.convert(value, CatalogEntry)
    except msgspec.ValidationError:
        mismatches = list(_mismatches(value, CatalogEntry, ()))
        broken = _violations_elsewhere(value, mismatches)
        return Parsed(None, locate(text, file, [*mismatches, *broken]))
    found = list(violations(entry))
    if found:
        return Parsed(None, locate(text, file, found))
    return Parsed(entry, ())


def locate(text: str, file: str, found: Iterable[Violation]) -> tuple[Problem, ...]:
    """The problems at the places `found` in `text`, by line; a missing key is at its parent's."""
    lines = _yaml.lines(text)

    def line(path: _yaml.KeyPath) -> int:
        while path and path not in lines:
            path = path[:-1]
        return lines.get(path, 0)

    problems = [
        Problem(file, line(each.path), _dotted(each.path), each.expected, each.got)
        for each in found
    ]
    return tuple(sorted(problems, key=lambda problem: problem.line))


def _violations_elsewhere(value: _yaml.Value, mismatches: list[Violation]) -> list[Violation]:
    """Broken rules in the sections of an entry that hold no mismatch.

    The values that mismatch are left out; where one of them is required, no rule can be asked.
    """
    sound = copy.deepcopy(value)
    for mismatch in mismatches:
        _remove(sound, mismatch.path)
    try:
        entry = msgspec.convert(sound, CatalogEntry)
    except msgspec.ValidationError:
        return []
    damaged = {mismatch.path[:-1] for mismatch in mismatches}
    return [each for each in violations(entry) if each.path[:-1] not in damaged]


def _remove(value: _yaml.Value, path: _yaml.KeyPath) -> None:
    """Take the value at `path` out of the mapping that it is in."""
    for part in path[:-1]:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
    if isinstance(value, dict) and path and isinstance(path[-1], str):
        value.pop(path[-1], None)


def _dotted(path: _yaml.KeyPath) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _mismatches(value: _yaml.Value, kind: Any, path: _yaml.KeyPath) -> Iterator[Violation]:
    """Every place below `value` that isn't of the type `kind`."""
    kind = _plain(kind, value)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield from _struct_mismatches(value, kind, path)
        return
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _leaf_mismatches(key, arguments[0], (*path, key))
            yield from _mismatches(item, arguments[1], (*path, key))
    elif origin is tuple and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _mismatches(item, arguments[0], (*path, index))
    else:
        yield from _leaf_mismatches(value, kind, path)


def _plain(kind: Any, value: _yaml.Value) -> Any:
    """`kind` without a `type` statement's name around it, and without None unless `value` is."""
    while isinstance(kind, TypeAliasType):
        kind = kind.__value__
    if get_origin(kind) in (Union, types.UnionType) and value is not None:
        return _plain(next(each for each in get_args(kind) if each is not types.NoneType), value)
    return kind


def _struct_mismatches(
    value: _yaml.Value, kind: type[msgspec.Struct], path: _yaml.KeyPath
) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(path, "a mapping", _shown(value))
        return
    fields = {each.name: each for each in msgspec.structs.fields(kind)}
    for name, each in fields.items():
        if name in value:
            yield from _mismatches(value[name], each.type, (*path, name))
        elif each.required:
            yield Violation((*path, name), "a value", "nothing: the key is missing")
    for name in value:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            expected = f"{near[0]!r}" if near else f"one of {', '.join(fields)}"
            yield Violation((*path, name), expected, f"the unknown key {name!r}")


def _leaf_mismatches(value: _yaml.Value, kind: Any, path: _yaml.KeyPath) -> Iterator[Violation]:
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


def _shown(value: _yaml.Value) -> str:
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return repr(value)
