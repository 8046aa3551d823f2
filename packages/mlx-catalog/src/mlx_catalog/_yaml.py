"""The YAML that catalog files are written in: mappings, sequences and scalars, nothing clever.

Values are built straight from libyaml's events, half the time of `yaml.safe_load`; positions are
looked up only when something is wrong. Plain scalars follow YAML 1.2's core schema, so `no` is
text, and a date stays what was written.
"""

import re
from collections.abc import Callable
from typing import Protocol, cast

import yaml

# PyYAML ships without libyaml on some platforms; the pure reader gives the same events, slower.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

type Value = str | int | float | bool | list[Value] | dict[str, Value] | None
type KeyPath = tuple[str | int, ...]
type NextEvent = Callable[[], yaml.Event]

_WORDS: dict[str, bool | None] = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "false": False,
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE](\+?[0-9]{1,2}|-[0-9]{1,3}))?")
_NUMBER_START = frozenset("+-.0123456789")


class Misread(Exception):  # noqa: N818 - caught in this package, never seen outside
    """A file that is no YAML of this kind, with the 1-based line."""

    def __init__(self, line: int, expected: str, got: str) -> None:
        super().__init__(line, expected, got)
        self.line = line
        self.expected = expected
        self.got = got


class _Events(Protocol):
    def get_event(self) -> yaml.Event: ...


def read(text: str) -> Value:
    """The one document in `text`.

    Raises:
        Misread: on a syntax error, a second document, a duplicate key, a key that is no text, an
        anchor or a tag.
    """
    try:
        # Not `yaml.parse`, whose generator asks twice for every event.
        next_event = cast("_Events", _Loader(text)).get_event
        next_event()  # the stream's start
        if isinstance(next_event(), yaml.StreamEndEvent):
            return None
        value = _value(next_event(), next_event)
        next_event()  # the document's end
        after = next_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise Misread(line, "YAML", f"a syntax error: {error.problem}") from error
    except RecursionError as error:
        raise Misread(1, "YAML", "something nested without end") from error
    except yaml.reader.ReaderError as error:
        raise Misread(1, "text", f"the character #x{error.character:04x}") from error
    if not isinstance(after, yaml.StreamEndEvent):
        raise Misread(_line(after), "one document", "a second one")
    return value


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _value(event: yaml.Event, next_event: NextEvent) -> Value:
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if isinstance(event, yaml.MappingStartEvent):
        _refuse_marked(event)
        return _mapping(next_event)
    if isinstance(event, yaml.SequenceStartEvent):
        _refuse_marked(event)
        return _sequence(next_event)
    raise Misread(_line(event), "a value", "a reference to another one")


def _refuse_marked(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.anchor is not None or event.tag is not None:
        raise Misread(_line(event), "a plain value", "an anchor or a tag")


def _sequence(next_event: NextEvent) -> list[Value]:
    items: list[Value] = []
    while not isinstance(event := next_event(), yaml.SequenceEndEvent):
        items.append(_value(event, next_event))
    return items


def _mapping(next_event: NextEvent) -> dict[str, Value]:
    result: dict[str, Value] = {}
    while not isinstance(event := next_event(), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise Misread(_line(event), "a key", "a collection")
        key = event.value
        if key in result:
            raise Misread(_line(event), "each key once", f"{key!r} again")
        result[key] = _value(next_event(), next_event)
    return result


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    _refuse_marked(event)
    text = event.value
    if event.style is not None and event.style not in ("", "\0"):
        return text
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _NUMBER_START:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def lines(text: str) -> dict[KeyPath, int]:
    """The 1-based line of every key path in `text`, which `read` has accepted."""
    found: dict[KeyPath, int] = {}
    root = yaml.compose(text, Loader=_Loader)
    if root is not None:
        _place(root, (), root.start_mark.line + 1, found)
    return found


def _place(node: yaml.Node, path: KeyPath, line: int, found: dict[KeyPath, int]) -> None:
    found[path] = line
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            _place(value, (*path, key.value), key.start_mark.line + 1, found)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _place(item, (*path, index), item.start_mark.line + 1, found)
