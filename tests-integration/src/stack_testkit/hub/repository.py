"""Repositories as folders, and what the Hub says of their files."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_NEVER_READ_BYTES = 1 << 40
"""A sparse file larger than this stands for what fits on no disk; its hash is that of nothing."""


@dataclass(frozen=True, slots=True)
class Repository:
    """A folder `OWNER/NAME` of files, seen as one commit."""

    folder: Path

    @property
    def commit(self) -> str:
        """Forty hexadecimal digits that change when a file is written."""
        names = [f"{path} {_key(self.folder / path)[1:]}" for path in self.paths()]
        return hashlib.sha1("\n".join(names).encode()).hexdigest()

    def paths(self) -> list[str]:
        """Every file, with forward slashes, in order."""
        files = (path for path in self.folder.rglob("*") if path.is_file())
        return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def size(self, path: str) -> int:
        """The size of a file in bytes."""
        return (self.folder / path).stat().st_size

    def sha256(self, path: str) -> str:
        """The SHA-256 of a file, which names LFS objects."""
        return _digest(*_key(self.folder / path), "sha256")

    def git_sha1(self, path: str) -> str:
        """Git's name of a file's content."""
        return _digest(*_key(self.folder / path), "sha1")

    def parameters(self) -> dict[str, int]:
        """Values in the safetensors files by dtype, as their headers say; a header is enough."""
        counts: Counter[str] = Counter()
        for path in self.paths():
            if path.endswith(".safetensors"):
                counts.update(_header_counts(self.folder / path))
        return dict(counts)

    def tree(self, lfs_from_bytes: int) -> list[dict[str, object]]:
        """The entries of `/tree/{commit}?recursive=true`."""
        entries: list[dict[str, object]] = []
        folders = {parent.as_posix() for path in self.paths() for parent in Path(path).parents}
        for folder in sorted(folders - {"."}):
            oid = hashlib.sha1(folder.encode()).hexdigest()
            entries.append({"type": "directory", "oid": oid, "size": 0, "path": folder})
        for path in self.paths():
            size = self.size(path)
            entry: dict[str, object] = {"type": "file", "path": path, "size": size}
            if size >= lfs_from_bytes:
                pointer = f"oid sha256:{self.sha256(path)}\nsize {size}\n".encode()
                entry["oid"] = hashlib.sha1(pointer).hexdigest()
                entry["lfs"] = {"oid": self.sha256(path), "size": size, "pointerSize": 133}
            else:
                entry["oid"] = self.git_sha1(path)
            entries.append(entry)
        return entries


def write_repository(root: Path, repo: str, files: Mapping[str, bytes]) -> Repository:
    """Make (or replace the files of) the repository `repo` under `root`."""
    folder = root / repo
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return Repository(folder)


def _header_counts(path: Path) -> dict[str, int]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    counts: Counter[str] = Counter()
    for name, tensor in header.items():
        if name != "__metadata__":
            counts[tensor["dtype"]] += math.prod(tensor["shape"])
    return dict(counts)


def _key(path: Path) -> tuple[Path, int, int]:
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@cache
def _digest(path: Path, size: int, _modified_ns: int, algorithm: str) -> str:
    hasher = hashlib.new(algorithm)
    if size > _NEVER_READ_BYTES:
        return hasher.hexdigest()
    if algorithm == "sha1":
        hasher.update(b"blob %d\x00" % size)
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
    return hasher.hexdigest()
