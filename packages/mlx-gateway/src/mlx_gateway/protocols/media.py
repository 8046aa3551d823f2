"""Images, videos and sounds in a conversation: what of them may go to an engine.

vllm-mlx 0.6 fetches whatever address a client names, and looks at no image's size before it decodes
it; a picture of 50,000 by 50,000 pixels fits in a few hundred kilobytes.

(decision 0107)
"""

import re
import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from math import ceil
from typing import Any

from mlx_gateway.fields import Fields, invalid, list_in, object_in

LONGEST_IMAGE_BYTES = 20 * 2**20
MOST_PIXELS = 64_000_000
"""More than a phone's photograph has; decoded it takes 192 MB."""
MOST_IMAGES = 100
MOST_PIXELS_TOGETHER = 4 * MOST_PIXELS
"""What the images of one request may have: an engine decodes all of them at once."""

_MB = 2**20
_HEAD_LETTERS = 2**18
"""So much base64 of a picture nearly always says how large it is."""
_LONGEST_LETTERS = (LONGEST_IMAGE_BYTES + 2) // 3 * 4
_SPACE = b" \t\r\n\v\f"
_PLACES = ("messages", "input", "images")
"""Where a request holds its conversation, and Ollama's the images to a prompt."""
_HOLDERS = ("content", "output")
"""Where a message or the result of a tool holds its parts; the arguments of a call mean nothing."""
_MARKS = (b"image", b"video", b"audio", b"\\u")
"""One of these is in whatever shows something: JSON may also spell its letters with escapes."""
_IMAGES = ("image_url", "input_image", "image")
_NOT_IMAGES = ("video_url", "input_video", "video", "audio_url", "input_audio", "audio")
_NAMES = ("image_url", "image", "url")
"""Where a part has its image: each engine looks in another place, so that all are judged."""
_REMOTE = ("http://", "https://")
_SCHEME = re.compile(r"(?!data:)([A-Za-z][A-Za-z0-9+.-]{0,15}):")
_MOST_BLOCKS = 4096
"""So many blocks are read before a picture has said how large it is."""
_JPEG_MARKER = re.compile(rb"\xff++([^\xff])", re.DOTALL)
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""The markers that begin a frame, which says how large the picture is."""
_JPEG_ALONE = frozenset(range(0xD0, 0xDA))
"""The markers that have no length."""
_JPEG_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})
"""The markers of what may stand before a frame, each with its length."""
_JPEG_SCAN = 0xDA


def require_media(fields: Fields, *, allows_remote: bool, allowed_by: str) -> None:
    """Return if an engine may look at everything that a conversation shows it.

    Args:
        allows_remote: Whether engines may fetch what isn't in the request.
        allowed_by: What allows that, in words.

    Raises:
        ApiError: When something is too large, too much, no image, or not in the request.
    """
    images = pixels = 0
    for place in _PLACES:
        if place != "images" and not any(mark in fields.raw(place) for mark in _MARKS):
            continue
        given = fields.get(place)
        for address in _addresses({place: given} if place == "images" else given, place):
            images += 1
            if images > MOST_IMAGES:
                raise invalid(f"At most {MOST_IMAGES} images are allowed per request.", param=place)
            if isinstance(address, str) and address.startswith(_REMOTE):
                if not allows_remote:
                    raise invalid(
                        "Remote images are not fetched: send the image itself as a `data:` "
                        f"address, or allow remote images with {allowed_by}.",
                        param=place,
                    )
                continue
            width, height = _shown_size(address, place)
            pixels += width * height
            if pixels > MOST_PIXELS_TOGETHER:
                most = MOST_PIXELS_TOGETHER // 1_000_000
                raise invalid(
                    f"The images have more than {most} million pixels in total, the limit for "
                    "one request.",
                    param=place,
                )


def image_problem(content: bytes, size_bytes: int = 0) -> str:
    """Why a picture is not read, in words that follow its name; "" where it may be.

    Args:
        content: The picture, or its beginning.
        size_bytes: How large it is, where that is more.
    """
    size_bytes = max(size_bytes, len(content))
    if size_bytes > LONGEST_IMAGE_BYTES:
        size, most = ceil(size_bytes / _MB), LONGEST_IMAGE_BYTES // _MB
        return f"has {size} MB; the limit is {most} MB"
    return _size_problem(image_size(content))


def _size_problem(size: tuple[int, int] | None) -> str:
    if size is None:
        return "is not a complete PNG, JPEG, WebP or GIF image"
    width, height = size
    if width * height > MOST_PIXELS:
        most = MOST_PIXELS // 1_000_000
        return f"has {width:,} x {height:,} pixels; the limit is {most} million"
    return ""


def image_size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the picture's head says; None where it is no such picture.

    Nothing is decoded. PNG, JPEG, WebP and GIF are known. A picture that says its size twice is
    none: Pillow believes what comes last.
    """
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            size = _png_size(content)
        elif content.startswith((b"GIF87a", b"GIF89a")):
            size = _gif_size(content)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            size = _webp_size(content)
        elif content.startswith(b"\xff\xd8"):
            size = _jpeg_size(content)
        else:
            size = None
    except (struct.error, IndexError):
        return None
    return (int(size[0]), int(size[1])) if size is not None and all(size) else None


