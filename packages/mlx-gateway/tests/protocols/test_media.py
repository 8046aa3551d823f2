"""What a conversation may show a model, and what is refused before anybody decodes it."""

import json
import struct
import sys
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.media import (
    LONGEST_IMAGE_BYTES,
    MOST_IMAGES,
    image_problem,
    image_size,
    require_media,
)


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + png_head(width, height) + b"\0\0\0\4IDAT"


def png_head(width: int, height: int) -> bytes:
    return b"\0\0\0\rIHDR" + struct.pack(">IIBBBBBI", width, height, 8, 2, 0, 0, 0, 0)


def gif(width: int, height: int) -> bytes:
    """With colours, a comment and a pause before the frame."""
    before = bytes(3 << 2) + b"!\xfe\x02by\0" + b"!\xf9\x04\0\0\0\0\0"
    return gif_screen(width, height, 0x81) + before + gif_frame(width, height)


def gif_screen(width: int, height: int, flags: int = 0) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, flags, 0, 0)


def gif_frame(width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)


def jpeg(width: int, height: int) -> bytes:
    """With a comment, padding and tables before the frame, as cameras write it."""
    exif = b"\xff\xe1" + struct.pack(">H", 60_000) + bytes(59_998)
    tables = b"\xff\xff\xdb\x00\x04\0\0\xff\xc4\x00\x04\0\0"
    return b"\xff\xd8" + exif + tables + jpeg_frame(width, height) + b"\xff\xda"


def jpeg_frame(width: int, height: int) -> bytes:
    return b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + bytes(10)


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
    return problem_of(json.dumps(fields).encode(), allows_remote=allows_remote)


def problem_of(body: bytes, *, allows_remote: bool = False) -> str:
    try:
        fields = read_fields(body)
        require_media(fields, allows_remote=allows_remote, allowed_by="a word of mine")
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
    assert "'file' addresses are not supported" in problem(**fields_with("file:///etc/passwd"))
    for path in ("/etc/passwd", "/tmp/a:b.png", FINE.hex(), "data:image/png,x"):
        assert "must be in the request itself" in problem(**fields_with(path))
    assert "not valid base64" in problem(**fields_with("data:image/png;base64,A")).replace(
        "isn't", "not"
    )
    assert "is not a complete PNG" in problem(**fields_with(data(b"%PDF-1.4")))
    assert "needs an address" in problem(**fields_with(""))
    for address in ("https://example.org/cat.png", "http://169.254.169.254/latest"):
        refusal = problem(**fields_with(address))
        assert "Remote images are not fetched" in refusal
        assert "allow remote images with a word of mine." in refusal
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
    beginning = FINE + bytes(LONGEST_IMAGE_BYTES)
    assert image_problem(beginning) == "has 21 MB; the limit is 20 MB"
    assert image_problem(beginning, 60 * 2**20) == "has 60 MB; the limit is 20 MB"


@pytest.mark.parametrize("wrapped", ["", "{}", "\n{}\n"])
def test_a_large_picture_is_judged_by_its_head_wherever_its_lines_break(wrapped: str) -> None:
    def shown(content: bytes) -> str:
        encoded = b64encode(content + bytes(2**20)).decode()
        if wrapped:
            lines = (encoded[at : at + 76] for at in range(0, len(encoded), 76))
            encoded = wrapped.format("\r\n".join(lines))
        part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
        return problem(messages=[_user(part)])

    far = jpeg(50_000, 50_000)[:2] + (b"\xff\xe1\xff\xff" + bytes(65_533)) * 5
    assert shown(FINE) == ""
    assert "50,000 x 50,000" in shown(BOMB)
    assert "50,000 x 50,000" in shown(far + jpeg(50_000, 50_000)[2:])
    assert "more than 20 MB" in shown(FINE + bytes(20 * 2**20))


def test_a_large_picture_may_begin_with_a_line_break() -> None:
    encoded = b64encode(FINE + bytes(2**20)).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,\n{encoded}"}}
    assert problem(messages=[_user(part)]) == ""


def test_no_way_to_spell_a_part_hides_it() -> None:
    part = r'{"type":"\u0069mage_url","\u0069mage_url":{"url":"http://169.254.169.254/x.png"}}'
    body = f'{{"messages":[{{"role":"user","content":[{part}]}}]}}'.encode()
    assert b"image" not in body
    assert "Remote images are not fetched" in problem_of(body)
    sound = r'{"type":"\u0061udio_url","\u0061udio_url":{"url":"/etc/passwd"}}'
    assert "not supported" in problem_of(f'{{"messages":[{{"content":[{sound}]}}]}}'.encode())


