"""Configuration files of other programs: one value read, set or deleted, the rest left alone.

A path leads through objects by key and through lists by an `Item`: the element that has a certain
value under a certain key.
"""

# Other programs' documents have no types that we could know.
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false

import io
import re
import sys
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Protocol, Self, override

import tomlkit
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tomlkit.exceptions import TOMLKitError

from mlx_stack.clients import jsonc
from mlx_stack.clients.jsonc import DocumentError


class Item(NamedTuple):
    """The element of a list whose `key` is `value`."""

    key: str
    value: str


type DocumentPath = tuple[str | Item, ...]
type FormatName = Literal["jsonc", "toml", "yaml", "variables"]

_MARK = "\ufeff"
_LIST_ITEM = re.compile(r"^( *)- ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class TextLayout:
    """How a file encodes its text.

    Attributes:
        mark: The byte order mark, or "".
        newline: How its lines end.
    """

    mark: str
    newline: str

    @classmethod
    def of(cls, raw: str) -> Self:
        """The layout of a file's content; mixed line ends stay as they are."""
        is_crlf = "\r\n" in raw and raw.count("\r\n") == raw.count("\n")
        return cls(_MARK if raw.startswith(_MARK) else "", "\r\n" if is_crlf else "\n")

    def text_of(self, raw: str) -> str:
        """The text in a file's content."""
        return raw.removeprefix(self.mark).replace(self.newline, "\n")

    def raw(self, text: str) -> str:
        """A text as a file's content."""
        return self.mark + text.replace("\n", self.newline)


class Format(Protocol):
    """How a kind of file is edited; every method takes and returns the text inside a `TextLayout`.

    All raise `DocumentError` for a text that is damaged, or shaped so that the path can't lead
    through it.
    """

    def get(self, text: str, path: DocumentPath) -> object | None:
        """The plain value at `path`, or None if there is none."""
        ...

    def set(self, text: str, path: DocumentPath, value: object) -> str:
        """`text` with `value` at `path`."""
        ...

    def delete(self, text: str, path: DocumentPath) -> str:
        """`text` without what is at `path`, and without containers that it leaves empty."""
        ...


class Jsonc(Format):
    """JSON, with or without comments."""

    @override
    def get(self, text: str, path: DocumentPath) -> object | None:
        return _follow(jsonc.parse(text), path)

    @override
    def set(self, text: str, path: DocumentPath, value: object) -> str:
        return jsonc.set_value(text, _keys(path), value)

    @override
    def delete(self, text: str, path: DocumentPath) -> str:
        return jsonc.delete_value(text, _keys(path))


class _Tree(Format):
    """A format that a library reads into dicts and lists that keep comments and layout."""

    @abstractmethod
    def load(self, text: str) -> Any:
        """The document."""

    @abstractmethod
    def dump(self, document: Any, text: str) -> str:
        """The document as text, laid out as `text` is."""

    def container(self, step: str | Item) -> object:
        """What holds a value at `step`."""
        return [] if isinstance(step, Item) else {}

    @override
    def get(self, text: str, path: DocumentPath) -> object | None:
        return _follow(self.load(text), path)

    @override
    def set(self, text: str, path: DocumentPath, value: object) -> str:
        document = place = self.load(text)
        for step, following in pairwise(path):
            if _follow(place, (step,)) is None:
                _put(place, step, self.container(following))
            place = _follow(place, (step,))
        _put(place, path[-1], value)
        return self.dump(document, text)

    @override
    def delete(self, text: str, path: DocumentPath) -> str:
        document = self.load(text)
        _prune(document, path)
        return self.dump(document, text)


class Toml(_Tree):
    """TOML, by tomlkit."""

    @override
    def load(self, text: str) -> Any:
        try:
            return tomlkit.parse(text)
        except TOMLKitError as error:
            raise DocumentError(str(error)) from error

    @override
    def dump(self, document: Any, text: str) -> str:
        return tomlkit.dumps(document)

    @override
    def container(self, step: str | Item) -> object:
        return tomlkit.table(is_super_table=True)

    @override
    def get(self, text: str, path: DocumentPath) -> object | None:
        return _follow(self.load(text).unwrap(), path)


class Yaml(_Tree):
    """YAML, by ruamel.yaml."""

    @override
    def load(self, text: str) -> Any:
        try:
            return self._yaml(text).load(text)
        except (YAMLError, ValueError) as error:  # such as a date in a thirteenth month
            raise DocumentError(str(error)) from error

    @override
    def dump(self, document: Any, text: str) -> str:
        stream = io.StringIO()
        if document:
            self._yaml(text).dump(document, stream)
        return stream.getvalue()

    @override
    def set(self, text: str, path: DocumentPath, value: object) -> str:
        if self.load(text) is not None:
            return super().set(text, path, value)
        for step in reversed(path):
            value = [value] if isinstance(step, Item) else {step: value}
        return f"{text.rstrip()}\n{self.dump(value, text)}".lstrip()  # what is there are comments

    def _yaml(self, text: str) -> Any:
        """A reader and writer that lays lists out as `text` does, and wraps no line."""
        yaml = YAML()
        yaml.preserve_quotes = True
        yaml.width = sys.maxsize
        first_item = _LIST_ITEM.search(text)
        offset = 2 if first_item is not None and first_item[1] else 0
        yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
        return yaml


class Variables(Format):
    """`NAME=value` lines, as `docker run --env-file` reads them; a path is one name."""

    @override
    def get(self, text: str, path: DocumentPath) -> object | None:
        prefix = f"{path[0]}="
        lines = (line for line in text.splitlines() if line.startswith(prefix))
        return next((line.removeprefix(prefix) for line in lines), None)

    @override
    def set(self, text: str, path: DocumentPath, value: object) -> str:
        return f"{self.delete(text, path)}{path[0]}={value}\n"

    @override
    def delete(self, text: str, path: DocumentPath) -> str:
        kept = [line for line in text.splitlines() if not line.startswith(f"{path[0]}=")]
        return "".join(f"{line}\n" for line in kept)


FORMATS: dict[FormatName, Format] = {
    "jsonc": Jsonc(),
    "toml": Toml(),
    "yaml": Yaml(),
    "variables": Variables(),
}


def _keys(path: DocumentPath) -> tuple[str, ...]:
    """The path, for formats without lists of items."""
    return tuple(step for step in path if isinstance(step, str))


def _follow(value: Any, path: DocumentPath) -> Any:
    """What is at `path` below `value`, or None."""
    for step in path:
        if isinstance(step, Item):
            rows: list[Any] = value if isinstance(value, list) else []
            value = next((row for row in rows if _is_item(row, step)), None)
        else:
            value = value.get(step) if isinstance(value, dict) else None
    return value


def _is_item(row: Any, item: Item) -> bool:
    return isinstance(row, dict) and row.get(item.key) == item.value


def _put(place: Any, step: str | Item, value: object) -> None:
    """Make `value` the one at `step` of an object or a list."""
    if isinstance(step, str):
        if not isinstance(place, dict):
            raise DocumentError(f"{step!r} needs an object around it")
        place[step] = value
        return
    if not isinstance(place, list):
        raise DocumentError(f"{step.value!r} needs a list around it")
    rows: list[Any] = place
    found = next((index for index, row in enumerate(rows) if _is_item(row, step)), None)
    if found is None:
        rows.append(value)
    else:
        rows[found] = value


def _prune(document: Any, path: DocumentPath) -> None:
    """Delete what is at `path`, and containers on the way that are empty then."""
    for depth in range(len(path), 0, -1):
        place, step = _follow(document, path[: depth - 1]), path[depth - 1]
        target = _follow(document, path[:depth])
        if target is None or (depth < len(path) and target):
            return
        if isinstance(step, Item):
            place.remove(target)
        else:
            del place[step]
