"""What LiteLLM calls: `litellm.yaml` names `authenticate` and `tier_health`.

- Every request but the liveness probe needs the gateway's key.
- An engine that hangs or is gone is left out, and requests to it, those in flight too, fall back.
- Engines are on this machine, so no proxy stands before them.
- SIGHUP makes LiteLLM read `litellm.yaml` again; requests in flight keep the router they have.
"""

import asyncio
import hashlib
import logging
import os
import signal
from pathlib import Path
from typing import Any

import httpx
from fastapi import Request
from litellm.exceptions import ServiceUnavailableError
from litellm.integrations.custom_logger import CustomLogger
from litellm.llms.custom_httpx.aiohttp_transport import LiteLLMAiohttpTransport
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

from mlx_stack_gateway.guard import KeyGuard
from mlx_stack_gateway.health import Engines, SendRequest

_KEY_VARIABLE = "LITELLM_MASTER_KEY"
_SILENCE_FIELD = "mlx_stack_silence_s"
_LOOPBACK = "127.0.0.1"

type Send = SendRequest[LiteLLMAiohttpTransport]

_log = logging.getLogger("mlx_stack_gateway")


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

    def __init__(self, engines: Engines) -> None:
        super().__init__()
        self._engines = engines

    async def async_filter_deployments(
        self,
        model: str,
        healthy_deployments: list[dict[str, Any]],
        messages: Any,  # noqa: ARG002 - LiteLLM's signature
        request_kwargs: dict[str, Any] | None = None,  # noqa: ARG002 - LiteLLM's signature
        parent_otel_span: Any = None,  # noqa: ARG002 - LiteLLM's signature
    ) -> list[dict[str, Any]]:
        """Those of the deployments that answer; the cloud is not asked.

        Raises:
            ServiceUnavailableError: None does. LiteLLM would say that there were too many requests.
        """
        verdicts = await asyncio.gather(*(self._answers(row) for row in healthy_deployments))
        living = [row for row, ok in zip(healthy_deployments, verdicts, strict=True) if ok]
        if healthy_deployments and not living:
            raise ServiceUnavailableError(f"{model} does not answer", "openai", model)
        return living

    async def _answers(self, deployment: dict[str, Any]) -> bool:
        api_base = deployment["litellm_params"].get("api_base")
        if api_base is None:
            return True
        silence_s = deployment.get("model_info", {}).get(_SILENCE_FIELD)
        return await self._engines.at(api_base, silence_s).is_answering()


def _reload_on_hangup(configuration: Configuration) -> None:
    """Read the configuration again on SIGHUP."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def begin() -> None:
        task = loop.create_task(configuration.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)


def _past_proxies(send: Send) -> Send:
    """A transport's `handle_async_request` that knows of no proxy on the way to the engines.

    `HTTP_PROXY`, or a Mac's network settings, name one for all addresses that they don't exclude.
    """

    async def sent(transport: LiteLLMAiohttpTransport, request: httpx.Request) -> httpx.Response:
        transport.proxy_cache[_LOOPBACK] = None
        return await send(transport, request)

    return sent


def _take_position() -> TierHealth:
    """Put the guard in front of LiteLLM's application and the watch into its transport.

    LiteLLM imports this while it starts. Starlette looks its middleware up for every request, so
    the guard sees all of them.
    """
    configuration = Configuration()
    app = proxy_server.app
    app.middleware_stack = KeyGuard(
        app.middleware_stack, os.environ[_KEY_VARIABLE], lambda: configuration.digest
    )
    _reload_on_hangup(configuration)
    engines = Engines()
    LiteLLMAiohttpTransport.handle_async_request = engines.watch(
        _past_proxies(LiteLLMAiohttpTransport.handle_async_request)
    )
    return TierHealth(engines)


tier_health = _take_position()
