"""Pictures to show to models, made without a library."""

import base64
import random
import struct
import zlib
from collections.abc import Sequence

_SQUARES = 8
"""So many squares of one colour a row, which a PNG stores in little."""

type Colour = tuple[int, int, int]


def random_picture(pixels: int, draw: random.Random) -> bytes:
    """A square PNG of so many pixels a side, of squares in random colours."""
    colours: list[Colour] = [
        (draw.randrange(256), draw.randrange(256), draw.randrange(256)) for _ in range(_SQUARES**2)
    ]
    return png(pixels, colours)


def png(pixels: int, colours: Sequence[Colour]) -> bytes:
    """A square PNG of so many pixels a side: a square number of squares in these colours."""
    across = round(len(colours) ** 0.5)
    side = -(-pixels // across)
    lines: list[bytes] = []
    for row in range(across):
        squares = (bytes(each) * side for each in colours[row * across : (row + 1) * across])
        line = b"\0" + b"".join(squares)[: 3 * pixels]
        lines += [line] * min(side, pixels - len(lines))
    header = struct.pack(">IIBBBBB", pixels, pixels, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(lines))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*part) for part in parts)


def _chunk(name: bytes, content: bytes) -> bytes:
    check = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


def data_url(picture: bytes) -> str:
    """A PNG as the address that requests carry."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
