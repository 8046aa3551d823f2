"""The least that stands between a client and an engine: uvicorn, aiohttp, bytes. No key, no names.

    python bare_relay.py PORT ENGINE

`gateway_relay.py --others FOLDER` starts it, to tell what any gateway costs from what ours does.
"""
# pyright: reportMissingImports=false
# aiohttp is in the environment that the benchmark makes for this script, not in the workspace's.

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn

type Message = MutableMapping[str, Any]

ENGINE = sys.argv[2] if len(sys.argv) > 2 else ""
sessions: list[Any] = []


async def relay(
    scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """The engine's answer to the same bytes."""
    if not sessions:
        sessions.append(aiohttp.ClientSession())
    body, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = {"content-type": "application/json"}
    url = f"{ENGINE}{scope['path']}"
    async with sessions[0].request(scope["method"], url, data=body, headers=headers) as answer:
        kind = (b"content-type", answer.content_type.encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": [kind]})
        async for part in answer.content.iter_any():
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body"})


if __name__ == "__main__":
    port = int(sys.argv[1])
    uvicorn.run(relay, host="127.0.0.1", port=port, lifespan="off", log_level="error")
