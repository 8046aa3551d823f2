"""Text to entries, with every mistake of a file reported at once."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from mlx_catalog import yaml12
from mlx_catalog.errors import Problem
from mlx_catalog.mismatches import Violation, dotted, mismatches
from mlx_catalog.rules import violations
from mlx_catalog.schema import CatalogEntry


@dataclass(frozen=True, slots=True)
class Parsed:
    """What one file holds: an entry, or the problems that prevent it."""

    entry: CatalogEntry | None
    problems: tuple[Problem, ...]


def parse_entry(text: str, file: str) -> Parsed:
    """The entry in `text`, or all that is wrong with it; `file` is only named in problems."""
    try:
        value = yaml12.read(text)
    except yaml12.YamlError as misread:
        problem = Problem(file, misread.line, "", misread.expected, misread.got)
        return Parsed(None, (problem,))
    try:
        entry = msgspec.convert(value, CatalogEntry)
    except msgspec.ValidationError:
        wrong = list(mismatches(value, CatalogEntry))
        return Parsed(None, locate(text, file, [*wrong, *_violations_elsewhere(value, wrong)]))
    found = list(violations(entry))
    if found:
        return Parsed(None, locate(text, file, found))
    return Parsed(entry, ())


def locate(text: str, file: str, found: Iterable[Violation]) -> tuple[Problem, ...]:
    """The problems at the places `found` in `text`, by line; a missing key is at its parent's."""
    problems = [
        Problem(file, yaml12.locate(text, each.path), dotted(each.path), each.expected, each.got)
        for each in found
    ]
    return tuple(sorted(problems, key=lambda problem: problem.line))


def _violations_elsewhere(value: yaml12.Value, wrong: list[Violation]) -> list[Violation]:
    """Broken rules in the sections of an entry that hold no wrong value.

    Wrong values are left out; where one of them is required, no rule can be asked.
    """
    sound = copy.deepcopy(value)
    for mismatch in wrong:
        _remove(sound, mismatch.path)
    try:
        entry = msgspec.convert(sound, CatalogEntry)
    except msgspec.ValidationError:
        return []
    damaged = {mismatch.path[:-1] for mismatch in wrong}
    return [each for each in violations(entry) if each.path[:-1] not in damaged]


def _remove(value: yaml12.Value, path: yaml12.KeyPath) -> None:
    """Take the value at `path` out of the mapping that it is in."""
    for part in path[:-1]:
        if isinstance(value, dict) and isinstance(part, str):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
    if isinstance(value, dict) and path and isinstance(path[-1], str):
        value.pop(path[-1], None)
