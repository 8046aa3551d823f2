"""JSON files of our own: read into typed values, written atomically; each says its version."""

from pathlib import Path

import msgspec

from mlx_catalog.bounded_file import UnboundedFileError, read_bounded
from mlx_stack import atomic_file
from mlx_stack.errors import InvalidFileError

_MAX_BYTES = 128 * 2**20
"""A conversation is the longest: the gateway refuses more than half of it."""


class _Versioned(msgspec.Struct, frozen=True):
    schema_version: int


def read[T](path: Path, kind: type[T], *, hint: str) -> T | None:
    """The content of `path` as a `kind`; None if there is no such file.

    Raises:
        InvalidFileError: When the file is damaged, or its `schema_version` isn't 1.
    """
    try:
        content = read_bounded(path, _MAX_BYTES)
        version = msgspec.json.decode(content, type=_Versioned).schema_version
        if version == 1:
            return msgspec.json.decode(content, type=kind)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnboundedFileError as error:
        raise InvalidFileError(path, f"is {error.strerror}", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise InvalidFileError(path, f"is damaged: {error}", hint=hint) from error
    problem = f"has schema_version {version}; this mlx-stack reads 1"
    raise InvalidFileError(path, problem, hint=hint)


def write(path: Path, value: msgspec.Struct, *, mode: int = atomic_file.PUBLIC) -> None:
    """Make `value` the whole content of `path`, whose folder must exist."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    atomic_file.write_text(path, text + "\n", mode=mode)
