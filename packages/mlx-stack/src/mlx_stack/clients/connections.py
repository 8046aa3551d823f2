"""What `connect` wrote into other programs' files, remembered so that it can be undone.

Values are kept as digests: some are keys.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import msgspec

from mlx_stack import atomic_file, json_file
from mlx_stack.clients.documents import FORMATS, DocumentPath, Format, FormatName

_HINT = "Remove the file; you then have to remove by hand what `connect` wrote."


class WrittenValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value that was written.

    Attributes:
        sha256: The digest of the value.
    """

    path: DocumentPath = msgspec.field(name="at")
    sha256: str

    @classmethod
    def of(cls, path: DocumentPath, value: object) -> "WrittenValue":
        """A value as it is remembered."""
        return cls(path=path, sha256=_digest_of_value(value))

    def is_in(self, text: str, editor: Format) -> bool:
        """Whether `text` still says what was written."""
        return _digest_of_value(editor.get(text, self.path)) == self.sha256


class WrittenFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file as it was left.

    Attributes:
        content_sha256: The digest of the whole file if only we have changed it so far; else None.
        earlier_mode: The permissions that it had before; None if there was no file.
    """

    format: FormatName
    values: tuple[WrittenValue, ...]
    content_sha256: str | None
    earlier_mode: int | None

    @property
    def editor(self) -> Format:
        """What edits it."""
        return FORMATS[self.format]

    def is_as_left(self, content: str) -> bool:
        """Whether only we have changed the file."""
        return self.content_sha256 == digest_of_content(content)

    def values_in(self, text: str, besides: Iterable[DocumentPath] = ()) -> list[DocumentPath]:
        """Where `text` still says what was written, but for some paths."""
        others = [value for value in self.values if value.path not in besides]
        return [value.path for value in others if value.is_in(text, self.editor)]


class Connections(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that was written and not undone.

    Attributes:
        clients: By the client's name, the files by their absolute path.
    """

    schema_version: int = 1
    clients: dict[str, dict[str, WrittenFile]] = {}

    def files_of(self, client: str) -> dict[Path, WrittenFile]:
        """What was written for a client."""
        return {Path(path): file for path, file in self.clients.get(client, {}).items()}

    def with_client(self, client: str, files: dict[Path, WrittenFile]) -> "Connections":
        """These, with other files of one client."""
        others = {name: known for name, known in self.clients.items() if name != client}
        here = {client: {str(path): file for path, file in files.items()}} if files else {}
        return Connections(clients={**others, **here})


def read_connections(path: Path) -> Connections:
    """What was written; nothing if there is no such file.

    Raises:
        InvalidFileError: When the file is damaged.
    """
    return json_file.read(path, Connections, hint=_HINT) or Connections()


def save_connections(path: Path, connections: Connections) -> None:
    """Write the file; it is removed with the last connection."""
    if connections.clients:
        json_file.write(path, connections, mode=atomic_file.PRIVATE)
    else:
        path.unlink(missing_ok=True)


def digest_of_content(content: str) -> str:
    """The digest of a whole file."""
    return hashlib.sha256(content.encode()).hexdigest()


def _digest_of_value(value: object) -> str:
    return digest_of_content(json.dumps(value, sort_keys=True, default=str))  # TOML has dates
