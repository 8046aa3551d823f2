"""An unfinished file, and next to it the check sums of the blocks of it that are here.

`NAME.part` grows as its blocks arrive, in any order. `NAME.part.blocks` begins with the hash that
the file must have; four bytes for each block follow, zero until the block was written, then its
CRC-32. A block counts again in a later process where both agree, so what a killed process, a power
cut or a bad disk damaged is fetched again, and nothing else is (decision 0051). No file system
needs holes, locks or links for it.
"""

import os
import threading
import zlib
from array import array
from pathlib import Path
from typing import BinaryIO

from mlx_stack.models.disk.manifest import FileRecord

BLOCK_BYTES = 64 * 1024
"""A kill loses less than this of each connection."""
SUFFIXES = (".part", ".part.blocks")
_HEADER_BYTES = 64
_SUM_BYTES = 4


class PartialFile:
    """A file on its way, whose blocks are written from any thread.

    Attributes:
        here: For each block 1 where it is here, else 0.
        resumed_bytes: How much of it an earlier process left.
    """

    def __init__(self, path: Path, record: FileRecord) -> None:
        """Open the partial file of `path`, continuing what is there of the same content.

        Raises:
            OSError: The folder can't be written to.
        """
        self.path = path
        self.record = record
        self._lock = threading.Lock()
        self._content, self._sums = _parts_of(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sums = _read_sums(path, record)
        flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if sums is None else 0)
        self._content_file = os.open(self._content, flags, 0o644)
        self._sums_file = os.open(self._sums, flags, 0o644)
        self._is_open = True
        if sums is None:
            _write(self._sums_file, _header(record), 0)
        self.here = bytearray(block_count(record))
        for block, expected in enumerate(sums or ()):
            if expected:
                data = os.pread(self._content_file, self.length_of(block), block * BLOCK_BYTES)
                self.here[block] = len(data) == self.length_of(block) and _sum(data) == expected
        self.resumed_bytes = self.present_bytes

    @property
    def present_bytes(self) -> int:
        """How much of it is here."""
        return _bytes_of(self.here.count(1), self.record, has_last=self.here.endswith(b"\1"))

    def length_of(self, block: int) -> int:
        """How long a block is: the last one may be shorter than the others."""
        return min(BLOCK_BYTES, self.record.size_bytes - block * BLOCK_BYTES)

    def write(self, block: int, data: bytes) -> None:
        """Write a whole block and note it; nothing once the file is closed."""
        with self._lock:
            if self._is_open:
                _write(self._content_file, data, block * BLOCK_BYTES)
                noted = _sum(data).to_bytes(_SUM_BYTES, "little")
                _write(self._sums_file, noted, _HEADER_BYTES + block * _SUM_BYTES)
                self.here[block] = 1

    def fill(self, content: bytes) -> None:
        """Write all of the content, which came from elsewhere; its hash is still to be compared."""
        for block in range(block_count(self.record)):
            self.write(block, content[block * BLOCK_BYTES :][: self.length_of(block)])

    def open_reader(self) -> BinaryIO:
        """The content, from its first byte; blocks that aren't here hold anything."""
        return self._content.open("rb", buffering=0)

    def publish(self) -> None:
        """Bring the finished file to the disk and give it its name."""
        with self._lock:
            os.fsync(self._content_file)
            self._close()
        self._content.replace(self.path)
        self._sums.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what is here."""
        self.close()
        discard_partial(self.path)

    def close(self) -> None:
        """Keep what is here for another time; what is written from now on is dropped."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            os.close(self._content_file)
            os.close(self._sums_file)


def block_count(record: FileRecord) -> int:
    """How many blocks a file has."""
    return -(-record.size_bytes // BLOCK_BYTES)


def noted_bytes(path: Path, record: FileRecord) -> int:
    """How much of the unfinished file of `path` is here by its check sums, without comparing."""
    sums = _read_sums(path, record)
    if not sums:
        return 0
    return _bytes_of(len(sums) - sums.count(0), record, has_last=sums[-1] != 0)


def allocated_bytes(path: Path, record: FileRecord) -> int:
    """How much of its final size the unfinished file of `path` takes on the disk already.

    On a file system without holes that is more than what is here.
    """
    content, _ = _parts_of(path)
    try:
        allocated = content.stat().st_blocks * 512
    except FileNotFoundError:
        return 0
    return min(max(allocated, noted_bytes(path, record)), record.size_bytes)


def discard_partial(path: Path) -> None:
    """Remove what is here of the unfinished file of `path`."""
    for part in _parts_of(path):
        part.unlink(missing_ok=True)


def _parts_of(path: Path) -> tuple[Path, Path]:
    content, sums = (path.with_name(path.name + suffix) for suffix in SUFFIXES)
    return content, sums


def _read_sums(path: Path, record: FileRecord) -> "array[int] | None":
    """The check sum of each block, 0 for none; None where nothing is here of this content."""
    _, sums = _parts_of(path)
    try:
        noted = sums.read_bytes()
    except FileNotFoundError:
        return None
    if noted[:_HEADER_BYTES] != _header(record):
        return None
    size = block_count(record) * _SUM_BYTES
    return array("I", noted[_HEADER_BYTES:][:size].ljust(size, b"\0"))


def _header(record: FileRecord) -> bytes:
    return record.digest.encode().ljust(_HEADER_BYTES)


def _bytes_of(blocks: int, record: FileRecord, *, has_last: bool) -> int:
    """How much so many blocks are."""
    missing_of_last = -record.size_bytes % BLOCK_BYTES
    return blocks * BLOCK_BYTES - (missing_of_last if has_last else 0)


def _sum(data: bytes) -> int:
    return zlib.crc32(data) or 1


def _write(file: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(file, data[written:], offset + written)
