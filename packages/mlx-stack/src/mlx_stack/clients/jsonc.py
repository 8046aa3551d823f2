"""JSON with comments, edited in place: what is not touched stays as it was, to the character.

Editors' settings are full of comments, and no library on PyPI edits such text without Node.js. For
reading, comments and trailing commas are blanked out, so that every position stays the same.
"""

import json
import re
from typing import NamedTuple

_INDENT = "  "
_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"{_STRING}|(?P<blank>//[^\n]*|/\*.*?\*/)", re.DOTALL)
_TRAILING_COMMA = re.compile(rf"{_STRING}|[\[{{]\s*,|(?P<blank>,)(?=\s*[\]}}])", re.DOTALL)


class DocumentError(Exception):
    """The text is damaged, or shaped so that a path can't lead through it."""


class _Member(NamedTuple):
    """A member of an object, and where it is in the text."""

    key: str
    start: int
    value_start: int
    end: int


class _Object(NamedTuple):
    """An object, and where it is in the text."""

    start: int
    end: int
    members: list[_Member]

    def find(self, key: str) -> int | None:
        """The place of a member; of several, the last counts, as for every reader."""
        found = [place for place, member in enumerate(self.members) if member.key == key]
        return found[-1] if found else None


def parse(text: str) -> object:
    """What `text` means; an empty text is an empty object.

    Raises:
        DocumentError: When it isn't JSON, even with comments and trailing commas.
    """
    return _read(text)[1]


def set_value(text: str, path: tuple[str, ...], value: object) -> str:
    """`text` with `value` at `path`; missing objects on the way there are made.

    Raises:
        DocumentError: When it isn't JSON, or something on the way isn't an object.
    """
    if not _blanked(_COMMENT, text).strip():
        text = f"{text.rstrip()}\n{{}}\n".lstrip()
    plain, _ = _read(text)
    start, end = _skip_space(plain, 0), len(plain.rstrip())
    for depth, key in enumerate(path):
        around = _object_at(plain, start, end)
        if around is None:
            raise DocumentError(f"{'.'.join(path[:depth]) or 'the document'} is not an object")
        place = around.find(key)
        if place is None:
            for missing in reversed(path[depth + 1 :]):
                value = {missing: value}
            return _insert(text, around, key, value, depth)
        _, _, start, end = around.members[place]
    return text[:start] + _render(value, len(path)) + text[end:]


def delete_value(text: str, path: tuple[str, ...]) -> str:
    """`text` without what is at `path`, and without objects that it leaves empty.

    Raises:
        DocumentError: When it isn't JSON, even with comments and trailing commas.
    """
    plain, _ = _read(text)
    start, end = _skip_space(plain, 0), len(plain.rstrip())
    trail: list[tuple[_Object, int]] = []
    for key in path:
        around = _object_at(plain, start, end)
        place = None if around is None else around.find(key)
        if around is None or place is None:
            return text
        trail.append((around, place))
        _, _, start, end = around.members[place]
    while len(trail) > 1 and len(trail[-1][0].members) == 1:
        trail.pop()
    return _remove(text, *trail[-1])


def _read(text: str) -> tuple[str, object]:
    """`text` as plain JSON of the same length, and what it means."""
    plain = _blanked(_TRAILING_COMMA, _blanked(_COMMENT, text))
    if not plain.strip():
        return plain, {}
    try:
        return plain, json.loads(plain, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise DocumentError(f"line {error.lineno}: {error.msg}") from error
    except ValueError as error:  # such as a number of more digits than Python reads
        raise DocumentError(str(error)) from error


def _blanked(pattern: re.Pattern[str], text: str) -> str:
    """`text` with spaces for what `pattern` finds as `blank`; positions and lines stay."""
    return pattern.sub(
        lambda match: re.sub(r"[^\n]", " ", match[0]) if match["blank"] else match[0], text
    )


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _skip_space(plain: str, position: int) -> int:
    return len(plain) - len(plain[position:].lstrip())


def _object_at(plain: str, start: int, end: int) -> _Object | None:
    """The object in a part of valid JSON, or None if that is something else."""
    if plain[start : start + 1] != "{":
        return None
    members: list[_Member] = []
    position = _skip_space(plain, start + 1)
    decoder = json.JSONDecoder()
    while plain[position] != "}":
        key, colon = decoder.raw_decode(plain, position)
        value_start = _skip_space(plain, plain.index(":", colon) + 1)
        _, value_end = decoder.raw_decode(plain, value_start)
        members.append(_Member(key, position, value_start, value_end))
        position = _skip_space(plain, value_end)
        if plain[position] == ",":
            position = _skip_space(plain, position + 1)
    return _Object(start, end, members)


def _insert(text: str, around: _Object, key: str, value: object, depth: int) -> str:
    """`text` with a new last member in an object that is `depth` levels deep."""
    line = f"{_INDENT * (depth + 1)}{json.dumps(key)}: {_render(value, depth + 1)}"
    last = around.members[-1].end if around.members else around.start + 1
    after = text[last : around.end - 1]
    comma = "," if around.members and "," not in _blanked(_COMMENT, after) else ""
    closing = f"\n{_INDENT * depth}{text[around.end - 1 :]}"
    return f"{text[:last]}{comma}{after.rstrip()}\n{line}{closing}"


def _remove(text: str, around: _Object, place: int) -> str:
    """`text` without one member, its line break, and the comma that it leaves behind."""
    _, start, _, end = around.members[place]
    if place < len(around.members) - 1:
        return text[:start] + text[around.members[place + 1].start :]
    begin = around.members[place - 1].end if place else around.start + 1
    before = _without_comma(text[begin:start]).rstrip()
    after = _without_comma(text[end : around.end - 1])
    if "//" in before and "\n" not in after:
        after = f"\n{after}"
    return text[:begin] + before + after + text[around.end - 1 :]


def _without_comma(between: str) -> str:
    """The text between two values without its comma."""
    comma = _blanked(_COMMENT, between).find(",")
    return between if comma < 0 else between[:comma] + between[comma + 1 :]


def _render(value: object, depth: int) -> str:
    lines = json.dumps(value, indent=len(_INDENT), ensure_ascii=False).split("\n")
    return f"\n{_INDENT * depth}".join(lines)
