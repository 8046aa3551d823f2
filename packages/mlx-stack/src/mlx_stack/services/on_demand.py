"""LiteLLM from the first request that needs it until none has for a while."""

import asyncio
import logging
import time
from collections.abc import Callable
from http import HTTPStatus

from mlx_catalog import CatalogError
from mlx_gateway.errors import ApiError
from mlx_gateway.settings import GatewaySettings
from mlx_procsup import (
    LockOwner,
    ProbeTarget,
    ServiceState,
    SupervisionError,
    acquire_lock,
    locate,
    probe_service,
    start_service,
    stop_service,
    wait_for_healthy,
)
from mlx_stack.config import LiteLlmMode
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import make_litellm
from mlx_stack.services.service import LITELLM

READY_WITHIN_S = 120.0
_IDLE_S = 600.0
_LOCK_WITHIN_S = 60.0
_TRY_AGAIN_AFTER_S = 15.0

_log = logging.getLogger("mlx_stack")


class OnDemand:
    """Starts LiteLLM when a request is for the cloud, and stops it when it has been idle.

    Args:
        home: The state folder.
        key: The gateway's key, which implies LiteLLM's.
        settings: Gives the gateway's settings in force.
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
            if not (self._is_ready and self._is_alive()):
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

    def _is_alive(self) -> bool:
        return locate(self._home.state_dirs, LITELLM).own is not None

    async def _start(self) -> None:
        try:
            since = time.monotonic() - self._failed_at
            if since < _TRY_AGAIN_AFTER_S:
                raise _unavailable(self._failure, retry_after_s=round(_TRY_AGAIN_AFTER_S - since))
            await asyncio.to_thread(self._start_and_wait)
            self._is_ready = True
        except (SupervisionError, StackError, CatalogError, OSError) as error:
            self._failed_at, self._failure = time.monotonic(), str(error)
            _log.warning("LiteLLM could not be started: %s", error)
            raise _unavailable(self._failure) from error
        finally:
            self._starting = None

    def _start_and_wait(self) -> None:
        """Start LiteLLM under the stack's lock, unless it runs, and wait until it answers."""
        opened = OpenStack(self._home)
        service = make_litellm(opened, gateway_key=self._key)
        dirs = self._home.state_dirs
        assert service.spec.readiness is not None
        target = ProbeTarget(LITELLM, service.spec.readiness, service.spec.masked_command())
        if probe_service(target, dirs).state is ServiceState.HEALTHY:
            return
        ends = time.monotonic() + _LOCK_WITHIN_S
        with acquire_lock(
            self._home.lock,
            "gateway",
            on_wait=_note_wait,
            cancelled=lambda: time.monotonic() > ends,
        ):
            stop_service(LITELLM, dirs, command=service.spec.masked_command())
            started = start_service(service.spec, dirs)
        wait_for_healthy(started, READY_WITHIN_S)

    def _rest(self) -> None:
        if self._in_use == 0 and self._is_ready:
            self._is_ready = False
            self._stopping = asyncio.ensure_future(asyncio.to_thread(self._stop_if_idle))

    def _stop_if_idle(self) -> None:
        try:
            if OpenStack(self._home).config.litellm is LiteLlmMode.ALWAYS:
                return
            with acquire_lock(self._home.lock, "gateway"):
                stop_service(LITELLM, self._home.state_dirs)
        except (SupervisionError, StackError, OSError) as error:
            _log.warning("LiteLLM was not stopped: %s", error)


def _note_wait(holder: LockOwner | None) -> None:
    held_by = holder.describe() if holder else "another process"
    _log.info("LiteLLM starts when %s is done", held_by)


def _unavailable(reason: str, *, retry_after_s: int | None = None) -> ApiError:
    return ApiError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"The cloud can't be reached: {reason}",
        code="cloud_unavailable",
        retry_after_s=retry_after_s,
    )
