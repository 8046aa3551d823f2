"""A request's body as it comes from the client: in time, in bounds, unpacked."""

import asyncio
import zlib
from collections.abc import Mapping
from http import HTTPStatus

from mlx_gateway.errors import ApiError, ClientLeftError
from mlx_gateway.fields import invalid
from mlx_gateway.outbox import Receive

LONGEST_BODY_BYTES = 64 * 2**20
_WITHIN_S = 30.0
_BYTES_PER_S_AT_LEAST = 10_000


async def read_body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    """The request's body, unpacked.

    Raises:
        ApiError: When it is too large, too slow, or packed in a way that nobody asked for.
        ClientLeftError: When it has left.
    """
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length) > LONGEST_BODY_BYTES:
        raise _too_large()
    loop = asyncio.get_running_loop()
    began, size, parts = loop.time(), 0, list[bytes]()
    try:
        async with asyncio.timeout(_WITHIN_S) as limit:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > LONGEST_BODY_BYTES:
                    raise _too_large()
                if not message.get("more_body"):
                    break
                limit.reschedule(began + _WITHIN_S + size / _BYTES_PER_S_AT_LEAST)
    except TimeoutError as error:
        raise ApiError(HTTPStatus.REQUEST_TIMEOUT, "The body arrived too slowly.") from error
    body = parts[0] if len(parts) == 1 else b"".join(parts)
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"gzip":
        return unzipped(body)
    if encoding != b"identity":
        raise ApiError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Send the body uncompressed, or compressed with gzip.",
        )
    return body


def unzipped(body: bytes) -> bytes:
    """The content of a gzipped body.

    Raises:
        ApiError: When it is damaged, or too large once unpacked.
    """
    unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        content = unpacker.decompress(body, LONGEST_BODY_BYTES + 1)
    except zlib.error as error:
        raise invalid(f"The request's body is not valid gzip: {error}.") from error
    if len(content) > LONGEST_BODY_BYTES or unpacker.unconsumed_tail:
        raise _too_large()
    if not unpacker.eof:
        raise invalid("The request's body is not valid gzip: it ends early.")
    return content


def _too_large() -> ApiError:
    return ApiError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"The request's body is larger than {LONGEST_BODY_BYTES // 2**20} MiB.",
    )
