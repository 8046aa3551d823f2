"""JSON with comments, edited in place: what is not touched stays as it was, to the character.

Editors' settings are full of comments, and no library on PyPI edits such text without Node.js.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

_INDENT = "  "
_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<comment>//[^\n]*|/\*.*?\*/)
  | (?P<string>"(?:[^"\\]|\\.)*")
  | (?P<scalar>true|false|null|-?\d[0-9.eE+-]*)
  | (?P<mark>[{}\[\]:,])
    """,
    re.VERBOSE | re.DOTALL,
)


class DocumentError(Exception):
    """The text is damaged, or shaped so that a path can't lead through it."""


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(slots=True)
class _Node:
    """A value in the text.

    Attributes:
        start: Where it begins.
        end: Where it ends.
        value: What it means.
        members: Of an object: each key's token and value, in order.
    """

    start: int
    end: int
    value: object
    members: list[tuple[_Token, "_Node"]] | None = None


def parse(text: str) -> object:
    """What `text` means; an empty text is an empty object.

    Raises:
        DocumentError: When it isn't JSON, even with comments and trailing commas.
    """
    return _read(text).value


def set_value(text: str, path: tuple[str, ...], value: object) -> str:
    """`text` with `value` at `path`; objects on the way there are made.

    Raises:
        DocumentError: When it isn't JSON, or something on the way isn't an object.
    """
    if not _values(text):
        text = f"{text.rstrip()}\n{{}}\n".lstrip()
    node = _read(text)
    for depth, key in enumerate(path):
        if node.members is None:
            raise DocumentError(f"{'.'.join(path[:depth]) or 'the document'} is not an object")
        child = _member(node, key)
        if child is None:
            nested = value
            for missing in reversed(path[depth + 1 :]):
                nested = {missing: nested}
            return _insert(text, node, key, nested, depth)
        node = child
    return text[: node.start] + _render(value, len(path)) + text[node.end :]


def delete_value(text: str, path: tuple[str, ...]) -> str:
    """`text` without what is at `path`, and without objects that are empty for it.

    Raises:
        DocumentError: When it isn't JSON, even with comments and trailing commas.
    """
    trail = [_read(text)]
    for key in path:
        child = _member(trail[-1], key)
        if child is None:
            return text
        trail.append(child)
    depth = len(path) - 1
    while depth > 0 and len(trail[depth].members or ()) == 1:
        depth -= 1
    return _remove(text, trail[depth], path[depth])


def _member(node: _Node, key: str) -> _Node | None:
    return next((value for name, value in node.members or () if json.loads(name.text) == key), None)


def _insert(text: str, node: _Node, key: str, value: object, depth: int) -> str:
    """`text` with a new last member in an object that is `depth` levels deep."""
    assert node.members is not None
    line = f"{_INDENT * (depth + 1)}{json.dumps(key)}: {_render(value, depth + 1)}"
    closing = f"\n{_INDENT * depth}" + text[node.end - 1 :]
    if not node.members:
        inside = text[node.start + 1 : node.end - 1].rstrip()
        return f"{text[: node.start + 1]}{inside}\n{line}{closing}"
    last = node.members[-1][1]
    after = text[last.end : node.end - 1]
    has_comma = any(token.text == "," for token in _tokens(after))
    rest = after.rstrip()
    return f"{text[: last.end]}{'' if has_comma else ','}{rest}\n{line}{closing}"


def _remove(text: str, node: _Node, key: str) -> str:
    """`text` without one member, its line break, and the comma that it leaves behind."""
    assert node.members is not None
    names = [json.loads(name.text) for name, _ in node.members]
    index = names.index(key)
    name, value = node.members[index]
    is_last = index == len(names) - 1
    if not is_last:
        return text[: name.start] + text[node.members[index + 1][0].start :]
    start = node.members[index - 1][1].end if index else node.start + 1
    before = _without_comma(text[start : name.start]).rstrip()
    after = _without_comma(text[value.end : node.end - 1])
    if "//" in before and "\n" not in after:
        after = f"\n{after}"
    return text[:start] + before + after + text[node.end - 1 :]


def _without_comma(between: str) -> str:
    """What stands between two values, without its comma."""
    comma = next((token for token in _tokens(between) if token.text == ","), None)
    return between if comma is None else between[: comma.start] + between[comma.end :]


def _render(value: object, depth: int) -> str:
    lines = json.dumps(value, indent=len(_INDENT), ensure_ascii=False).split("\n")
    return f"\n{_INDENT * depth}".join(lines)


def _tokens(text: str) -> Iterator[_Token]:
    """Every token but white space, comments included."""
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _error_at(text, position, f"unexpected {text[position]!r}")
        if match.lastgroup != "space":
            yield _Token(match[0], position)
        position = match.end()


def _values(text: str) -> list[_Token]:
    """Every token but comments."""
    return [token for token in _tokens(text) if not token.text.startswith(("//", "/*"))]


def _read(text: str) -> _Node:
    tokens = _values(text)
    if not tokens:
        return _Node(0, 0, {}, [])
    reader = _Reader(text, tokens)
    node = reader.value()
    reader.expect_end()
    return node


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text = text
        self._tokens = tokens
        self._next = 0

    def value(self) -> _Node:
        token = self._take()
        if token.text == "{":
            return self._object(token)
        if token.text == "[":
            return self._array(token)
        try:
            return _Node(token.start, token.end, json.loads(token.text))
        except ValueError as error:  # no value, or a number of more digits than Python reads
            raise self._unexpected(token) from error

    def expect_end(self) -> None:
        if self._next < len(self._tokens):
            raise self._unexpected(self._tokens[self._next])

    def _object(self, opening: _Token) -> _Node:
        members: list[tuple[_Token, _Node]] = []
        while (token := self._take()).text != "}":
            if not token.text.startswith('"'):
                raise self._unexpected(token)
            self._expect(":")
            members.append((token, self.value()))
            if not self._continues("}"):
                break
        closing = self._tokens[self._next - 1]
        value = {json.loads(name.text): node.value for name, node in members}
        return _Node(opening.start, closing.end, value, members)

    def _array(self, opening: _Token) -> _Node:
        items: list[_Node] = []
        while self._peek() != "]":
            items.append(self.value())
            if not self._continues("]"):
                self._next -= 1
                break
        closing = self._expect("]")
        return _Node(opening.start, closing.end, [item.value for item in items])

    def _continues(self, closing: str) -> bool:
        """Whether a comma follows; else `closing` must, and is taken."""
        token = self._take()
        if token.text not in (",", closing):
            raise self._unexpected(token)
        return token.text == ","

    def _peek(self) -> str:
        return self._tokens[self._next].text if self._next < len(self._tokens) else ""

    def _take(self) -> _Token:
        if self._next >= len(self._tokens):
            raise _error_at(self._text, len(self._text), "the text ends too early")
        self._next += 1
        return self._tokens[self._next - 1]

    def _expect(self, text: str) -> _Token:
        token = self._take()
        if token.text != text:
            raise self._unexpected(token)
        return token

    def _unexpected(self, token: _Token) -> DocumentError:
        return _error_at(self._text, token.start, f"unexpected {token.text!r}")


def _error_at(text: str, position: int, problem: str) -> DocumentError:
    line = text.count("\n", 0, position) + 1
    return DocumentError(f"line {line}: {problem}")
