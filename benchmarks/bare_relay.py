"""The least that stands between a client and an engine: uvicorn, aiohttp, bytes. No key, no names.

    python bare_relay.py PORT ENGINE

`gateway_relay.py --others FOLDER` starts it, to tell what any gateway costs from what ours does.
"""

import sys
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

PORT, ENGINE = int(sys.argv[1]), sys.argv[2]
SESSIONS: list[aiohttp.ClientSession] = []


async def relay(request: Request) -> StreamingResponse:
    """The engine's answer to the same bytes."""
    if not SESSIONS:
        SESSIONS.append(aiohttp.ClientSession())
    answer = await SESSIONS[0].request(
        request.method,
        ENGINE + request.url.path,
        data=await request.body(),
        headers={"content-type": "application/json"},
    )

    async def parts() -> AsyncIterator[bytes]:
        async for part in answer.content.iter_any():
            yield part

    return StreamingResponse(parts(), answer.status, media_type=answer.content_type)


app = Starlette(routes=[Route("/{path:path}", relay, methods=["GET", "POST"])])
uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="error", access_log=False)
