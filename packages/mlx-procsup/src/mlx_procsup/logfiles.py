"""The logs of services: read from their end, followed, and joined with their archives."""

import gzip
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from mlx_procsup.errors import StateFileError
from mlx_procsup.rotate import archives, rotated_copy

_BLOCK_BYTES = 65_536
_GAINED_BYTES = 1 << 20
_POLL_S = 0.1
_MESSAGE_COLUMNS = 2000
# CSI and OSC sequences, other escapes, and control characters but tab; colours are kept apart.
_ESCAPE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)"
    r"|\x1b[ -/]*[0-~]?"
    r"|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
_COLOUR = re.compile(r"\x1b\[[0-9;:]*m")


@dataclass(frozen=True, slots=True)
class LogInfo:
    """A service's log: its size, when it last grew (seconds since the epoch), its archives."""

    name: str
    path: Path
    size_bytes: int
    modified_at: float
    archives: tuple[Path, ...]


def list_logs(folder: Path) -> list[LogInfo]:
    """The logs in a folder by name; empty if there is no folder."""
    found: list[LogInfo] = []
    for path in sorted(folder.glob("*.log")):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # removed since the folder was listed
        kept = tuple(archives(path))
        found.append(LogInfo(path.stem, path, stat.st_size, stat.st_mtime, kept))
    return found


def tail_lines(path: Path, count: int, start: int = 0) -> list[str]:
    """The last `count` lines of a file, read from its end; empty if there is no file.

    Bytes that aren't UTF-8 become replacement characters.

    Args:
        start: Nothing before this offset is read; ignored if the file is shorter.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        end = file.seek(0, os.SEEK_END)
        begin = max(_offset_of_last(file, count, end), start if start <= end else 0)
        file.seek(begin)
        lines = file.read(end - begin).split(b"\n")
    return [decode(line) for line in (lines if lines[-1] else lines[:-1])]


def tail_with_archive(log: Path, count: int) -> list[str]:
    """The last `count` lines of a log, including archives if it was just rotated.

    A damaged archive ends the search; lines after the damage are still returned.
    """
    lines = tail_lines(log, count)
    for archive in reversed(archives(log)):
        if len(lines) >= count:
            break
        try:
            older = deque(_raw_lines(archive), maxlen=count - len(lines))
        except StateFileError:
            break
        lines = [*map(decode, older), *lines]
    return lines


def last_words(
    path: Path, count: int, start: int = 0, *, mask: Callable[[str], str] = str
) -> list[str]:
    """The last `count` lines of a log, as plain text and short enough for a message.

    Args:
        path: The log.
        mask: Removes secrets from a line.
    """
    size = size_of(path)
    begin = max(start if start <= size else 0, size - _BLOCK_BYTES)
    return [_shortened(mask(plain(line))) for line in tail_lines(path, count, begin)]


def last_line(path: Path, start: int = 0) -> str | None:
    """The last line that isn't blank, among the last twenty; None if there is none."""
    lines = [line.strip() for line in last_words(path, 20, start)]
    return next((line for line in reversed(lines) if line), None)


def new_matches(log: Path, pattern: re.Pattern[bytes], start: int) -> tuple[list[str], int]:
    """The matches in the lines that a log has gained, and the offset for the next call.

    If a log has gained more than a mebibyte, only its end is read; if it was truncated, it is read
    from its beginning.

    Args:
        start: The offset where this call starts.
    """
    size = size_of(log)
    begin = max(0 if start > size else start, size - _GAINED_BYTES)
    if begin == size:
        return [], size
    with log.open("rb") as file:
        file.seek(begin)
        new = file.read(size - begin)
    end = new.rfind(b"\n") + 1
    if not end and len(new) == _GAINED_BYTES:
        end = len(new)  # nobody writes such lines
    found = [plain(decode(match[0])) for match in pattern.finditer(new, 0, end)]
    return found, begin + end


def all_lines(log: Path) -> Iterator[str]:
    """Every line that is kept, from the oldest archive to the end of the log.

    Raises:
        StateFileError: An archive is damaged; the lines before the damage have been yielded.
    """
    remainder = b""
    for path in [*archives(log), log]:
        for line in _raw_lines(path):
            joined, remainder = remainder + line, b""
            if joined.endswith(b"\n"):
                yield decode(joined)
            else:
                remainder = joined  # a rotation cut the line: its end is in the next file
    if remainder:
        yield decode(remainder)