def _png_size(content: bytes) -> tuple[int, int] | None:
    size, at = None, 8
    for _ in range(_MOST_BLOCKS):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"IDAT":
            return size
        if (kind == b"IHDR") != (size is None):
            return None
        if size is None:
            width, height = struct.unpack_from(">II", content, at + 8)
            size = width, height
        at += length + 12
    return None


def _gif_size(content: bytes) -> tuple[int, int] | None:
    """The size of the screen, or of the first frame where it reaches beyond."""
    width, height, flags = struct.unpack_from("<HHB", content, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    is_inside = False
    for _ in range(_MOST_BLOCKS):
        if is_inside:  # an extension, of blocks that each begin with their length
            is_inside = content[at] > 0
            at += content[at] + 1
        elif content[at] == ord("!") and content[at + 2]:
            is_inside = True
            at += 2
        elif content[at] == ord(","):
            left, top, wide, high = struct.unpack_from("<HHHH", content, at + 1)
            return max(width, left + wide), max(height, top + high)
        else:
            return None
    return None


def _webp_size(content: bytes) -> tuple[int, int] | None:
    match content[12:16]:
        case b"VP8X":
            width, height = (int.from_bytes(content[at : at + 3], "little") for at in (24, 27))
            return width + 1, height + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", content, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            return None


def _jpeg_size(content: bytes) -> tuple[int, int] | None:
    size, at = None, 2
    for _ in range(_MOST_BLOCKS):
        found = _JPEG_MARKER.match(content, at)  # padding before it may be megabytes long
        if found is None:
            return None
        marker, at = found[1][0], found.end()
        if marker == _JPEG_SCAN:
            return size
        if marker in _JPEG_ALONE:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        if marker in _JPEG_SIZES and size is None:
            height, width = struct.unpack_from(">HH", content, at + 3)
            size = width, height
        elif marker not in _JPEG_TABLES:
            return None
        if length < 2:
            return None
        at += length
    return None


def _addresses(conversation: object, place: str) -> Iterator[object]:
    """The address of every image, wherever it stands; of bare base64 a `data:` one.

    Raises:
        ApiError: At a video or a sound: nothing bounds what an engine makes of it.
    """
    unread: list[object] = [conversation]
    while unread:
        value = unread.pop()
        unread += list_in(value)
        part = object_in(value)
        unread += (part[name] for name in _HOLDERS if name in part)
        kind = part.get("type")
        if kind in _NOT_IMAGES:
            raise invalid(
                f"Parts of type {kind!r} are not supported: a conversation can contain images, "
                "but no "
                "video or audio.",
                param=place,
            )
        if kind in _IMAGES:
            named = [_inner(part[name]) for name in _NAMES if part.get(name) is not None]
            if part.get("source") is not None:
                named.append(_of_source(object_in(part["source"])))
            yield from named or [None]
        for image in list_in(part.get("images")):  # as Ollama's clients send them
            yield f"data:image/;base64,{image}"


def _inner(value: object) -> object:
    return object_in(value).get("url", value)


def _of_source(source: dict[str, Any]) -> object:
    """The address that Anthropic's `source` means."""
    if source.get("type") == "base64":
        return f"data:{source.get('media_type') or 'image/png'};base64,{source.get('data') or ''}"
    return source.get("url")


def _shown_size(address: object, place: str) -> tuple[int, int]:
    """Width and height in pixels of the image at an address, which is in the request.

    Raises:
        ApiError: When it isn't, or may not be shown.
    """
    if not isinstance(address, str) or not address:
        raise invalid("An image needs an address.", param=place)
    if scheme := _SCHEME.match(address):
        raise invalid(
            f"{scheme[1]!r} addresses are not supported: send the image itself, as "
            "`data:image/png;base64,…`.",
            param=place,
        )
    head, comma, data = address.partition(",")
    if not head.startswith("data:") or not comma or not head.endswith(";base64"):
        raise invalid(
            "An image must be in the request itself, as `data:image/png;base64,…`.", param=place
        )
    try:
        letters = data.encode("ascii").translate(None, _SPACE)
        if len(letters) > _LONGEST_LETTERS:
            most = LONGEST_IMAGE_BYTES // _MB
            raise invalid(
                f"An image has more than {most} MB, the limit for one image.", param=place
            )
        size = image_size(b64decode(letters[:_HEAD_LETTERS], validate=True))
        if size is None and len(letters) > _HEAD_LETTERS:
            size = image_size(b64decode(letters, validate=True))
    except (Base64Error, ValueError):
        raise invalid("An image isn't valid base64.", param=place) from None
    problem = _size_problem(size)
    if size is None or problem:
        raise invalid(f"An image {problem}.", param=place)
    return size
