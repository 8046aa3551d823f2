"""A body as it comes: in time, in bounds, unpacked."""

import gzip
import zlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mlx_gateway.errors import ApiError, ClientLeftError
from mlx_gateway.request_body import LONGEST_BODY_BYTES, read_body, unzipped

type Receive = Callable[[], Awaitable[dict[str, Any]]]


def receiving(*parts: bytes, ends: bool = True) -> Receive:
    messages = [
        {"type": "http.request", "body": part, "more_body": not ends or number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


async def test_a_body_is_put_together() -> None:
    assert await read_body(receiving(b"one ", b"", b"two"), {}) == b"one two"


async def test_a_client_that_leaves_in_the_middle_ends_it() -> None:
    with pytest.raises(ClientLeftError):
        await read_body(receiving(b"one ", ends=False), {})


async def test_a_body_that_says_it_is_too_large_is_not_read() -> None:
    length = str(LONGEST_BODY_BYTES + 1).encode()

    with pytest.raises(ApiError, match="64 MiB") as caught:
        await read_body(receiving(b"x"), {b"content-length": length})

    assert caught.value.status == 413


async def test_a_body_that_turns_out_too_large_is_left() -> None:
    part = b"x" * 2**22
    with pytest.raises(ApiError) as caught:
        await read_body(receiving(*[part] * 17), {})

    assert caught.value.status == 413
    assert len(await read_body(receiving(*[part] * 16), {})) == LONGEST_BODY_BYTES


@pytest.mark.parametrize("encoding", [b"br", b"zstd", b"deflate", b"gzip, gzip"])
async def test_other_packings_are_refused(encoding: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        await read_body(receiving(b"x"), {b"content-encoding": encoding})

    assert caught.value.status == 415


async def test_a_packed_body_is_unpacked() -> None:
    body = gzip.compress(b'{"model": "m"}')

    assert await read_body(receiving(body), {b"content-encoding": b"GZIP"}) == b'{"model": "m"}'


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"no gzip", 400),
        (gzip.compress(b"x" * 1000, mtime=0)[:-9], 400),
        (b"", 400),
        (gzip.compress(b"\0" * (LONGEST_BODY_BYTES + 1), 1, mtime=0), 413),
        (gzip.compress(b"\0" * (LONGEST_BODY_BYTES * 4), 1, mtime=0), 413),
        (zlib.compress(b"x"), 400),
    ],
    ids=["text", "cut", "empty", "a bit too large", "bomb", "zlib"],
)
def test_a_packed_body_that_is_damaged_or_a_bomb_is_refused(body: bytes, status: int) -> None:
    with pytest.raises(ApiError) as caught:
        unzipped(body)

    assert caught.value.status == status
