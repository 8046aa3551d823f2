"""Rotation of logs that a running process keeps open: copy, truncate, compress, number.

The writer holds the file open in append mode, so it can't be renamed; its content is copied and the
file truncated. Output written between the last read and the truncation is lost. That window is two
system calls wide: everything slow happens before it (the bulk of the copy, and the rename that
makes it valid) or after it (compression). See decision 0015.
"""

import gzip
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mlx_procsup.lock import try_flock

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class RotationRule:
    """When a log is rotated and how many archives are kept."""

    max_bytes: int = 50_000_000
    max_files: int = 5


@dataclass(frozen=True, slots=True)
class Rotation:
    """One rotation: the archive that it made, and how many bytes went into it."""

    archive: Path
    archived_bytes: int


def rotate_if_larger(log: Path, rule: RotationRule) -> Rotation | None:
    """Rotate a log that has grown beyond its limit; None if it hasn't."""
    try:
        size = log.stat().st_size
    except FileNotFoundError:
        return None
    return rotate_log(log, rule.max_files) if size > rule.max_bytes else None


def rotate_log(log: Path, max_files: int) -> Rotation | None:
    """Move a log's content into `<log>.1.gz` and renumber older archives; None if it is empty.

    Archives beyond `max_files` are deleted. An interrupted rotation is finished by the next one: at
    worst lines are duplicated, but none is lost. Rotations of one log wait for each other.

    Raises:
        LockUnsupportedError: The log's file system doesn't support locks.
        OSError: The archive can't be written; the log is left as it is.
    """
    try:
        handle = os.open(log, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        try_flock(handle, log, wait=True)
        _finish_cut_off(log, max_files)
        if os.fstat(handle).st_size == 0:
            return None
        archived_bytes = _copy_and_truncate(handle, log)
        return Rotation(_compress(log, max_files), archived_bytes)
    finally:
        os.close(handle)


def rewrite_log(log: Path, change: Callable[[bytes], bytes]) -> int:
    """The number of changed files of a log and its archives; rotations wait meanwhile.

    An archive is replaced at once. The log itself is overwritten in place, since a process keeps it
    open; the next call finishes an interrupted change.

    Args:
        log: The log.
        change: Returns the new version of some lines, with the same length; called with one block
            after the other.

    Raises:
        LockUnsupportedError: The log's file system doesn't support locks.
        OSError: A file can't be read or written.
    """
    try:
        handle = os.open(log, os.O_RDWR)
    except FileNotFoundError:
        return 0
    try:
        try_flock(handle, log, wait=True)
        changed = sum(_rewrite_archive(path, change) for path in archives(log))
        return changed + _write_over(handle, change)
    finally:
        os.close(handle)


def _write_over(handle: int, change: Callable[[bytes], bytes]) -> bool:
    is_changed = False
    with os.fdopen(os.dup(handle), "rb") as lines:
        offset = 0
        while block := _next_block(lines):
            new = change(block)
            if new != block:
                os.pwrite(handle, new, offset)
                is_changed = True
            offset += len(block)
    return is_changed


def _next_block(lines: BinaryIO) -> bytes:
    """About a megabyte, up to the end of a line if that is near."""
    return lines.read(_CHUNK_BYTES) + lines.readline(_CHUNK_BYTES)


def _rewrite_archive(path: Path, change: Callable[[bytes], bytes]) -> bool:
    if path.suffix != ".gz":  # a rotation that was cut off: its copy isn't compressed yet
        handle = os.open(path, os.O_RDWR)
        try:
            return _write_over(handle, change)
        finally:
            os.close(handle)
    is_changed = False
    unfinished = path.with_name(f"{path.name}.part")
    handle = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o600)
    try:
        with gzip.open(path) as packed, os.fdopen(handle, "wb") as raw:
            lines = cast("BinaryIO", packed)
            with gzip.GzipFile("", "wb", compresslevel=1, fileobj=raw) as rewritten:
                while block := _next_block(lines):
                    new = change(block)
                    is_changed |= new != block
                    rewritten.write(new)
            raw.flush()
            os.fsync(raw.fileno())
        if is_changed:
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return is_changed


def archives(log: Path) -> list[Path]:
    """The archives of a log, oldest first; the copy of an interrupted rotation is the newest."""
    pattern = re.compile(re.escape(log.name) + r"\.(\d+)\.gz")
    numbered: list[tuple[int, Path]] = []
    for path in log.parent.glob(f"{log.name}.*.gz"):
        match = pattern.fullmatch(path.name)
        if match is not None:
            numbered.append((int(match[1]), path))
    found = [path for _, path in sorted(numbered, reverse=True)]
    return [*found, rotated_copy(log)] if rotated_copy(log).exists() else found


def rotated_copy(log: Path) -> Path:
    """The complete copy of a log's content while it waits to be compressed."""
    return log.with_name(f"{log.name}.rotated")


def _copy_and_truncate(source: int, log: Path) -> int:
    unfinished = log.with_name(f"{log.name}.copying")
    target = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode=0o600)
    try:
        copied = _copy_rest(source, target)
        os.fsync(target)
        copied += _copy_rest(source, target)  # what came during the flush
        unfinished.rename(rotated_copy(log))
        copied += _copy_rest(source, target)
        os.ftruncate(source, 0)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        rotated_copy(log).unlink(missing_ok=True)  # the log still has it all
        raise
    finally:
        os.close(target)
    return copied


def _copy_rest(source: int, target: int) -> int:
    copied = 0
    while chunk := os.read(source, _CHUNK_BYTES):
        _write_all(target, chunk)
        copied += len(chunk)
    return copied


def _write_all(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[os.write(target, view) :]


def _compress(log: Path, max_files: int) -> Path:
    copy = rotated_copy(log)
    temporary = log.with_name(f"{log.name}.compressing")
    try:
        with (
            copy.open("rb") as source,
            temporary.open("wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6) as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    temporary.chmod(0o600)
    numbered = [path for path in archives(log) if path != copy]  # the oldest first
    for path in numbered[: max(0, len(numbered) - max_files + 1)]:
        path.unlink()
    kept = numbered[max(0, len(numbered) - max_files + 1) :]
    for number, path in zip(range(len(kept) + 1, 1, -1), kept, strict=True):
        path.rename(log.with_name(f"{log.name}.{number}.gz"))
    archive = log.with_name(f"{log.name}.1.gz")
    temporary.rename(archive)
    copy.unlink()
    return archive


def _finish_cut_off(log: Path, max_files: int) -> None:
    with suppress(FileNotFoundError):
        log.with_name(f"{log.name}.copying").unlink()
    if rotated_copy(log).exists():
        _compress(log, max_files)
