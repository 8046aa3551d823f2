"""What the gateway answers below `/node`: who this Mac is, bytes to measure a link, pairing."""

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msgspec

from mlx_gateway.keys import KeyRing
from mlx_stack.errors import StackError
from mlx_stack.home import Home

if TYPE_CHECKING:
    from mlx_stack.nodes.description import NodeDescription
    from mlx_stack.nodes.pairing_server import PairingServer

_log = logging.getLogger("mlx_stack")

PATH = "/node"
BYTES_PATH = f"{PATH}/bytes"
HELLO_PATH, PROOF_PATH = f"{PATH}/pair/hello", f"{PATH}/pair/proof"
"""The only ones that need no key: whoever asks there gets one, or nothing."""
MOST_BYTES = 64 * 2**20
"""What is sent at the most to measure a link."""
_LONGEST_BODY_BYTES = 4096
_BODY_WITHIN_S = 10.0
_CHUNK = bytes(range(256)) * 256


class NodeMount:
    """Answers everything below `/node`."""

    def __init__(self, home: Home, keys: KeyRing) -> None:
        self._home = home
        self._keys = keys
        self._server: PairingServer | None = None
        self._pairing = asyncio.Lock()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        path = scope["path"].rstrip("/")
        if path in (HELLO_PATH, PROOF_PATH):
            await _send(send, *await self._paired(scope, path, receive))
            return
        client = self._keys.holder(dict(scope["headers"]))
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

    async def _paired(
        self, scope: dict[str, Any], path: str, receive: Any
    ) -> tuple[HTTPStatus, bytes]:
        if scope.get("scheme") != "https":
            return HTTPStatus.FORBIDDEN, _error("Macs are paired over TLS only.")
        # whoever has no key may keep a connection open only while a code is shown, and not for long
        async with self._pairing:
            is_shown = await asyncio.to_thread(lambda: self._server_of_this_mac().shows_code())
        if not is_shown:
            return HTTPStatus.CONFLICT, _error("No pairing code is active.")
        body = await _body(receive) if scope["method"] == "POST" else None
        if body is None:
            return HTTPStatus.BAD_REQUEST, _error("Not a pairing message.")
        async with self._pairing:  # of those who want a guess, one after another
            return await asyncio.to_thread(self._pair, path, body)

    def _server_of_this_mac(self) -> "PairingServer":
        # imported by the first pairing, as below
        from mlx_stack.nodes.pairing_server import PairingServer  # noqa: PLC0415

        self._server = self._server or PairingServer(self._home)
        return self._server

    def _pair(self, path: str, body: bytes) -> tuple[HTTPStatus, bytes]:
        from mlx_stack.nodes import pairing_server  # noqa: PLC0415 - as above

        server = self._server_of_this_mac()
        try:
            if path == HELLO_PATH:
                said = server.welcome(msgspec.json.decode(body, type=pairing_server.Hello))
            else:
                said = server.pair(msgspec.json.decode(body, type=pairing_server.PairingProof))
        except pairing_server.RefusedPairingError as error:
            return error.status, _error(str(error))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return HTTPStatus.BAD_REQUEST, _error("Not a pairing message.")
        except (StackError, OSError) as error:
            _log.warning("a Mac can't be paired: %s", error)
            return HTTPStatus.INTERNAL_SERVER_ERROR, _error("See the gateway's log.")
        return HTTPStatus.OK, msgspec.json.encode(said)

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


async def _body(receive: Any) -> bytes | None:
    """The body of a request; None where it is too long or too slow, or its sender left."""
    try:
        async with asyncio.timeout(_BODY_WITHIN_S):
            return await _whole_body(receive)
    except TimeoutError:
        return None


async def _whole_body(receive: Any) -> bytes | None:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        if len(body) > _LONGEST_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return body


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
