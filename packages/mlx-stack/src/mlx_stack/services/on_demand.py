"""What a request needs and doesn't run yet: tiers at rest, and LiteLLM for the cloud."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus

import mlx_stack
from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.settings import GatewaySettings
from mlx_procsup import WantedState, readable_run
from mlx_stack import services
from mlx_stack.home import Home
from mlx_stack.services.sleeper import CannotStartError, Sleeper, SleepingProcess

_LITELLM_IDLE_S = 600.0
_LOOKS_IN_IDLE_TIME = 10
_SOONEST_LOOK_S, _LATEST_LOOK_S = 0.1, 5.0

_log = logging.getLogger("mlx_stack")


class OnDemand:
    """The gateway's activator: starts what a request needs, and ends what has been idle.

    Args:
        key: The gateway's key, which implies LiteLLM's.
        settings: The gateway's settings in force, whenever it is called.
    """

    def __init__(self, home: Home, key: str, settings: Callable[[], GatewaySettings]) -> None:
        self._home = home
        self._key = key
        self._settings = settings
        self._known: GatewaySettings | None = None
        self._sleepers: dict[str, Sleeper] = {}
        self._looking: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin to look for what is idle."""
        self._looking = asyncio.ensure_future(self._look_again_and_again())

    async def end(self) -> None:
        """Start and end nothing any more."""
        for sleeper in self._sleepers.values():
            sleeper.give_up()
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking

    async def ready(self, model: str) -> None:
        """Return when `model` can be asked; what serves it is started if it is at rest.

        Raises:
            ApiError: When the cloud can't be reached.
            UpstreamFailedError: When a tier can't be started, so that another may answer.
        """
        sleeper = self._of(model)
        if sleeper is None:
            return
        try:
            await sleeper.ready()
        except CannotStartError as error:
            raise self._refusal(model, error) from error

    def finished(self, model: str) -> None:
        """Note that a request has ended; the last one starts the clock of idleness."""
        sleeper = self._of(model)
        if sleeper is not None:
            sleeper.finished()

    def is_at_rest(self, model: str) -> bool:
        """Whether a request to `model` would have to wait for a start."""
        sleeper = self._of(model)
        return sleeper is not None and sleeper.is_at_rest

    def _of(self, model: str) -> Sleeper | None:
        settings = self._settings()
        if settings is not self._known:
            self._read_again(settings)
        return self._sleepers.get(model)

    def _read_again(self, settings: GatewaySettings) -> None:
        """Know the models of other settings; what is known of those that stay is kept."""
        self._known, before = settings, self._sleepers
        self._sleepers = {}
        stack = mlx_stack.open_stack.OpenStack(self._home).readable_stack
        for name, model in settings.models.items():
            tier = stack.tier(name) if stack is not None else None
            if settings.is_cloud(model.upstreams[0].root):
                process = services.litellm_process.LiteLlmProcess(self._home, self._key)
                new = Sleeper("LiteLLM", process, idle_s=_LITELLM_IDLE_S)
            elif tier is not None:
                new = self._sleeper(name, services.engine_process.EngineProcess(self._home, name))
                new.idle_s, new.keeps_running = tier.idle_unload_s, not tier.lazy
            else:
                continue
            sleeper = before.pop(name, new)
            sleeper.idle_s, sleeper.keeps_running = new.idle_s, new.keeps_running
            self._sleepers[name] = sleeper
        for gone in before.values():
            gone.give_up()

    def _sleeper(self, name: str, process: SleepingProcess) -> Sleeper:
        record = readable_run(self._home.state_dirs, name)
        rests = record is not None and record.wanted is WantedState.ON_REQUEST
        return Sleeper(name, process, rests=rests)

    def _refusal(self, model: str, error: CannotStartError) -> ApiError | UpstreamFailedError:
        retry_after_s = None if error.retry_after_s is None else math.ceil(error.retry_after_s)
        settings = self._settings()
        if model in settings.models and settings.is_cloud(settings.models[model].upstreams[0].root):
            return ApiError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"The cloud can't be reached: {error.message}",
                code="cloud_unavailable",
                retry_after_s=retry_after_s,
            )
        return UpstreamFailedError(error.message, error.said, retry_after_s=retry_after_s)

    async def _look_again_and_again(self) -> None:
        """End what has been idle for long enough."""
        while True:
            pause_s = _LATEST_LOOK_S
            for sleeper in [each for each in self._sleepers.values() if each.idle_s is not None]:
                await sleeper.look()
                now, rests_at = time.monotonic(), sleeper.rests_at
                if rests_at is not None and rests_at <= now and await sleeper.rest():
                    _log.info("%s was idle for %.0f s and rests", sleeper.name, sleeper.idle_s)
                pause_s = min(pause_s, (sleeper.idle_s or pause_s) / _LOOKS_IN_IDLE_TIME)
            await asyncio.sleep(max(pause_s, _SOONEST_LOOK_S))