def follow(
    log: Path,
    *,
    tail: int = 0,
    stopped: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[str]:
    """The last `tail` lines of a log and then every new one, across rotations and truncations.

    Lines that a rotation removed between two looks are read from the archive that it made. If the
    log doesn't exist yet, this waits for it.

    Args:
        tail: How many of the existing lines to start with.
        stopped: Called before every pause; the lines end when it returns true.
    """
    cursor = _Cursor(log, tail)
    unfinished: list[bytes] = []  # the pieces of a line whose end isn't there yet
    while True:
        new = cursor.read_new()
        if new:
            *ends, rest = new.split(b"\n")
            if ends:
                yield decode(b"".join((*unfinished, ends[0])))
                yield from map(decode, ends[1:])
                unfinished = []
            unfinished.append(rest)
            continue
        if stopped():
            if any(unfinished):
                yield decode(b"".join(unfinished))
            return
        sleep(_POLL_S)


def plain(line: str, *, keep_colours: bool = False) -> str:
    """A line that can't affect a terminal: no escape sequences, no control characters.

    Of a progress bar that redraws itself with carriage returns, only the last state is kept.

    Args:
        line: Without its line break.
        keep_colours: Keep colours and weights, and reset them at the end of the line.
    """
    line = next((part for part in reversed(line.split("\r")) if part), "")
    if not keep_colours:
        return _ESCAPE.sub("", line)
    kept = _ESCAPE.sub(lambda match: match[0] if _COLOUR.fullmatch(match[0]) else "", line)
    return kept + "\x1b[0m" if "\x1b[" in kept else kept


def decode(line: bytes) -> str:
    """A line's text without its line break, whatever bytes it contains."""
    return line.rstrip(b"\r\n").decode("utf-8", errors="replace")


class _Cursor:
    """A place in a log that survives its rotation."""

    def __init__(self, log: Path, tail: int) -> None:
        self._log = log
        self._archive = self._signature()
        self._took_copy = False
        self._position = 0
        with suppress(FileNotFoundError), log.open("rb") as file:
            self._position = _offset_of_last(file, tail, file.seek(0, os.SEEK_END))

    def read_new(self) -> bytes:
        """The bytes since the last call, at most a block of them; empty if there are none."""
        missed = self._missed_by_rotation()
        if missed is None:
            # A rotation that just happened shows its copy or its archive by now. If neither is
            # there, another program cut the log, and what was in it is gone.
            missed = self._missed_by_rotation()
            if missed is None:
                missed, self._position = b"", 0
        try:
            with self._log.open("rb") as file:
                file.seek(self._position)
                new = file.read(_BLOCK_BYTES)
        except FileNotFoundError:
            return missed
        self._position += len(new)
        return missed + new

    def _missed_by_rotation(self) -> bytes | None:
        """What was rotated away unread; None if the log was cut and nothing says where it went."""
        with ExitStack() as closing:
            copy = None
            with suppress(FileNotFoundError):
                copy = closing.enter_context(rotated_copy(self._log).open("rb"))
            signature = self._signature()
            size = size_of(self._log)
            if signature != self._archive:
                self._archive = signature
                taken, self._took_copy = self._took_copy, False
                if taken or signature is None:
                    return b""
                return self._rest_of(closing.enter_context(_open(self._first_archive())))
            if copy is not None and not self._took_copy:
                # while the copy is still made, the log is at least as long
                if size < max(self._position, os.fstat(copy.fileno()).st_size):
                    self._took_copy = True
                    return self._rest_of(copy)
                return b""
        return None if size < self._position else b""

    def _rest_of(self, file: BinaryIO) -> bytes:
        file.seek(self._position)
        self._position = 0
        return file.read()

    def _first_archive(self) -> Path:
        return self._log.with_name(f"{self._log.name}.1.gz")

    def _signature(self) -> tuple[int, int] | None:
        try:
            stat = self._first_archive().stat()
        except FileNotFoundError:
            return None
        return stat.st_ino, stat.st_mtime_ns


def _offset_of_last(file: BinaryIO, count: int, end: int) -> int:
    """Where the last `count` lines before `end` begin, found from there backwards."""
    if count <= 0:
        return end
    position, missing = end, count + 1
    while position > 0:
        size = min(_BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        if position + size == end and not block.endswith(b"\n"):
            missing -= 1  # the last line isn't finished: no line break closes it
        index = len(block)
        while missing > 0 and (index := block.rfind(b"\n", 0, index)) >= 0:
            missing -= 1
        if missing == 0:
            return position + index + 1
    return 0


def _raw_lines(path: Path) -> Iterator[bytes]:
    """The lines of an archive, or of a log; none if it was moved away meanwhile."""
    try:
        with _open(path) as file:
            yield from file
    except FileNotFoundError:
        return
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise StateFileError(path, f"is damaged: {error}") from error


def _shortened(line: str) -> str:
    """The line, or both its ends if it is long: a dump in one line says the most there."""
    half = _MESSAGE_COLUMNS // 2
    return line if len(line) <= _MESSAGE_COLUMNS else f"{line[:half]} … {line[-half:]}"


def size_of(path: Path) -> int:
    """A log's size in bytes; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _open(path: Path) -> BinaryIO:
    return cast("BinaryIO", gzip.open(path, "rb")) if path.suffix == ".gz" else path.open("rb")
