"""YAML 1.2 as people write it by hand: mappings, sequences, scalars, where each is (decision 0035).

Plain scalars follow the core schema and are never guessed at: `no` and `12:30` are text, a date
stays what was written, and so do numbers in another notation than the usual one (`0800`, `1_000`,
`0x1F`), which a reader that wants a number then refuses. Anchors, tags and keys that aren't text
are refused.
"""

import re
from collections.abc import Callable, Iterator
from typing import Protocol, cast, override

import yaml

# PyYAML ships without libyaml on some platforms; the pure reader gives the same events, slower.
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

type Value = str | int | float | bool | list[Value] | dict[str, Value] | None
type KeyPath = tuple[str | int, ...]
type NextEvent = Callable[[], yaml.Event]

_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE](\+?[0-9]{1,2}|-[0-9]{1,3}))?")
_NUMBER_START = frozenset("+-.0123456789")
_DEEPEST = 100


class YamlError(Exception):
    """A text that isn't YAML of this kind."""

    def __init__(self, line: int, expected: str, got: str) -> None:
        super().__init__(f"line {line}: expected {expected}, got {got}")
        self.line = line
        self.expected = expected
        self.got = got


class _Events(Protocol):
    def get_event(self) -> yaml.Event: ...


def read(text: str) -> Value:
    """The one document in `text`; None where there is none.

    Raises:
        YamlError: It has a syntax error, a second document, a key twice or one that isn't text,
            an anchor or a tag, or is nested too deeply.
    """
    try:
        # Not `yaml.parse`, whose generator asks twice for every event.
        next_event = cast("_Events", _Loader(text)).get_event
        next_event()  # the stream's start
        if isinstance(next_event(), yaml.StreamEndEvent):
            return None
        value = _value(next_event(), next_event, 0)
        next_event()  # the document's end
        after = next_event()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else 1
        raise YamlError(line, "YAML", f"a syntax error: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.partition(chr(error.character))[0].count("\n") + 1
        raise YamlError(line, "text", f"the character #x{error.character:04x}") from error
    if not isinstance(after, yaml.StreamEndEvent):
        raise YamlError(_line(after), "one document", "a second one")
    return value


def locate(text: str, path: KeyPath) -> int:
    """The 1-based line of `path` in `text`, which `read` has accepted, or of what is there of it.

    That of a key is where the key stands; of an empty document 0.
    """
    next_event = cast("_Events", _Loader(text)).get_event
    next_event()  # the stream's start
    if isinstance(next_event(), yaml.StreamEndEvent):
        return 0
    root = next_event()
    places = _places(root, next_event, (), _line(root))
    return max((len(at), line) for at, line in places if path[: len(at)] == at)[1]


def write(value: Value) -> str:
    """YAML text that `read` reads as `value`, mappings in their own order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Quotes what would be read as something else, and repeats instead of naming anchors."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if _resolved(text) is text else "'"
    # the stubs leave it untyped
    node: yaml.ScalarNode = dumper.represent_scalar(  # pyright: ignore[reportUnknownMemberType]
        "tag:yaml.org,2002:str", text, style=style
    )
    return node


_Dumper.add_representer(str, _represent_text)


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _value(event: yaml.Event, next_event: NextEvent, depth: int) -> Value:
    if isinstance(event, yaml.ScalarEvent):
        return _scalar(event)
    if depth > _DEEPEST:
        raise YamlError(_line(event), "YAML", "something nested too deeply")
    if isinstance(event, yaml.MappingStartEvent):
        _refuse_marked(event)
        return _mapping(next_event, depth + 1)
    if isinstance(event, yaml.SequenceStartEvent):
        _refuse_marked(event)
        return _sequence(next_event, depth + 1)
    raise YamlError(_line(event), "a value", "a reference to another one")


def _refuse_marked(event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
    if event.anchor is not None or event.tag is not None:
        raise YamlError(_line(event), "a plain value", "an anchor or a tag")


def _sequence(next_event: NextEvent, depth: int) -> list[Value]:
    items: list[Value] = []
    while not isinstance(event := next_event(), yaml.SequenceEndEvent):
        items.append(_value(event, next_event, depth))
    return items


def _mapping(next_event: NextEvent, depth: int) -> dict[str, Value]:
    result: dict[str, Value] = {}
    while not isinstance(event := next_event(), yaml.MappingEndEvent):
        if not isinstance(event, yaml.ScalarEvent):
            raise YamlError(_line(event), "a key", "a collection")
        key = event.value
        if key in result:
            raise YamlError(_line(event), "no key twice", f"{key!r} again")
        result[key] = _value(next_event(), next_event, depth)
    return result


def _scalar(event: yaml.ScalarEvent) -> str | int | float | bool | None:
    _refuse_marked(event)
    is_plain = event.style is None or event.style in ("", "\0")
    return _resolved(event.value) if is_plain else event.value


def _resolved(text: str) -> str | int | float | bool | None:
    """What a plain scalar means."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] in _NUMBER_START:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
    return text


def _places(
    event: yaml.Event, next_event: NextEvent, path: KeyPath, line: int
) -> Iterator[tuple[KeyPath, int]]:
    """Every key path from `path` on, with its line."""
    yield path, line
    if isinstance(event, yaml.MappingStartEvent):
        while isinstance(key := next_event(), yaml.ScalarEvent):
            yield from _places(next_event(), next_event, (*path, key.value), _line(key))
    elif isinstance(event, yaml.SequenceStartEvent):
        index = 0
        while not isinstance(item := next_event(), yaml.SequenceEndEvent):
            yield from _places(item, next_event, (*path, index), _line(item))
            index += 1
