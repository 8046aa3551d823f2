"""What a conversation may show a model, and what is refused before anybody decodes it."""

import json
import struct
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.media import (
    LONGEST_IMAGE_BYTES,
    image_problem,
    image_size,
    require_media,
)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0)


def jpeg(width: int, height: int) -> bytes:
    """With a comment, padding and tables before the frame, as cameras write it."""
    exif = b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998)
    tables = b"\xff\xff\xdb\x00\x04\0\0\xff\xc4\x00\x04\0\0"
    frame = b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + bytes(10)
    return b"\xff\xd8" + exif + tables + frame


def webp_extended(width: int, height: int) -> bytes:
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF\0\0\0\0WEBPVP8X" + bytes(8) + sizes


def webp_lossless(width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    return b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + struct.pack("<I", bits)


def webp_lossy(width: int, height: int) -> bytes:
    head = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a"
    return head + struct.pack("<HH", width, height)


KINDS = [png, gif, jpeg, webp_extended, webp_lossless, webp_lossy]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (4000, 6000), (16_000, 3)])
def test_a_pictures_size_is_read_from_its_head(kind: Any, size: tuple[int, int]) -> None:
    content = kind(*size)

    assert image_size(content) == size
    assert image_problem(content) == ""
    assert all(image_size(content[:cut]) is None for cut in range(min(len(content) - 16, 20)))


@pytest.mark.parametrize("kind", [png, gif, jpeg, webp_extended])
def test_an_image_bomb_is_refused_by_its_head(kind: Any) -> None:
    assert "50,000 x 50,000 pixels" in image_problem(kind(50_000, 50_000))


@given(st.binary(max_size=200), st.sampled_from([b"", *(kind(9, 9)[:16] for kind in KINDS)]))
def test_no_bytes_are_a_surprise(content: bytes, head: bytes) -> None:
    assert isinstance(image_problem(head + content), str)


def problem(*, allows_remote: bool = False, **fields: object) -> str:
    try:
        body = read_fields(json.dumps(fields).encode())
        require_media(body, allows_remote=allows_remote)
    except ApiError as error:
        return f"{error.message} ({error.status})"
    return ""


def data(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{b64encode(content).decode()}"


FINE, BOMB = png(64, 64), png(50_000, 50_000)
IN_EACH_API = [
    lambda url: {"messages": [_user({"type": "image_url", "image_url": {"url": url}})]},
    lambda url: {"messages": [_user({"type": "image_url", "image_url": url})]},
    lambda url: {"messages": [_user({"type": "image", "image": url})]},
    lambda url: {"input": [_user({"type": "input_image", "image_url": url})]},
    lambda url: {"messages": [_user({"type": "image", "source": {"type": "url", "url": url}})]},
    lambda url: {
        "messages": [
            _user({"type": "tool_result", "content": [{"type": "image", "source": {"url": url}}]})
        ]
    },
]


def _user(part: object) -> dict[str, object]:
    return {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}


@pytest.mark.parametrize("fields_with", IN_EACH_API)
def test_only_what_is_in_the_request_is_shown(fields_with: Any) -> None:
    assert problem(**fields_with(data(FINE))) == ""
    assert "50,000 x 50,000 pixels" in problem(**fields_with(data(BOMB)))
    assert "'file' addresses are not read" in problem(**fields_with("file:///etc/passwd"))
    assert "'such' addresses are not read" in problem(**fields_with("/etc/passwd"))
    assert "not valid base64" in problem(**fields_with("data:image/png;base64,A")).replace(
        "isn't", "not"
    )
    assert "is not a whole PNG" in problem(**fields_with(data(b"%PDF-1.4")))
    assert "needs an address" in problem(**fields_with(""))
    for address in ("https://example.org/cat.png", "http://169.254.169.254/latest"):
        assert "Remote images are not fetched" in problem(**fields_with(address))
        assert problem(allows_remote=True, **fields_with(address)) == ""
    assert "'ftp' addresses" in problem(allows_remote=True, **fields_with("ftp://a/b.png"))


def test_bare_base64_of_anthropics_and_ollamas_clients_is_looked_at_too() -> None:
    def source(content: bytes) -> dict[str, object]:
        encoded = b64encode(content).decode()
        picture = {"type": "base64", "media_type": "image/png", "data": encoded}
        return {"messages": [_user({"type": "image", "source": picture})]}

    assert problem(**source(FINE)) == ""
    assert "pixels" in problem(**source(BOMB))
    for fields in (
        lambda image: {"messages": [{"role": "user", "content": "x", "images": [image]}]},
        lambda image: {"prompt": "x", "images": [image]},
    ):
        assert problem(**fields(b64encode(FINE).decode())) == ""
        assert "pixels" in problem(**fields(b64encode(BOMB).decode()))


def test_too_many_bytes_are_refused() -> None:
    assert "has 21 MB, and at most 20 MB are read" in image_problem(
        FINE + bytes(LONGEST_IMAGE_BYTES + 2**20)
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_large_picture_is_judged_by_its_head_wherever_its_lines_break(wrapped: bool) -> None:
    def shown(content: bytes) -> str:
        encoded = b64encode(content + bytes(2**20)).decode()
        if wrapped:
            encoded = "\r\n".join(encoded[at : at + 76] for at in range(0, len(encoded), 76))
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
        return problem(messages=[_user(part)])

    far = jpeg(50_000, 50_000)[:2] + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 5
    assert shown(FINE) == ""
    assert "50,000 x 50,000" in shown(BOMB)
    assert "50,000 x 50,000" in shown(far + jpeg(50_000, 50_000)[2:])
    assert "21 MB" in shown(FINE + bytes(20 * 2**20))


def test_what_only_looks_like_an_image_passes() -> None:
    call = {"type": "tool_use", "input": {"type": "image", "url": "file:///tmp/a.png"}}
    messages = [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": "an image_url of type image: file:///etc/passwd"},
    ]
    assert problem(messages=messages) == ""
