"""What the gateway answers below `/node`, to whoever holds a key: who this Mac is, and bytes."""

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from mlx_gateway.keys import KeyRing
from mlx_stack.home import Home

if TYPE_CHECKING:
    from mlx_stack.nodes.description import NodeDescription

PATH = "/node"
BYTES_PATH = f"{PATH}/bytes"
MOST_BYTES = 64 * 2**20
"""What is sent at the most to measure a link."""
_CHUNK = bytes(range(256)) * 256


class NodeMount:
    """Answers everything below `/node`."""

    def __init__(self, home: Home, keys: KeyRing) -> None:
        self._home = home
        self._keys = keys

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG002
        """Answer one request."""
        client = self._keys.holder(dict(scope["headers"]))
        path = scope["path"].rstrip("/")
        if client is None:
            await _send(send, HTTPStatus.UNAUTHORIZED, _error("The API key is missing or wrong."))
        elif scope["method"] != "GET":
            await _send(send, HTTPStatus.METHOD_NOT_ALLOWED, _error(f"{PATH} accepts GET only."))
        elif path == PATH:
            said = await asyncio.to_thread(self._describe)
            mine = tuple(each for each in said.models if client.may_use(each.tier))
            said = msgspec.structs.replace(said, models=mine)
            await _send(send, HTTPStatus.OK, msgspec.json.encode(said))
        elif path == BYTES_PATH:
            await _send_bytes(send, _count_in(scope.get("query_string", b"")))
        else:
            await _send(send, HTTPStatus.NOT_FOUND, _error("There is nothing here."))

    def _describe(self) -> "NodeDescription":
        # imported by the first request that asks: a gateway starts without the catalog
        from mlx_stack.nodes.description import describe  # noqa: PLC0415
        from mlx_stack.open_stack import OpenStack  # noqa: PLC0415

        return describe(OpenStack(self._home))

    def end(self) -> None:
        """Do nothing: every answer ends by itself."""


def _count_in(query: bytes) -> int:
    """How many bytes are asked for, within bounds."""
    given = parse_qs(query.decode("latin-1")).get("n", ["0"])[0]
    return min(int(given), MOST_BYTES) if given.isdecimal() and len(given) < 12 else 0


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message}})


async def _send(send: Any, status: HTTPStatus, body: bytes) -> None:
    head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": int(status), "headers": head})
    await send({"type": "http.response.body", "body": body})


async def _send_bytes(send: Any, count: int) -> None:
    kind = b"application/octet-stream"
    head = [(b"content-type", kind), (b"content-length", b"%d" % count)]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    while count > 0:
        chunk = _CHUNK[:count]
        count -= len(chunk)
        await send({"type": "http.response.body", "body": chunk, "more_body": count > 0})
    if not head[1][1].strip(b"0"):
        await send({"type": "http.response.body", "body": b""})
