"""LiteLLM from the first request that needs it until none has for a while."""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from mlx_gateway.errors import ApiError
from mlx_gateway.settings import GatewaySettings
from mlx_stack import services
from mlx_stack.errors import StackError
from mlx_stack.home import Home

_IDLE_S = 600.0
_TRY_AGAIN_AFTER_S = 15.0

_log = logging.getLogger("mlx_stack")


class OnDemand:
    """Starts LiteLLM when a request is for the cloud, and stops it when it has been idle.

    Args:
        key: The gateway's key, which implies LiteLLM's.
    """

    def __init__(self, home: Home, key: str, settings: Callable[[], GatewaySettings]) -> None:
        self._settings = settings
        self._home = home
        self._key = key
        self._starting: asyncio.Task[None] | None = None
        self._is_ready = False
        self._failed_at = float("-inf")
        self._failure = ""
        self._in_use = 0
        self._idle_timer: asyncio.TimerHandle | None = None
        self._stopping: asyncio.Task[None] | None = None

    async def ready(self, model: str) -> None:
        """Return when `model` can be asked; LiteLLM is started if it is one of its models.

        However many requests wait, there is one start; a client that leaves doesn't cancel it.

        Raises:
            ApiError: When LiteLLM can't be started.
        """
        if not self._is_litellms(model):
            return
        self._in_use += 1
        try:
            if not (self._is_ready and services.litellm_process.is_alive(self._home)):
                self._is_ready = False
                if self._starting is None:
                    self._starting = asyncio.ensure_future(self._start())
                await asyncio.shield(self._starting)
        except BaseException:
            self._in_use -= 1
            raise

    def finished(self, model: str) -> None:
        """Note that a request has ended; the last one starts the clock of idleness."""
        if not self._is_litellms(model):
            return
        self._in_use = max(self._in_use - 1, 0)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_S, self._rest)

    def _is_litellms(self, model: str) -> bool:
        settings = self._settings()
        known = settings.models.get(model)
        return known is not None and settings.is_cloud(known.upstreams[0].root)

    async def _start(self) -> None:
        try:
            since = time.monotonic() - self._failed_at
            if since < _TRY_AGAIN_AFTER_S:
                raise _unavailable(self._failure, retry_after_s=round(_TRY_AGAIN_AFTER_S - since))
            await asyncio.to_thread(self._start_process)
            self._is_ready = True
        except StackError as error:
            self._failed_at, self._failure = time.monotonic(), str(error)
            _log.warning("LiteLLM could not be started: %s", error)
            raise _unavailable(self._failure) from error
        finally:
            self._starting = None

    def _start_process(self) -> None:
        services.litellm_process.start(self._home, self._key)

    def _rest(self) -> None:
        if self._in_use == 0 and self._is_ready:
            self._is_ready = False
            self._stopping = asyncio.ensure_future(asyncio.to_thread(self._stop_process))

    def _stop_process(self) -> None:
        try:
            services.litellm_process.stop(self._home)
        except StackError as error:
            _log.warning("LiteLLM was not stopped: %s", error)


def _unavailable(reason: str, *, retry_after_s: int | None = None) -> ApiError:
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"The cloud can't be reached: {reason}",
        code="cloud_unavailable",
        retry_after_s=retry_after_s,
    )
