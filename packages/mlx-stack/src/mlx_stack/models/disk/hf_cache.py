"""Models in huggingface_hub's own cache, which are used where they lie.

Its layout: `models--owner--name/blobs/` holds contents under their hashes, SHA-256 for LFS files
and git's SHA-1 for others; `snapshots/<commit>/` holds links to them; `refs/main` the commit;
`trees/<commit>.json`, since huggingface_hub 2, sizes and hashes of all files of the repository.

(decision 0053)
"""

import os
import re
import shutil
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import msgspec

from mlx_catalog.hub import HubCommit
from mlx_catalog.safetensors import missing_shards
from mlx_stack.models.disk.layout import ensure_room
from mlx_stack.models.disk.manifest import FileRecord, is_safe_path

_SHA256 = re.compile(r"^[0-9a-f]{64}$")
_SHA1 = re.compile(r"^[0-9a-f]{40}$")


class _TreeFile(msgspec.Struct, frozen=True):
    size: int
    blob_id: str
    lfs_sha256: str | None = None
    lfs_size: int | None = None


class _Tree(msgspec.Struct, frozen=True):
    format_version: Literal[1]
    files: dict[str, _TreeFile]


def find_blob(cache: Path, repo: str, file: FileRecord) -> Path | None:
    """The cached content of `file`, by its hash and size; None where it isn't there.

    The content is not read: `FileRecord.matches` compares it.

    Args:
        repo: The repository of the file, unless it says that it is from another one.
    """
    repo = file.origin.repo if file.origin is not None else repo
    blob = _folder(cache, repo) / "blobs" / file.digest
    try:
        is_usable = blob.stat().st_size == file.size_bytes and os.access(blob, os.R_OK)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    return blob if is_usable else None


def find_snapshot(
    cache: Path, repo: str, revision: str, needed: Collection[str] = ("config.json",)
) -> tuple[HubCommit, tuple[FileRecord, ...]] | None:
    """A repository as it is cached, for when the Hub may not be asked; None without a whole one.

    The files are those that the cached tree names, whether they are there or not. Without a tree
    they are those that are there, with sizes and hashes of the blobs; then it is whole where those
    that are `needed` and every shard, by the numbers in their names, are among them.
    """
    folder = _folder(cache, repo)
    try:
        commit = (folder / "refs" / revision).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        commit = revision
    snapshot = folder / "snapshots" / commit
    if _SHA1.match(commit) is None or not snapshot.is_dir():
        return None
    remote = HubCommit(repo, commit, is_gated=False)
    tree = _tree(folder / "trees" / f"{commit}.json")
    if tree is not None:
        return remote, tree
    files = tuple(
        record
        for path in sorted(snapshot.rglob("*"))
        if (record := _record(snapshot, path)) is not None
    )
    names = {file.path for file in files}
    if not names.issuperset(needed) or missing_shards(names):
        return None
    return remote, files


def link_or_copy(existing: Path, path: Path) -> None:
    """Make `path` the same file as `existing`, or a copy of it where the disk has no links.

    A hard link outlives the other name, `hf cache` pruning included; where the two are on
    different file systems, a symbolic link; on exFAT and many network disks there is neither. What
    others could change afterwards is copied.

    Raises:
        DiskSpaceError: When there is no room for the copy.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    target = existing.resolve()
    for make in (path.hardlink_to, path.symlink_to) if _is_ours(target) else ():
        try:
            make(target)
        except OSError:
            continue  # a link is a saving and never a condition
        return
    ensure_room(path.parent, target.stat().st_size, path.name)
    copy = path.with_name(f"{path.name}.part")
    shutil.copyfile(target, copy)
    copy.replace(path)


def _is_ours(path: Path) -> bool:
    """Whether only this user may write to a file."""
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _folder(cache: Path, repo: str) -> Path:
    return cache / f"models--{repo.replace('/', '--')}"


def _tree(path: Path) -> tuple[FileRecord, ...] | None:
    """The files of a cached tree; None where it is missing or of another form."""
    try:
        tree = msgspec.json.decode(path.read_bytes(), type=_Tree)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return tuple(
        FileRecord(
            path=name,
            size_bytes=file.lfs_size or file.size,
            algorithm="git-sha1" if file.lfs_sha256 is None else "sha256",
            digest=file.lfs_sha256 or file.blob_id,
        )
        for name, file in tree.files.items()
        if is_safe_path(name)
    )


def _record(snapshot: Path, path: Path) -> FileRecord | None:
    """What a link in a snapshot points to; None for anything but a link to a blob."""
    if not path.is_file():
        return None
    digest = path.resolve().name
    if _SHA256.match(digest) is None and _SHA1.match(digest) is None:
        return None
    algorithm = "sha256" if _SHA256.match(digest) else "git-sha1"
    return FileRecord(
        path=path.relative_to(snapshot).as_posix(),
        size_bytes=path.stat().st_size,
        algorithm=algorithm,
        digest=digest,
    )
