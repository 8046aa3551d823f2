"""What `connect` wrote into other programs' files, so that it can be taken back.

Values are kept as digests: some are keys.
"""

import hashlib
import json
from pathlib import Path

import msgspec

from mlx_stack import atomic_file
from mlx_stack.clients import documents
from mlx_stack.clients.documents import Format, Item, Jsonc, Toml, Variables, Yaml
from mlx_stack.clients.registry import Setting
from mlx_stack.errors import InvalidFileError

_SCHEMA_VERSION = 1
_HINT = "Remove the file; what `connect` wrote has to be taken back by hand then."
_FORMATS: dict[str, type[Format]] = {
    "jsonc": Jsonc,
    "toml": Toml,
    "yaml": Yaml,
    "variables": Variables,
}


class WrittenValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value that was written.

    Attributes:
        at: The way to it: a key, or for the element of a list its key and value there.
        sha256: The digest of the value.
    """

    at: tuple[str | tuple[str, str], ...]
    sha256: str

    @property
    def path(self) -> documents.Path:
        """Where it is in its file."""
        return tuple(step if isinstance(step, str) else Item(*step) for step in self.at)

    def is_in(self, text: str, format_: Format) -> bool:
        """Whether `text` still says what was written."""
        return _digest(format_.get(text, self.path)) == self.sha256


class WrittenFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file as it was left.

    Attributes:
        format: How it is edited: `jsonc`, `toml`, `yaml` or `variables`.
        values: What was written.
        content_sha256: The digest of the whole file, as long as only we have changed it; else None.
        earlier_mode: The permissions that it had before; None where there was no file.
    """

    format: str
    values: tuple[WrittenValue, ...]
    content_sha256: str | None
    earlier_mode: int | None

    def editor(self) -> Format:
        """What edits it."""
        return _FORMATS[self.format]()

    def is_as_left(self, content: str) -> bool:
        """Whether nobody but us has changed the file."""
        return self.content_sha256 == digest_of_content(content)


class Connections(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that was written and not taken back.

    Attributes:
        schema_version: 1.
        clients: By the client's name, the files by their absolute path.
    """

    schema_version: int = _SCHEMA_VERSION
    clients: dict[str, dict[str, WrittenFile]] = {}

    def files_of(self, client: str) -> dict[Path, WrittenFile]:
        """What was written for a client."""
        return {Path(path): file for path, file in self.clients.get(client, {}).items()}

    def with_client(self, client: str, files: dict[Path, WrittenFile]) -> "Connections":
        """These, but for what was written for one client."""
        others = {name: known for name, known in self.clients.items() if name != client}
        here = {client: {str(path): file for path, file in files.items()}} if files else {}
        return Connections(clients={**others, **here})


def read_connections(path: Path) -> Connections:
    """What was written; nothing where there is no such file.

    Raises:
        InvalidFileError: The file is damaged.
    """
    try:
        connections = msgspec.json.decode(path.read_bytes(), type=Connections)
    except FileNotFoundError:
        return Connections()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidFileError(path, str(error), hint=_HINT) from error
    files = [file for files in connections.clients.values() for file in files.values()]
    if connections.schema_version != _SCHEMA_VERSION or any(
        file.format not in _FORMATS for file in files
    ):
        raise InvalidFileError(path, "was written by a newer mlx-stack", hint=_HINT)
    return connections


def save_connections(path: Path, connections: Connections) -> None:
    """Write it down; the file goes with the last connection."""
    if connections.clients:
        text = msgspec.json.format(msgspec.json.encode(connections), indent=2).decode() + "\n"
        atomic_file.write_text(path, text, mode=atomic_file.PRIVATE)
    else:
        path.unlink(missing_ok=True)


def written_value(setting: Setting) -> WrittenValue:
    """A setting as it is remembered."""
    steps = (step if isinstance(step, str) else (step.key, step.value) for step in setting.path)
    return WrittenValue(at=tuple(steps), sha256=_digest(setting.value))


def format_name(format_: Format) -> str:
    """The name of what edits a file."""
    return next(name for name, known in _FORMATS.items() if isinstance(format_, known))


def digest_of_content(content: str) -> str:
    """The digest of a whole file."""
    return hashlib.sha256(content.encode()).hexdigest()


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, default=str)  # TOML has dates
    return hashlib.sha256(text.encode()).hexdigest()
