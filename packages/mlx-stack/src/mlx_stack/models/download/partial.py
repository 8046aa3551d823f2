"""An unfinished file and its journal, by which a killed download loses next to nothing.

Beside `NAME.part` lies `NAME.part.journal`: a line of JSON with what the file must become and in
which boot session it is written, then a line `START END` for each range that has been written,
and now and then `sync START END START END …` with the ranges that have reached the disk. A line
is appended only after its bytes were written, so a killed process leaves a true journal. After a
restart of the machine, which may have been a power cut, only the last `sync` line is believed.
"""

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from mlx_stack import atomic_file
from mlx_stack.models.disk.manifest import FileRecord
from mlx_stack.models.download.intervals import IntervalSet

_SYNC = b"sync "
_VERIFIED = b"verified"


class _Header(msgspec.Struct, frozen=True, kw_only=True):
    digest: str
    size_bytes: int
    boot: str


class PartialFile:
    """A file on its way, open for writing at any offset from any thread.

    Attributes:
        record: What it must become.
        received: The ranges that are there.
        resumed_bytes: How much of it an earlier process left.
        is_verified: Whether its hash was compared and agreed.
    """

    def __init__(self, path: Path, record: FileRecord, boot: str) -> None:
        """Open the partial file of `path`, continuing what is there of the same content.

        Args:
            path: Where the finished file will be; the partial one lies beside it.
            record: What it must become. Remains of anything else are removed.
            boot: Names the time between two starts of the machine, as `boot_session` gives it.
        """
        self.path = path
        self.record = record
        self._boot = boot
        self._lock = threading.Lock()
        self._moved = threading.Condition(self._lock)
        self._data = _data_of(path)
        self._journal = _journal_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.received, self.is_verified = read_remains(path, record, boot)
        self.resumed_bytes = self.received.total
        if not self.resumed_bytes:
            self._remove()
        self._open()

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset` and note it in the journal; nothing once the file is closed."""
        with self._lock:
            if self._closed:
                return
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], offset + written)
            self.received.add(offset, offset + len(data))
            os.write(self._log, b"%d %d\n" % (offset, offset + len(data)))
            self._moved.notify_all()

    def open_reader(self) -> BinaryIO:
        """What is there, from the first byte, independent of `close`."""
        return self._data.open("rb", buffering=0)

    def wait_beyond(self, offset: int) -> int:
        """The frontier, as soon as it is beyond `offset`; `offset` itself once it is closed."""
        with self._lock:
            self._moved.wait_for(lambda: self._closed or self.received.frontier > offset)
            return offset if self._closed else self.received.frontier

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there."""
        return self.received.total == self.record.size_bytes

    def sync(self) -> None:
        """Bring what is there to the disk; a power cut takes nothing of it any more."""
        with self._lock:
            if self._closed:
                return
            file = os.dup(self._file)
            ranges = list(self.received)
        try:
            os.fsync(file)
        finally:
            os.close(file)
        with self._lock:
            if not self._closed:
                os.write(self._log, _sync_line(ranges) + b"\n")

    def mark_verified(self) -> None:
        """Note that the hash agreed, so that a later process needn't read the file again."""
        with self._lock:
            self.is_verified = True
            os.write(self._log, _VERIFIED + b"\n")

    def restart(self) -> None:
        """Forget everything that was received."""
        with self._lock:
            self._close()
            self._remove()
            self.received, self.is_verified, self.resumed_bytes = IntervalSet(), False, 0
            self._open()

    def publish(self) -> None:
        """Give the finished file its name; the journal goes."""
        with self._lock:
            self._close()
            self._data.replace(self.path)
            self._journal.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the partial file and its journal."""
        with self._lock:
            self._close()
            self._remove()

    def close(self) -> None:
        """Keep what is there for another time; threads that still wait or write are let go."""
        with self._lock:
            self._close()

    def _open(self) -> None:
        self._closed = False
        self._file = os.open(self._data, os.O_RDWR | os.O_CREAT, 0o644)
        if os.fstat(self._file).st_size != self.record.size_bytes:
            os.ftruncate(self._file, self.record.size_bytes)
        self._write_journal()
        self._log = os.open(self._journal, os.O_WRONLY | os.O_APPEND)

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self._file)
            os.close(self._log)
            self._moved.notify_all()

    def _remove(self) -> None:
        self._data.unlink(missing_ok=True)
        self._journal.unlink(missing_ok=True)

    def _write_journal(self) -> None:
        """Write the journal anew and short, with what is there brought to the disk."""
        header = _Header(
            digest=self.record.digest, size_bytes=self.record.size_bytes, boot=self._boot
        )
        lines = [msgspec.json.encode(header)]
        if self.received.total:
            os.fsync(self._file)
            lines.append(_sync_line(self.received))
        if self.is_verified:
            lines.append(_VERIFIED)
        text = b"\n".join([*lines, b""]).decode()
        if self.received.total:
            atomic_file.write_text(self._journal, text)
        else:
            self._journal.write_text(text, encoding="ascii")


def read_remains(path: Path, record: FileRecord, boot: str) -> tuple[IntervalSet, bool]:
    """What an earlier process left of the partial file of `path`, and whether it was verified.

    Nothing of another content, and nothing that the journal doesn't vouch for. Changes nothing.
    """
    try:
        header, *lines = _journal_of(path).read_bytes().split(b"\n")
        size = _data_of(path).stat().st_size
    except FileNotFoundError:
        return IntervalSet(), False
    lines = lines[:-1]  # behind the last newline: nothing, or a line cut short
    try:
        known = msgspec.json.decode(header, type=_Header)
    except ValueError:
        return IntervalSet(), False
    if (known.digest, known.size_bytes, size) != (record.digest, size, record.size_bytes):
        return IntervalSet(), False
    if known.boot != boot:
        lines = [line for line in lines if line.startswith(_SYNC)][-1:]
    return parse_ranges(lines, size), _VERIFIED in lines


def _data_of(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _journal_of(path: Path) -> Path:
    return path.with_name(path.name + ".part.journal")


def parse_ranges(lines: Iterable[bytes], size: int) -> IntervalSet:
    """The ranges that journal lines name; whatever is no range inside the file is left out."""
    received = IntervalSet()
    for line in lines:
        numbers = [int(word) for word in line.removeprefix(_SYNC).split() if word.isdigit()]
        for start, end in zip(numbers[::2], numbers[1::2], strict=False):
            if end <= size:
                received.add(start, end)
    return received


def _sync_line(ranges: Iterable[tuple[int, int]]) -> bytes:
    return _SYNC + b" ".join(b"%d %d" % pair for pair in ranges)