def test_every_place_where_an_engine_may_look_is_judged() -> None:
    fine = {"type": "base64", "data": b64encode(FINE).decode()}
    for part in (
        {"type": "image", "source": fine, "image": "file:///etc/passwd"},
        {"type": "image", "image": data(FINE), "url": "file:///etc/passwd"},
        {"type": "image_url", "image_url": data(FINE), "url": "file:///etc/passwd"},
    ):
        assert "'file' addresses are not supported" in problem(messages=[_user(part)])
    part = {"type": "image", "source": fine, "image": None, "url": None}
    assert problem(messages=[_user(part)]) == ""


@pytest.mark.parametrize("kind", ["text/plain", "", "application/octet-stream", "video/mp4"])
def test_a_picture_is_judged_whatever_it_is_called(kind: str) -> None:
    for fields_with in IN_EACH_API:
        assert problem(**fields_with(data(FINE, kind))) == ""
        assert "50,000 x 50,000 pixels" in problem(**fields_with(data(BOMB, kind)))
    source = {"type": "base64", "media_type": kind, "data": b64encode(BOMB).decode()}
    assert "pixels" in problem(messages=[_user({"type": "image", "source": source})])


@pytest.mark.parametrize("kind", ["video", "video_url", "audio", "audio_url", "input_audio"])
@pytest.mark.parametrize(
    "address", ["https://example.org/a.mp4", "/etc/passwd", "data:video/mp4;base64,AAAA", ""]
)
def test_videos_and_sounds_are_refused_in_words(kind: str, address: str) -> None:
    refusal = problem(allows_remote=True, messages=[_user({"type": kind, kind: {"url": address}})])
    assert f"Parts of type {kind!r} are not supported" in refusal
    assert refusal.endswith("(400)")


def test_a_picture_that_says_its_size_twice_is_none() -> None:
    twice = png(9, 9).replace(b"\0\0\0\4IDAT", png_head(50_000, 50_000) + b"\0\0\0\4IDAT")
    assert image_size(twice) is None
    head = b"\xff\xd8" + jpeg_frame(9, 9)
    assert image_size(head + b"\xff\xda") == (9, 9)
    assert image_size(head + jpeg_frame(50_000, 50_000) + b"\xff\xda") is None


def test_a_second_size_far_behind_the_first_is_found() -> None:
    text = struct.pack(">I", 2**20) + b"tEXt" + bytes(2**20 + 4)
    late = text + png_head(50_000, 50_000) + b"\0\0\0\4IDAT"
    content = png(9, 9).replace(b"\0\0\0\4IDAT", late)
    part = {"type": "image_url", "image_url": {"url": data(content)}}
    assert "is not a complete PNG" in problem(messages=[_user(part)])


def test_a_frame_that_reaches_beyond_its_screen_counts() -> None:
    assert image_size(gif_screen(9, 9) + gif_frame(50_000, 40_000)) == (50_000, 40_000)
    assert image_size(gif_screen(90, 90) + gif_frame(9, 9)) == (90, 90)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xd8" + b"\xff" * LONGEST_IMAGE_BYTES,
        b"\xff\xd8" + b"\xff\xd0" * (LONGEST_IMAGE_BYTES // 2),
        b"\x89PNG\r\n\x1a\n"
        + png_head(9, 9)
        + b"\0\0\0\0tEXt\0\0\0\0" * (LONGEST_IMAGE_BYTES // 12),
        gif_screen(9, 9) + b"!\xfe" + b"\1x" * (LONGEST_IMAGE_BYTES // 2 - 9),
        gif_screen(9, 9) + b"!\xfe\1x\0" * (LONGEST_IMAGE_BYTES // 5 - 9),
        gif_screen(9, 9) + (b"!\xfe" + b"\1x" * 4_000 + b"\0") * 2_000,
    ],
    ids=["padding", "markers", "chunks", "blocks", "extensions", "both"],
)
def test_a_picture_that_never_says_its_size_takes_no_time(content: bytes) -> None:
    steps, before = 0, sys.gettrace()

    def count(*_: object) -> Any:
        nonlocal steps
        steps += 1
        return count

    sys.settrace(count)
    try:
        assert image_size(content) is None
    finally:
        sys.settrace(before)
    assert steps < 100_000


def test_the_images_of_a_request_are_bounded_together() -> None:
    def shown(count: int, content: bytes) -> str:
        part = {"type": "image_url", "image_url": {"url": data(content)}}
        return problem(messages=[_user(part)] * count)

    assert shown(MOST_IMAGES, FINE) == ""
    assert f"At most {MOST_IMAGES} images" in shown(MOST_IMAGES + 1, FINE)
    assert shown(4, png(8_000, 8_000)) == ""
    assert "more than 256 million pixels in total" in shown(5, png(8_000, 8_000))


def test_what_only_looks_like_an_image_passes() -> None:
    call = {"type": "tool_use", "input": {"type": "image", "url": "file:///tmp/a.png"}}
    messages = [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": "an image_url of type image: file:///etc/passwd"},
    ]
    assert problem(messages=messages) == ""
