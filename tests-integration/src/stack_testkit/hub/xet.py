"""Files as the Hub's Xet storage has them: chunks in xorbs, and the list that joins them again.

The protocol is public (https://huggingface.co/docs/xet): a client that was given a file's Xet hash
and a token asks the storage for the file's *reconstruction*, the terms (ranges of chunks of xorbs)
whose contents follow one another in the file, and fetches the byte ranges of the xorbs that hold
them. This stand-in cuts every 64 KiB, compresses nothing and repeats nothing, which is what a
model's weights come to; its hashes are names only, which clients don't compare when they read.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

CHUNK_BYTES = 64 * 1024
_HEADER_BYTES = 8
_CHUNKS_IN_XORB = 1000
"""A xorb has 64 MiB at most, as it is stored."""


@dataclass(frozen=True, slots=True)
class XetFile:
    """One file in the storage.

    Attributes:
        digest: Its Xet hash, as a name.
        size_bytes: Of the file itself.
        folder: Where its xorbs lie, each a file named by its hash.
    """

    digest: str
    size_bytes: int
    folder: Path

    def reconstruction(self, url: str, start: int, end: int) -> dict[str, object]:
        """The answer to `GET /v2/reconstructions/{digest}` for the bytes `[start, end)`.

        Args:
            url: The address under which the xorbs are served.
            start: The first byte.
            end: Behind the last one; it may lie beyond the file.
        """
        end = min(end, self.size_bytes)
        first, behind = start // CHUNK_BYTES, -(-end // CHUNK_BYTES)
        terms = list[dict[str, object]]()
        places = dict[str, list[dict[str, object]]]()
        for xorb in range(first // _CHUNKS_IN_XORB, -(-behind // _CHUNKS_IN_XORB)):
            base = xorb * _CHUNKS_IN_XORB
            low, high = max(first - base, 0), min(behind - base, _CHUNKS_IN_XORB)
            length = min((base + high) * CHUNK_BYTES, self.size_bytes) - (base + low) * CHUNK_BYTES
            name = _xorb_name(self.digest, xorb)
            chunks = {"start": low, "end": high}
            stored = length + (high - low) * _HEADER_BYTES
            place = low * (CHUNK_BYTES + _HEADER_BYTES)
            terms.append({"hash": name, "unpacked_length": length, "range": chunks})
            stretch = {"start": place, "end": place + stored - 1}
            ranges = [{"chunks": chunks, "bytes": stretch}]
            places[name] = [{"url": f"{url}/{name}", "ranges": ranges}]
        return {
            "offset_into_first_range": start - first * CHUNK_BYTES,
            "terms": terms,
            "xorbs": places,
        }


def store(file: Path, digest: str, folder: Path) -> XetFile:
    """Put a file into the storage in `folder`, once.

    Args:
        file: The file.
        digest: What it is to be called, 64 hexadecimal digits.
        folder: Where xorbs lie.
    """
    size, number = file.stat().st_size, 0
    with file.open("rb") as content:
        while content.tell() < size:
            xorb = folder / _xorb_name(digest, number)
            number += 1
            if xorb.exists():
                content.seek(_CHUNKS_IN_XORB * CHUNK_BYTES, 1)
                continue
            with xorb.open("wb") as out:
                for _ in range(_CHUNKS_IN_XORB):
                    chunk = content.read(CHUNK_BYTES)
                    if chunk:
                        out.write(_header(len(chunk)) + chunk)
    return XetFile(digest, size, folder)


def _header(size: int) -> bytes:
    """What stands before a chunk: version, stored size, compression (none), size."""
    length = struct.pack("<I", size)[:3]
    return b"\x00" + length + b"\x00" + length


def _xorb_name(digest: str, number: int) -> str:
    return hashlib.sha256(f"{digest} {number}".encode()).hexdigest()
