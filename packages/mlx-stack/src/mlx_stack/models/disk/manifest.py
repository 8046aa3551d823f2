"""What a model folder says of itself: its origin and what every file must be (decision 0052)."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import msgspec

from mlx_catalog import Quant
from mlx_stack import json_file
from mlx_stack.errors import InvalidFileError
from mlx_stack.models.disk.layout import MANIFEST_NAME

_BEGINNING_BYTES = 2**20

type Origin = Literal["downloaded", "converted"]
type Algorithm = Literal["sha256", "git-sha1"]
type Size = Annotated[int, msgspec.Meta(ge=0)]


class FileOrigin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit of a repository on the Hub, 40 hexadecimal digits."""

    repo: str
    revision: str


class FileRecord(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True
):
    """One file as the Hub describes it, or as it was when a conversion wrote it.

    Attributes:
        path: Relative to the model folder, with forward slashes.
        algorithm: What `digest` is: SHA-256 of the content, or git's name of the blob.
        origin: Where it is from if not from the repository of the weights.
    """

    path: str
    size_bytes: Size
    algorithm: Algorithm
    digest: str
    origin: FileOrigin | None = None

    def hasher(self):  # `hashlib` has no public name for the type
        """A fresh hash; its hexdigest after the whole content must be `digest`."""
        if self.algorithm == "sha256":
            return hashlib.sha256()
        blob = hashlib.sha1(usedforsecurity=False)  # git's, not ours
        blob.update(b"blob %d\x00" % self.size_bytes)
        return blob

    def matches(self, path: Path) -> bool:
        """Whether the content of `path` has this size and hash; all of it is read."""
        if path.stat().st_size != self.size_bytes:
            return False
        with path.open("rb", buffering=0) as content:
            return hashlib.file_digest(content, self.hasher).hexdigest() == self.digest


def record_of(folder: Path, path: Path, *, is_synced: bool = False) -> FileRecord:
    """A file of the model in `folder`, read for its hash; with `is_synced`, brought to the disk."""
    with path.open("rb", buffering=0) as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
        if is_synced:
            os.fsync(content.fileno())
    return FileRecord(
        path=path.relative_to(folder).as_posix(),
        size_bytes=path.stat().st_size,
        algorithm="sha256",
        digest=digest,
    )


class Verification(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When every byte was last compared with its hash, and what was wrong.

    Attributes:
        at: Seconds since the epoch.
    """

    at: float
    damaged: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifest of one model folder.

    Attributes:
        repo: The Hub repository of the weights (of the original ones, where they were converted).
        revision: The commit, 40 hexadecimal digits.
        quant: The precision of the weights; None where `config.json` doesn't tell.
        allowed_code: What `code_digest` gave when the user allowed the model's own Python; None
            where nobody did.
        is_forced: Of an unfinished model, whether nothing that was here before went into it.
        is_waiting: Of an unfinished model, whether all of it is there, and it only has to be
            compared with the revision whose place it is to take.
    """

    schema_version: int = 1
    repo: str
    revision: str
    quant: Quant | None
    origin: Origin
    files: tuple[FileRecord, ...]
    model: str | None = None
    verification: Verification | None = None
    allowed_code: str | None = None
    is_forced: bool = False
    is_waiting: bool = False

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.size_bytes for file in self.files)

    def has_content_of(self, other: "Manifest") -> bool:
        """Whether both name the same files with the same content."""
        return _contents(self) == _contents(other)


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest in `folder`; None where there is none.

    Raises:
        InvalidFileError: When it is damaged, or was written by a newer version.
    """
    path = folder / MANIFEST_NAME
    hint = "`mlx-stack pull` of this model writes it again."
    manifest = json_file.read(path, Manifest, hint=hint)
    for file in manifest.files if manifest is not None else ():
        if not is_safe_path(file.path):
            problem = f"names a file outside its folder: {file.path!r}"
            raise InvalidFileError(path, problem, hint=hint)
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest into `folder`, which must exist, atomically."""
    json_file.write(folder / MANIFEST_NAME, manifest)


def weights_digest(folder: Path) -> str | None:
    """What tells a model's files from those of another revision; None where they can't be read.

    SHA-256 of what the manifest says of each; of a folder without one, of the files' names, sizes
    and beginnings: reading all of them would take as long as loading the model.
    """
    digest = hashlib.sha256()
    try:
        manifest = read_manifest(folder)
        if manifest is not None:
            lines = sorted(f"{file.path} {file.digest}" for file in manifest.files)
            digest.update("\n".join(lines).encode())
        else:
            for path in sorted(folder.glob("*")):
                if path.is_file():
                    with path.open("rb") as content:
                        beginning = hashlib.sha256(content.read(_BEGINNING_BYTES)).hexdigest()
                    digest.update(f"{path.name} {path.stat().st_size} {beginning}\n".encode())
    except (OSError, InvalidFileError):
        return None
    return digest.hexdigest()


def _contents(manifest: Manifest) -> set[tuple[str, str]]:
    return {(file.path, file.digest) for file in manifest.files}


def is_safe_path(path: str) -> bool:
    """Whether a path from outside stays inside the folder that it is joined to."""
    pure = PurePosixPath(path)
    parts = pure.parts
    return (
        bool(parts)
        and not pure.is_absolute()
        and ".." not in parts
        and "\x00" not in path
        and parts[0] != MANIFEST_NAME
    )
