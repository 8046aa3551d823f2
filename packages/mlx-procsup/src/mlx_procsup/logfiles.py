"""The logs of services: read from their end, whatever bytes they hold."""

import os
from pathlib import Path

_BLOCK_BYTES = 65_536


def tail_lines(path: Path, count: int, start: int = 0) -> list[str]:
    """The last `count` lines of a file, read from its end; none where there is no file.

    Bytes that are no UTF-8 become replacement characters.

    Args:
        path: the file.
        count: how many lines at most.
        start: nothing before this offset is read; ignored if the file is shorter.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        position = file.seek(0, os.SEEK_END)
        start = start if start <= position else 0
        blocks: list[bytes] = []
        newlines = 0
        while position > start and newlines <= count:
            size = min(_BLOCK_BYTES, position - start)
            position -= size
            file.seek(position)
            block = file.read(size)
            newlines += block.count(b"\n")
            blocks.append(block)
    lines = b"".join(reversed(blocks)).splitlines()
    return [line.decode("utf-8", errors="replace") for line in lines[-count:]] if count > 0 else []


def last_line(path: Path, start: int = 0) -> str | None:
    """The last line that isn't blank, of the last twenty; None where there is none."""
    lines = [line.strip() for line in tail_lines(path, 20, start)]
    return next((line for line in reversed(lines) if line), None)
