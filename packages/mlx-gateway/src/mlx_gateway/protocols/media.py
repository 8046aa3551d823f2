"""Images, videos and sounds in a conversation: what of them may go to an engine.

vllm-mlx 0.6 fetches whatever address a client names, and looks at no image's size before it decodes
it; a picture of 50,000 by 50,000 pixels fits in a few hundred kilobytes.
"""

import struct
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterator
from typing import Any

from mlx_gateway.fields import Fields, invalid, list_in, object_in

LONGEST_IMAGE_BYTES = 20 * 2**20
MOST_PIXELS = 64_000_000
"""More than a phone's photograph has; decoded it takes 192 MB."""

_HEAD_LETTERS = 2**18
"""So much base64 of a picture nearly always says how large it is."""
_PLACES = ("messages", "input", "images")
"""Where a request holds its conversation, and Ollama's the images to a prompt."""
_HOLDERS = ("content", "output")
"""Where a message or the result of a tool holds its parts; the arguments of a call mean nothing."""
_MARKS = (b"image", b"video", b"audio")
_REMOTE = ("http://", "https://")
_JPEG_SIZES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""The markers that begin a frame, which says how large the picture is."""
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xDA)})
"""The markers that have no length."""


def require_media(fields: Fields, *, allows_remote: bool) -> None:
    """Return if an engine may look at everything that a conversation shows it.

    Args:
        allows_remote: Whether engines may fetch what isn't in the request.

    Raises:
        ApiError: When something is too large, no image, or not in the request.
    """
    for place in _PLACES:
        if place != "images" and not any(mark in fields.raw(place) for mark in _MARKS):
            continue
        given = fields.get(place)
        for address in _addresses({place: given} if place == "images" else given):
            problem = _problem(address, allows_remote=allows_remote)
            if problem:
                raise invalid(problem, param=place)


def image_problem(content: bytes, size_bytes: int = 0) -> str:
    """Why a picture is not read, in words that follow its name; "" where it may be.

    Args:
        content: The picture, or its beginning.
        size_bytes: How large it is, where that is more.
    """
    size_bytes = max(size_bytes, len(content))
    if size_bytes > LONGEST_IMAGE_BYTES:
        size, most = size_bytes / 2**20, LONGEST_IMAGE_BYTES // 2**20
        return f"has {size:.0f} MB, and at most {most} MB are read"
    size = image_size(content)
    if size is None:
        return "is not a whole PNG, JPEG, WebP or GIF picture"
    width, height = size
    if width * height > MOST_PIXELS:
        most = MOST_PIXELS // 1_000_000
        return f"has {width:,} x {height:,} pixels, and at most {most} million are read"
    return ""


def image_size(content: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the picture's head says; None where it is no such picture.

    Nothing is decoded. PNG, JPEG, WebP and GIF are known.
    """
    try:
        if content.startswith(b"\x89PNG\r\n\x1a\n"):
            size = struct.unpack_from(">II", content, 16) if content[12:16] == b"IHDR" else None
        elif content.startswith((b"GIF87a", b"GIF89a")):
            size = struct.unpack_from("<HH", content, 6)
        elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
            size = _webp_size(content)
        elif content.startswith(b"\xff\xd8"):
            size = _jpeg_size(content)
        else:
            size = None
    except (struct.error, IndexError):
        return None
    return (int(size[0]), int(size[1])) if size is not None and all(size) else None


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
    at = 2
    while content[at] == 0xFF:
        marker = content[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", content, at + 5)
            return width, height
        else:
            at += 2 if marker in _JPEG_ALONE else 2 + int.from_bytes(content[at + 2 : at + 4])
    return None


def _addresses(conversation: object) -> Iterator[object]:
    """The address of everything that is shown, wherever it stands; of bare base64 a `data:` one."""
    unread: list[object] = [conversation]
    while unread:
        value = unread.pop()
        unread += list_in(value)
        part = object_in(value)
        unread += (part[name] for name in _HOLDERS if name in part)
        kind = part.get("type")
        if kind in ("image_url", "video_url", "audio_url"):
            yield _inner(part.get(kind))
        elif kind in ("image", "video", "audio") and "source" in part:
            yield _of_source(object_in(part["source"]))
        elif kind in ("image", "video", "audio"):
            yield _inner(part.get(kind, part.get("url")))
        elif kind == "input_image":
            yield _inner(part.get("image_url"))
        for image in list_in(part.get("images")):  # as Ollama's clients send them
            yield f"data:image/;base64,{image}"


def _inner(value: object) -> object:
    return object_in(value).get("url", value)


def _of_source(source: dict[str, Any]) -> object:
    """The address that Anthropic's `source` means."""
    if source.get("type") == "base64":
        return f"data:{source.get('media_type') or 'image/png'};base64,{source.get('data') or ''}"
    return source.get("url")


def _problem(address: object, *, allows_remote: bool) -> str:
    """Why what is at an address is not shown; "" where it is."""
    if not isinstance(address, str) or not address:
        return "An image needs an address."
    if address.startswith(_REMOTE):
        if allows_remote:
            return ""
        return (
            "Remote images are not fetched here: send the image itself as a `data:` address, or "
            "allow them in the gateway's settings (`remote_images`)."
        )
    head, comma, data = address.partition(",")
    if not head.startswith("data:") or not comma or not head.endswith(";base64"):
        scheme = address.partition(":")[0][:16] if ":" in address else "such"
        return (
            f"{scheme!r} addresses are not read: send the image itself, as "
            "`data:image/png;base64,…`."
        )
    if not head.startswith("data:image/"):
        return ""
    try:
        problem = _encoded_problem(data)
    except (Base64Error, ValueError):
        return "An image isn't valid base64."
    return f"An image {problem}." if problem else ""


def _encoded_problem(data: str) -> str:
    """The same of a picture in base64; of a large one no more is decoded than shows its size."""
    beginning = data[:_HEAD_LETTERS]
    if len(data) > _HEAD_LETTERS and len(beginning.split(maxsplit=1)) == 1:
        head = b64decode(beginning, validate=True)
        if image_size(head) is not None:
            return image_problem(head, len(data) // 4 * 3)
    return image_problem(b64decode("".join(data.split()), validate=True))
