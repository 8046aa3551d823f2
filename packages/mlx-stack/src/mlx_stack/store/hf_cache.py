"""Models in huggingface_hub's own cache, which are used where they lie.

Its layout: `models--owner--name/blobs/` holds contents under their hashes, SHA-256 for LFS files
and git's SHA-1 for others; `snapshots/<commit>/` holds links to them; `refs/main` the commit.
"""

import errno
import os
import re
from pathlib import Path

from mlx_stack.store.hub import RemoteModel
from mlx_stack.store.manifest import FileRecord
from mlx_stack.store.weights import shards_of_index

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_SHA1 = re.compile(r"^[0-9a-f]{40}$")
_BLOCK_BYTES = 1 << 20


def find_blob(cache: Path, repo: str, file: FileRecord) -> Path | None:
    """The cached content of `file`, by its hash and size; None where it isn't there.

    The content is not read: `has_right_digest` compares it.
    """
    blob = _folder(cache, repo) / "blobs" / file.digest
    try:
        return blob if blob.stat().st_size == file.size_bytes else None
    except FileNotFoundError:
        return None


def find_snapshot(
    cache: Path, repo: str, revision: str
) -> tuple[RemoteModel, tuple[FileRecord, ...]] | None:
    """A repository as it is cached, for when the Hub may not be asked; None without a whole one.

    Sizes and hashes are those of the blobs. It is whole where `config.json` and every shard that
    the index names are there.
    """
    folder = _folder(cache, repo)
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        commit = revision
    snapshot = folder / "snapshots" / commit
    if _SHA1.match(commit) is None or not snapshot.is_dir():
        return None
    files = tuple(
        record
        for path in sorted(snapshot.rglob("*"))
        if (record := _record(snapshot, path)) is not None
    )
    names = {file.path for file in files}
    index = snapshot / "model.safetensors.index.json"
    shards = shards_of_index(index.read_bytes()) if index.exists() else frozenset[str]()
    if "config.json" not in names or not shards <= names:
        return None
    return RemoteModel(repo, commit, is_gated=False), files


def has_right_digest(path: Path, file: FileRecord) -> bool:
    """Whether the content of `path` has the size and hash of `file`; all of it is read."""
    if path.stat().st_size != file.size_bytes:
        return False
    hasher = file.hasher()
    with path.open("rb", buffering=0) as content:
        while block := content.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest() == file.digest


def link(existing: Path, path: Path) -> None:
    """Make `path` the same file as `existing`, without copying it.

    A hard link outlives the other name, `hf cache` pruning included; where the two are on
    different file systems, or one that has none, a symbolic link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = existing.resolve()
    try:
        os.link(target, path)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
            raise
        path.symlink_to(target)


def _folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _record(snapshot: Path, path: Path) -> FileRecord | None:
    """What a link in a snapshot points to; None for folders and dangling links."""
    if not path.is_file():
        return None
    digest = path.resolve().name
    algorithm = "sha256" if _SHA256.match(digest) else "git-sha1"
    return FileRecord(
        path=path.relative_to(snapshot).as_posix(),
        size_bytes=path.stat().st_size,
        algorithm=algorithm,
        digest=digest,
    )
