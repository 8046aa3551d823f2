"""The gateway's door: nobody comes in without the key, but for the liveness probe."""

import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

OPEN_PATHS = frozenset({"/health/liveliness", "/health/liveness"})
DIGEST_HEADER = b"x-mlx-stack-config"
_ANTHROPIC_PATHS = ("/v1/messages", "/anthropic/")

type Scope = dict[str, Any]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Any, Send], Awaitable[None]]


class KeyGuard:
    """An ASGI application in front of another: answers 401 unless the key is right.

    LiteLLM without a database answers a wrong key with 400 and a missing one with 500; clients
    expect 401 in their own error shape. The liveness probe needs no key, and its answer says which
    configuration is in force.

    Args:
        app: The application behind the door.
        key: What a request must carry.
        config_digest: The digest of the configuration in force, asked for at each probe.
    """

    def __init__(self, app: App, key: str, config_digest: Callable[[], str]) -> None:
        self._app = app
        self._key = key.encode()
        self._config_digest = config_digest

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Hand the request on, or answer it."""
        if scope["type"] == "lifespan" or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, self._with_digest(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(scope, send)

    def _with_digest(self, send: Send) -> Send:
        async def send_with_digest(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                header = (DIGEST_HEADER, self._config_digest().encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        return send_with_digest

    def _has_key(self, scope: Scope) -> bool:
        return any(secrets.compare_digest(given, self._key) for given in _keys_given(scope))


def _keys_given(scope: Scope) -> list[bytes]:
    """What the request carries where OpenAI's and Anthropic's clients put their keys."""
    headers: dict[bytes, bytes] = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"")) if key]


async def _refuse(scope: Scope, send: Send) -> None:
    """Answer 401 in the shape that the client of this path understands."""
    problem = "The API key is wrong." if _keys_given(scope) else "No API key was given."
    message = f"{problem} `mlx-stack env` prints the right one."
    if scope["path"].startswith(_ANTHROPIC_PATHS):
        error = {"type": "authentication_error", "message": message}
        document: dict[str, object] = {"type": "error", "error": error}
    else:
        document = {
            "error": {
                "message": message,
                "type": "invalid_request_error",
                "param": None,
                "code": "invalid_api_key",
            }
        }
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})
