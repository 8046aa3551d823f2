"""YAML files read into typed values, with errors that name the file and the line."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_catalog import yaml12
from mlx_catalog.bounded_file import MAX_YAML_BYTES, UnboundedFileError, read_bounded
from mlx_catalog.mismatches import dotted, mismatches
from mlx_stack.errors import InvalidFileError


@dataclass(frozen=True, slots=True)
class Document:
    """A YAML file that was parsed, to be seen as one type or another.

    Attributes:
        value: Its plain Python value; that of an empty file is an empty mapping.
    """

    path: Path
    text: str
    value: yaml12.Value

    def as_a[T](self, kind: type[T], *, hint: str | None = None) -> T:
        """The value as a `kind`.

        Raises:
            InvalidFileError: When it is none; the error names the line.
        """
        try:
            return msgspec.convert(self.value, kind)
        except msgspec.ValidationError as error:
            found = next(mismatches(self.value, kind), None)
            if found is None:
                raise InvalidFileError(self.path, str(error), hint=hint) from error
            place = f"`{dotted(found.path)}`: " if found.path else ""
            # not repeated: it may be a secret that lost the name before it
            is_scalar = not found.path and not isinstance(self.value, dict | list)
            got = "a value without a key" if is_scalar else found.got
            problem = f"{place}expected {found.expected}, got {got}"
            line = self.line(*found.path)
            raise InvalidFileError(self.path, problem, line=line, hint=hint) from error

    def line(self, *path: str | int) -> int:
        """The 1-based line of a key path, or of what there is of it."""
        return yaml12.locate(self.text, path) or 1


def read[T](path: Path, kind: type[T], *, hint: str | None = None) -> T:
    """The content of the YAML file `path` as a `kind`.

    Raises:
        FileNotFoundError: When there is no such file.
        InvalidFileError: When it is not UTF-8, not YAML, has a key twice, or is no `kind`.
    """
    return parse(path, hint=hint).as_a(kind, hint=hint)


def parse(path: Path, *, hint: str | None = None) -> Document:
    """The content of the YAML file `path`, whatever it is.

    Raises:
        FileNotFoundError: When there is no such file.
        InvalidFileError: When it is a device, too large, not UTF-8, not YAML, or has a key twice.
    """
    try:
        text = read_bounded(path, MAX_YAML_BYTES).decode()
    except UnboundedFileError as error:
        raise InvalidFileError(path, f"is {error.strerror}", hint=hint) from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InvalidFileError(path, "is not UTF-8 text", line=line, hint=hint) from error
    try:
        value = yaml12.read(text)
    except yaml12.YamlError as error:
        problem = f"is not valid YAML: expected {error.expected}, got {error.got}"
        raise InvalidFileError(path, problem, line=error.line, hint=hint) from error
    return Document(path, text, {} if value is None else value)
