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
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, Self, override

from mlx_stack.clients import jsonc
from mlx_stack.clients.jsonc import DocumentError


class Item(NamedTuple):
    """The element of a list whose `key` is `value`."""

    key: str
    value: str


type KeyPath = tuple[str | Item, ...]
type FormatName = Literal["jsonc", "toml", "yaml", "variables"]

_MARK = "\ufeff"
_LIST_ITEM = re.compile(r"^( *)- ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Layout:
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

    def take_off(self, raw: str) -> str:
        """The text in the file's content."""
        return raw.removeprefix(self.mark).replace(self.newline, "\n")

    def put_on(self, text: str) -> str:
        """The file's content for a text."""
        return self.mark + text.replace("\n", self.newline)


class Format(Protocol):
    """How a kind of file is edited; every method takes and returns the text inside a `Layout`.

    All raise `DocumentError` for a text that is damaged, or shaped so that the path can't lead
    through it.
    """

    def get(self, text: str, path: KeyPath) -> object | None:
        """The plain value at `path`, or None if there is none."""
        ...

    def set(self, text: str, path: KeyPath, value: object) -> str:
        """`text` with `value` at `path`."""
        ...

    def delete(self, text: str, path: KeyPath) -> str:
        """`text` without what is at `path`, and without containers that it leaves empty."""
        ...


class Jsonc(Format):
    """JSON, with or without comments."""

    @override
    def get(self, text: str, path: KeyPath) -> object | None:
        return _follow(jsonc.parse(text), path)

    @override
    def set(self, text: str, path: KeyPath, value: object) -> str:
        return jsonc.set_value(text, _keys(path), value)

    @override
    def delete(self, text: str, path: KeyPath) -> str:
        return jsonc.delete_value(text, _keys(path))


class Toml(Format):
    """TOML, by tomlkit, which keeps comments and layout."""

    @override
    def get(self, text: str, path: KeyPath) -> object | None:
        return _follow(self._load(text).unwrap(), path)

    @override
    def set(self, text: str, path: KeyPath, value: object) -> str:
        import tomlkit

        document = self._load(text)
        place: Any = document
        for key in _keys(path)[:-1]:
            if key not in place:
                place[key] = tomlkit.table(is_super_table=True)
            place = place[key]
            if not isinstance(place, dict):
                raise DocumentError(f"{key} is not a table")
        place[_keys(path)[-1]] = value
        return tomlkit.dumps(document)

    @override
    def delete(self, text: str, path: KeyPath) -> str:
        import tomlkit

        document = self._load(text)
        _prune(document, path)
        return tomlkit.dumps(document)

    def _load(self, text: str) -> Any:
        import tomlkit
        from tomlkit.exceptions import TOMLKitError

        try:
            return tomlkit.parse(text)
        except TOMLKitError as error:
            raise DocumentError(str(error)) from error


class Yaml(Format):
    """YAML, by ruamel.yaml, which keeps comments and order."""

    @override
    def get(self, text: str, path: KeyPath) -> object | None:
        return _follow(self._load(text), path)

    @override
    def set(self, text: str, path: KeyPath, value: object) -> str:
        document = self._load(text)
        if document is None:
            begun = self._dump(_new(path, value), text)
            return f"{text.rstrip()}\n{begun}".lstrip()  # what is there are comments
        place: Any = document
        for step, following in zip(path, (*path[1:], None), strict=True):
            if following is None:
                _put(place, step, value)
                break
            if _follow(place, (step,)) is None:
                _put(place, step, [] if isinstance(following, Item) else {})
            place = _follow(place, (step,))
        return self._dump(document, text)

    @override
    def delete(self, text: str, path: KeyPath) -> str:
        document = self._load(text)
        _prune(document, path)
        return self._dump(document, text) if document else ""

    def _load(self, text: str) -> Any:
        from ruamel.yaml.error import YAMLError

        try:
            return self._yaml(text).load(text)
        except (YAMLError, ValueError) as error:  # such as a date in a thirteenth month
            raise DocumentError(str(error)) from error

    def _dump(self, document: object, text: str) -> str:
        stream = io.StringIO()
        self._yaml(text).dump(document, stream)
        return stream.getvalue()

    def _yaml(self, text: str) -> Any:
        """A reader and writer that lays lists out as `text` does, and wraps no line."""
        from ruamel.yaml import YAML

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
    def get(self, text: str, path: KeyPath) -> object | None:
        prefix = f"{path[0]}="
        lines = (line for line in text.splitlines() if line.startswith(prefix))
        return next((line.removeprefix(prefix) for line in lines), None)

    @override
    def set(self, text: str, path: KeyPath, value: object) -> str:
        return f"{self.delete(text, path)}{path[0]}={value}\n"

    @override
    def delete(self, text: str, path: KeyPath) -> str:
        kept = [line for line in text.splitlines() if not line.startswith(f"{path[0]}=")]
        return "".join(f"{line}\n" for line in kept)


FORMATS: dict[FormatName, Format] = {
    "jsonc": Jsonc(),
    "toml": Toml(),
    "yaml": Yaml(),
    "variables": Variables(),
}


def _keys(path: KeyPath) -> tuple[str, ...]:
    """The path, for formats without lists of items."""
    return tuple(step for step in path if isinstance(step, str))


def _follow(value: Any, path: KeyPath) -> Any:
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


def _new(path: KeyPath, value: object) -> object:
    """A document that holds nothing but `value` at `path`."""
    for step in reversed(path):
        value = [value] if isinstance(step, Item) else {step: value}
    return value


def _prune(document: Any, path: KeyPath) -> None:
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
