"""YAML files read into typed values, with errors that name the file and the line."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from mlx_stack.errors import InvalidFileError

_KEY_PATH = re.compile(r"^(?P<problem>.*) - at `(?P<path>\$.*)`$", re.DOTALL)
_UNKNOWN_KEY = re.compile(r"unknown field `(?P<key>.*)`")
_DEEPEST = 50
_STEP = re.compile(r"\.(?P<key>[^.\[\]]+)|\[(?P<index>\d+|\.\.\.)\]")


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that was parsed, to be seen as one type or another.

    Attributes:
        path: The file.
        value: Its plain Python value.
        node: Where each part of it stands.
    """

    path: Path
    value: object
    node: yaml.Node | None

    def as_a[T](self, kind: type[T], *, hint: str | None = None) -> T:
        """The value as a `kind`.

        Raises:
            InvalidFileError: It is none; the error names the line.
        """
        try:
            return msgspec.convert(self.value, kind)
        except msgspec.ValidationError as error:
            found = _KEY_PATH.match(str(error))
            problem = found["problem"] if found else str(error)
            key_path = found["path"] if found else "$"
            unknown = _UNKNOWN_KEY.search(problem)
            line = _line_of(self.node, f"{key_path}.{unknown['key']}" if unknown else key_path)
            place = "" if key_path == "$" else f"`{key_path.removeprefix('$.')}`: "
            raise InvalidFileError(self.path, f"{place}{problem}", line=line, hint=hint) from error


def read[T](path: Path, kind: type[T], *, hint: str | None = None) -> T:
    """The content of the YAML file `path` as a `kind`.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidFileError: It is not UTF-8, not YAML, has a key twice, or is no `kind`.
    """
    return parse(path, hint=hint).as_a(kind, hint=hint)


def parse(path: Path, *, hint: str | None = None) -> Document:
    """The content of the YAML file `path`, whatever it is.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidFileError: It is not UTF-8, not YAML, or has a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        line = path.read_bytes()[: error.start].count(b"\n") + 1
        raise InvalidFileError(path, "is not UTF-8 text", line=line, hint=hint) from error
    loader = yaml.CSafeLoader(text)
    try:
        _refuse_deep_nesting(path, text, hint)
        node = loader.get_single_node()
        _refuse_repeated_keys(path, node, hint)
        value = _construct(loader, node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        problem = f"is not valid YAML: {error.problem or error.context}"
        raise InvalidFileError(path, problem, line=line, hint=hint) from error
    except (yaml.YAMLError, ValueError) as error:  # control characters; impossible dates
        raise InvalidFileError(path, f"is not valid YAML: {error}", hint=hint) from error
    finally:
        loader.dispose()
    return Document(path, value, node)


def line_of_key(path: Path, key: str) -> int:
    """The 1-based line of the top-level `key` in `path`, a YAML file that `read` has accepted."""
    return _line_of(yaml.compose(path.read_text(encoding="utf-8"), yaml.CSafeLoader), f"$.{key}")


def _refuse_deep_nesting(path: Path, text: str, hint: str | None) -> None:
    """Refuse what would overflow the C stack: libyaml's composer recurses, its events don't."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise InvalidFileError(path, "is nested too deeply", hint=hint)


def _refuse_repeated_keys(path: Path, node: yaml.Node | None, hint: str | None) -> None:
    for mapping in _mappings(node):
        seen: set[object] = set()
        for key, _ in mapping.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InvalidFileError(path, f"`{key.value}` is there twice", line=line, hint=hint)
            seen.add(key.value)


def _mappings(node: yaml.Node | None) -> Iterator[yaml.MappingNode]:
    pending, visited = [node], set[int]()
    while pending:
        current = pending.pop()
        if id(current) in visited:  # an anchor may point back to its own ancestor
            continue
        visited.add(id(current))
        if isinstance(current, yaml.MappingNode):
            yield current
            pending += [part for pair in current.value for part in pair]
        elif isinstance(current, yaml.SequenceNode):
            pending += current.value


def _construct(loader: yaml.CSafeLoader, node: yaml.Node | None) -> object:
    """The plain Python value of a document; an empty one is an empty mapping."""
    if node is None:
        return {}
    # the stubs leave it untyped
    return loader.construct_document(node)  # pyright: ignore[reportUnknownMemberType]


def _line_of(node: yaml.Node | None, key_path: str) -> int:
    """The 1-based line of the deepest part of `key_path` (`$.tiers[0].port`) that exists."""
    line = 0
    for step in _STEP.finditer(key_path):
        if step["key"] is not None and isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == step["key"]), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line, pair[1]
        elif step["index"] is not None and isinstance(node, yaml.SequenceNode):
            items: list[yaml.Node] = node.value
            if not step["index"].isdigit() or int(step["index"]) >= len(items):
                break
            node = items[int(step["index"])]
            line = node.start_mark.line
        else:
            break
    return line + 1
