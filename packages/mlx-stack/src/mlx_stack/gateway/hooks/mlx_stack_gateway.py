"""Runs inside LiteLLM: keeps the gateway closed, tiers in or out of rotation, its config fresh.

LiteLLM imports this file by way of PYTHONPATH, in an environment where nothing of mlx-stack is
installed. `litellm.yaml` names `authenticate` (as `custom_auth`) and `tier_health` (as a callback).

- Every request but the liveness probe needs the gateway's key. LiteLLM without a database answers
  a wrong key with 400 and a missing one with 500; clients expect 401 in their own error shape.
- Before a request goes to a tier, the tier must answer a small question. One that hangs or is gone
  is left out, and the request falls back at once instead of waiting for a long timeout.
- SIGHUP makes LiteLLM read `litellm.yaml` again; requests in flight keep the router they have.
"""

import asyncio
import hashlib
import json
import logging
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
from fastapi import Request
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

_KEY_VARIABLE = "LITELLM_MASTER_KEY"
_OPEN_PATHS = frozenset({"/health/liveliness", "/health/liveness"})
_ANTHROPIC_PATHS = ("/v1/messages", "/anthropic/")
_PROBE_TIMEOUT_S = 3.0
_DIGEST_HEADER = b"x-mlx-stack-config"
_VERDICT_LASTS_S = 0.1  # only so long that requests of the same moment share one probe

_log = logging.getLogger("mlx_stack_gateway")

type Scope = dict[str, Any]
type Send = Callable[[dict[str, Any]], Awaitable[None]]
type App = Callable[[Scope, Any, Send], Awaitable[None]]


class Configuration:
    """LiteLLM's configuration file, and which version of it is in force.

    Attributes:
        digest: The SHA-256 of the file as it was when it was read.
    """

    def __init__(self) -> None:
        self._path = Path(proxy_server.user_config_file_path)
        self._lock = asyncio.Lock()
        self.digest = self._digest_of_file()

    async def reload(self) -> None:
        """Read the file again. LiteLLM makes a new router of it; a damaged file changes nothing."""
        async with self._lock:
            digest = self._digest_of_file()
            (
                proxy_server.llm_router,
                proxy_server.llm_model_list,
                proxy_server.general_settings,
            ) = await proxy_server.proxy_config.load_config(
                router=None, config_file_path=str(self._path)
            )
            self.digest = digest
            _log.warning("configuration read again from %s", self._path)

    def _digest_of_file(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()


class KeyGuard:
    """An ASGI application in front of LiteLLM's: answers 401 unless the key is right.

    The liveness probe needs no key, and its answer says which configuration is in force.
    """

    def __init__(self, app: App, key: str, configuration: Configuration) -> None:
        self._app = app
        self._key = key.encode()
        self._configuration = configuration

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Hand the request on, or answer it."""
        if scope["type"] == "lifespan" or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["path"] in _OPEN_PATHS:
            await self._app(scope, receive, self._with_digest(send))
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(scope, send)

    def _with_digest(self, send: Send) -> Send:
        async def send_with_digest(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                header = (_DIGEST_HEADER, self._configuration.digest.encode())
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        return send_with_digest

    def _has_key(self, scope: Scope) -> bool:
        return any(secrets.compare_digest(given, self._key) for given in _keys_given(scope))


def _keys_given(scope: Scope) -> list[bytes]:
    """What the request carries where OpenAI's and Anthropic's clients put their keys."""
    headers = dict(scope["headers"])
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    bearer = token.strip() if scheme.lower() == b"bearer" else b""
    return [key for key in (bearer, headers.get(b"x-api-key", b"")) if key]


async def _refuse(scope: Scope, send: Send) -> None:
    """Answer 401 in the shape that the client of this path understands."""
    problem = "The API key is wrong." if _keys_given(scope) else "No API key was given."
    message = f"{problem} `mlx-stack env` prints the right one."
    if scope["path"].startswith(_ANTHROPIC_PATHS):
        error = {"type": "authentication_error", "message": message}
        document: dict[str, Any] = {"type": "error", "error": error}
    else:
        error = {
            "message": message,
            "type": "invalid_request_error",
            "param": None,
            "code": "invalid_api_key",
        }
        document = {"error": error}
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


async def authenticate(
    request: Request,  # noqa: ARG001 - LiteLLM passes it by name
    api_key: str | None,  # noqa: ARG001 - `KeyGuard` has checked it, whichever header it came in
) -> UserAPIKeyAuth:
    """Who is asking: everybody who passed the guard is the one user of this gateway."""
    return UserAPIKeyAuth(
        api_key="gateway", user_id="gateway", user_role=LitellmUserRoles.INTERNAL_USER
    )


class TierHealth(CustomLogger):
    """Leaves out tiers that don't answer, so that a request to them falls back at once."""

    def __init__(self) -> None:
        super().__init__()
        self._verdicts: dict[str, tuple[float, asyncio.Task[bool]]] = {}
        self._client: httpx.AsyncClient | None = None

    async def async_filter_deployments(
        self,
        model: str,  # noqa: ARG002 - LiteLLM's signature
        healthy_deployments: list[dict[str, Any]],
        messages: Any,  # noqa: ARG002 - LiteLLM's signature
        request_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - LiteLLM's signature
        parent_otel_span: Any = None,  # noqa: ARG002 - LiteLLM's signature
    ) -> list[dict[str, Any]]:
        """Those of the deployments that answer; the cloud is not asked."""
        bases = [row["litellm_params"].get("api_base") for row in healthy_deployments]
        verdicts = await asyncio.gather(*(self._answers(base) for base in bases))
        return [row for row, ok in zip(healthy_deployments, verdicts, strict=True) if ok]

    async def _answers(self, api_base: str | None) -> bool:
        """Whether the engine at `api_base` answers; requests at the same time share one probe."""
        if api_base is None:
            return True
        asked_at, task = self._verdicts.get(api_base, (0.0, None))
        if task is None or (task.done() and time.monotonic() - asked_at > _VERDICT_LASTS_S):
            task = asyncio.create_task(self._probe(api_base))
            self._verdicts[api_base] = (time.monotonic(), task)
        return await asyncio.shield(task)

    async def _probe(self, api_base: str) -> bool:
        if self._client is None:
            self._client = httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S, trust_env=False)
        try:
            response = await self._client.get(f"{api_base}/models")
        except httpx.HTTPError as error:
            _log.warning("%s is left out: %r", api_base, error)
            return False
        return response.is_success


def _reload_on_hangup(configuration: Configuration) -> None:
    """Read the configuration again on SIGHUP."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(configuration.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)


def _take_position() -> None:
    """Put the guard in front of LiteLLM's application, while that starts.

    Starlette looks its middleware up for every request, so the guard sees all of them.
    """
    configuration = Configuration()
    app = proxy_server.app
    app.middleware_stack = KeyGuard(app.middleware_stack, os.environ[_KEY_VARIABLE], configuration)
    _reload_on_hangup(configuration)


tier_health = TierHealth()
_take_position()
