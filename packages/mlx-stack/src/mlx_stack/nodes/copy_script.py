"""Takes a model that is copied to this Mac, and compares every byte with its hash.

Its text is sent to the engine's Python over there, which knows nothing of mlx-stack: it uses the
standard library only. It reads the files from stdin, after its question, and prints what it does,
one JSON object a line. Its folders are those of a pull (`models.disk.layout`): a file has its own
name once its hash was right.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

COPYING = ".copying"
MANIFEST = ".mlx-stack.json"
_INCOMING, _REPLACED = ".incoming", ".replaced"
_CHUNK_BYTES = 1 << 20
_EVERY_S = 0.5
_RESERVE_BYTES = 1 << 30
_RESERVE_PART = 50


class _StopError(Exception):
    """It can't go on; why has been said."""


class _Talk:
    """What is said on stdout, the counts a few times a second."""

    def __init__(self) -> None:
        self._next = 0.0

    def say(self, said: str, **fields: Any) -> None:
        """One line."""
        sys.stdout.write(json.dumps({"said": said, **fields}) + "\n")
        sys.stdout.flush()

    def count(self, said: str, bytes_: int) -> None:
        """How far it is, if that wasn't said just now."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            self.say(said, bytes=bytes_)


def main(question: str) -> None:
    """Take what `question` names, which is JSON; says `done`, `present`, or why not."""
    asked, talk = json.loads(question), _Talk()
    models = Path(asked["model_dir"])
    try:
        staging = models / _INCOMING / asked["folder"]
        staging.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = staging.with_name(f"{staging.name}.lock")
        with lock.open("a") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                talk.say("held")
                return
            try:
                _take(models / asked["folder"], staging, asked, talk)
            finally:
                lock.unlink(missing_ok=True)
    except _StopError:
        return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            talk.say("full", bytes=0)
        else:
            talk.say("failed", text=f"{error.strerror or error}: {error.filename or models}")


def _take(published: Path, staging: Path, asked: dict[str, Any], talk: _Talk) -> None:
    files: list[dict[str, Any]] = asked["files"]
    if _is_whole(published, files, talk):
        _note(published, _own_manifest(published, files) or asked["manifest"])
        talk.say("present")
        return
    _clear(staging, files)
    if asked["manifest"] is not None:
        _write(staging / MANIFEST, asked["manifest"])
    wanted = [each for each in files if not _is_right(staging / each["path"], each, talk)]
    offsets = {each["path"]: _begun(staging / each["path"], each) for each in wanted}
    needed = sum(each["size_bytes"] - offsets[each["path"]] for each in wanted)
    disk = shutil.disk_usage(staging)
    free = disk.free - min(_RESERVE_BYTES, disk.total // _RESERVE_PART)
    if needed > free:
        talk.say("full", bytes=needed - free)
        return
    talk.say("plan", offsets=offsets)
    received = 0
    for each in wanted:
        received = _receive(staging / each["path"], each, offsets[each["path"]], received, talk)
    _note(staging, asked["manifest"])
    _publish(published, staging)
    talk.say("done", bytes=received)


def _hasher(record: dict[str, Any]) -> Any:
    if record["algorithm"] == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\x00" % record["size_bytes"], usedforsecurity=False)


def _is_right(path: Path, record: dict[str, Any], talk: _Talk) -> bool:
    """Whether a file has this size and hash; all of it is read."""
    try:
        if path.stat().st_size != record["size_bytes"]:
            return False
        hasher = _hasher(record)
        _hash(path, hasher, talk)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return hasher.hexdigest() == record["digest"]


def _hash(path: Path, hasher: Any, talk: _Talk) -> None:
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            hasher.update(chunk)
            talk.count("checked", content.tell())


def _is_whole(folder: Path, files: list[dict[str, Any]], talk: _Talk) -> bool:
    """Whether a folder holds these files, and none more that an engine would take for weights."""
    known = {each["path"] for each in files}
    if not folder.is_dir() or any(
        path.relative_to(folder).as_posix() not in known
        for kind in ("*.safetensors", "*.py")
        for path in folder.rglob(kind)
        if not path.name.startswith("._")
    ):
        return False
    return all(_is_right(folder / each["path"], each, talk) for each in files)


def _clear(staging: Path, files: list[dict[str, Any]]) -> None:
    """Have the staging folder, with nothing in it but these files and their beginnings."""
    staging.mkdir(parents=True, exist_ok=True)
    kept = {each["path"] for each in files} | {f"{each['path']}{COPYING}" for each in files}
    for path in sorted(staging.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            with contextlib.suppress(OSError):  # it isn't empty
                path.rmdir()
        elif path.is_symlink() or path.relative_to(staging).as_posix() not in kept:
            path.unlink(missing_ok=True)


def _begun(path: Path, record: dict[str, Any]) -> int:
    """How much of a file is here already."""
    begun = path.with_name(f"{path.name}{COPYING}")
    size = begun.stat().st_size if begun.is_file() else 0
    return size if size <= record["size_bytes"] else 0


def _receive(path: Path, record: dict[str, Any], offset: int, received: int, talk: _Talk) -> int:
    """Read the rest of a file from stdin; how much has been received by then."""
    begun, hasher = path.with_name(f"{path.name}{COPYING}"), _hasher(record)
    begun.parent.mkdir(parents=True, exist_ok=True)
    if offset:
        _hash(begun, hasher, talk)
    left = record["size_bytes"] - offset
    with begun.open("ab" if offset else "wb") as target:
        while left:
            chunk = sys.stdin.buffer.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise _StopError  # the connection is gone: what came stays for the next time
            target.write(chunk)
            hasher.update(chunk)
            left -= len(chunk)
            received += len(chunk)
            talk.count("received", received)
        target.flush()
        os.fsync(target.fileno())
    if hasher.hexdigest() != record["digest"]:
        begun.unlink()
        talk.say("wrong", text=record["path"])
        raise _StopError
    path.unlink(missing_ok=True)
    begun.rename(path)
    return received


def _note(folder: Path, manifest: dict[str, Any] | None) -> None:
    """Write the manifest, with the time at which every byte was compared."""
    if manifest is not None:
        result: dict[str, Any] = {"at": time.time(), "damaged": []}
        _write(folder / MANIFEST, {**manifest, "verification": result})


def _own_manifest(folder: Path, files: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The manifest that a pull over there wrote; None where there is none, or of other files."""
    try:
        found: Any = json.loads((folder / MANIFEST).read_bytes())
        return found if found["files"] == files else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write(path: Path, document: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as target:
        target.write(json.dumps(document, indent=2) + "\n")
        target.flush()
        os.fsync(target.fileno())
    temporary.replace(path)


def _publish(published: Path, staging: Path) -> None:
    """Give the model its place; a former one is there until then."""
    replaced = staging.with_name(f"{staging.name}{_REPLACED}")
    _discard(replaced)
    if os.path.lexists(published):
        published.rename(replaced)
    staging.rename(published)
    _discard(replaced)


def _discard(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
