"""What a request needs and doesn't run yet: tiers at rest, models on this disk, and LiteLLM."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING

from mlx_gateway.activation import Presence
from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import invalid
from mlx_gateway.keys import Priority
from mlx_gateway.residency import RoomRule
from mlx_gateway.settings import GatewaySettings
from mlx_procsup import WantedState, readable_run
from mlx_stack import services
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.services.room import Room
from mlx_stack.services.sleeper import CannotStartError, Sleeper, SleepPlan

if TYPE_CHECKING:
    from mlx_stack.open_stack import OpenStack
    from mlx_stack.services.inventory import Held, Inventory
    from mlx_stack.stack import Tier

_LITELLM_IDLE_S = 600.0
_LOOKS_IN_IDLE_TIME = 10
_SOONEST_LOOK_S, _LATEST_LOOK_S = 0.1, 5.0
_READ_AGAIN_S = 1.0
"""How soon what couldn't be read is read again: a model may just have been removed."""

_PATIENCE_S = {Priority.INTERACTIVE: 0.0, Priority.AGENT: 10.0, Priority.BATCH: 40.0}
"""How much later a more urgent request may come and its model still be let into memory first: a
third of what it is in the line before an engine, since nobody waits for room for very long."""

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
        self._inventory: Inventory | None = None
        self._told: Inventory | None = None
        self._given: GatewaySettings | None = None
        self._is_stale = True
        self._trouble = ""
        self._configured: tuple[int, int, int] | None = None
        self._taking_stock = asyncio.Lock()
        self._sleepers: dict[str, Sleeper] = {}
        self._room = Room(self._sleepers.values, self._rule)
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

    async def ready(self, model: str, priority: Priority) -> None:
        """Return when `model` can be asked; what serves it is started if it is at rest.

        Raises:
            ApiError: When the cloud can't be reached.
            UpstreamFailedError: When an engine can't be started, so that another may answer.
        """
        if self.is_at_rest(model) and self._is_configured_anew():
            await self._take_stock()
        sleeper = await self._known_sleeper(model)
        if sleeper is None:
            return
        try:
            await sleeper.ready(_PATIENCE_S[priority])
        except CannotStartError as error:
            raise self._refusal(model, error) from error

    def finished(self, model: str, keep_s: float | None = None) -> None:
        """Note that a request has ended; the last one starts the clock of idleness.

        Args:
            keep_s: For how long its client wants the model kept from now on; None doesn't say.
        """
        sleeper = self._sleepers.get(model)
        if sleeper is not None:
            sleeper.finished(keep_s)

    async def unload(self, model: str) -> None:
        """End what serves `model`, unless others use it.

        Raises:
            ApiError: When it is not to be ended, or is in use.
        """
        sleeper = await self._known_sleeper(model)
        if sleeper is None or sleeper.plan.pinned:
            why = "can't be unloaded by this gateway" if sleeper is None else "is pinned"
            raise invalid(f"{model} {why}.", param="keep_alive")
        if not sleeper.is_at_rest and not await sleeper.rest():
            raise invalid(f"{model} is in use, and isn't unloaded now.", param="keep_alive")
        self._room.changed()

    def is_at_rest(self, model: str) -> bool:
        """Whether a request to `model` would have to wait for a start."""
        sleeper = self._sleepers.get(model)
        return sleeper is not None and sleeper.is_at_rest

    def presence(self, model: str) -> Presence | None:
        """How `model` is; None where it is not for this to start."""
        sleeper = self._sleepers.get(model)
        return None if sleeper is None else sleeper.presence()

    def service_of(self, model: str) -> str:
        """The service that serves `model`."""
        held = self._inventory.held if self._inventory is not None else ()
        return next((each.service for each in held if each.name == model), model)

    def extended(self, settings: GatewaySettings) -> GatewaySettings:
        """The settings with every model on this disk, as it was when last looked at."""
        self._is_stale = self._is_stale or settings is not self._given
        self._given, self._told = settings, self._inventory
        return settings if self._inventory is None else self._inventory.extended(settings)

    def refusal(self, name: str) -> ApiError | None:
        """The answer to a request for a model that is on this disk, but can't be served."""
        why = self._inventory.why_unusable(name) if self._inventory is not None else None
        if why is None:
            return None
        return ApiError(HTTPStatus.SERVICE_UNAVAILABLE, why, code="model_damaged", param="model")

    async def look(self) -> bool:
        """Look at the models on this disk again; whether they are others now."""
        await self._take_stock()
        return self._inventory is not self._told

    async def _known_sleeper(self, model: str) -> Sleeper | None:
        """What starts and ends what serves `model`, once it is known what there is."""
        if self._is_stale:
            await self._take_stock()
        elif model not in self._sleepers and self._taking_stock.locked():
            async with self._taking_stock:  # whoever came first is still reading
                pass
        return self._sleepers.get(model)

    def _is_configured_anew(self) -> bool:
        """Whether the configuration has changed since it was read: the budget may be another."""
        return self._configured != self._config_stamp()

    def _config_stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._home.config.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    async def _take_stock(self) -> None:
        """Know the tiers and the models on this disk, and have a sleeper for each."""
        async with self._taking_stock:
            self._is_stale, self._configured = False, self._config_stamp()
            try:
                self._inventory = await asyncio.to_thread(
                    services.inventory.take, self._home, self._inventory
                )
                self._trouble = ""
            except (StackError, OSError) as error:
                if self._trouble != str(error):
                    _log.warning("the models on this disk can't be read: %s", error)
                self._trouble = str(error)
            self._plan(self._settings())

    def _plan(self, settings: GatewaySettings) -> None:
        """Have a sleeper for everything that can be started; what is known of it is kept."""
        gone = dict(self._sleepers)
        self._sleepers.clear()
        for held in self._inventory.held if self._inventory is not None else ():
            sleeper = gone.pop(held.name, None) or self._sleeper(held)
            sleeper.plan = held.plan
            self._sleepers[held.name] = sleeper
        for name, model in settings.models.items():
            if settings.is_cloud(model.upstreams[0].root):
                process = services.litellm_process.LiteLlmProcess(self._home, self._key)
                plan = SleepPlan(idle_s=_LITELLM_IDLE_S)
                self._sleepers[name] = gone.pop(name, None) or Sleeper("LiteLLM", process, plan)
        for name, sleeper in gone.items():
            if sleeper.plan.ends_when_gone and sleeper.is_there:
                # nobody can ask it any more, and it holds memory until it has ended
                sleeper.plan = replace(sleeper.plan, idle_s=0.0)
                self._sleepers[name] = sleeper
            else:
                sleeper.give_up()

    def _sleeper(self, held: "Held") -> Sleeper:
        process = services.engine_process.EngineProcess(
            self._home, held.service, partial(self._tier_of, held.name), called=held.name
        )
        record = readable_run(self._home.state_dirs, held.service)
        rests = record is not None and record.wanted is WantedState.ON_REQUEST
        return Sleeper(held.name, process, held.plan, rests=rests, door=self._room)

    def _tier_of(self, name: str, opened: "OpenStack") -> "Tier | None":
        """What `name` serves by now."""
        held = self._inventory.held if self._inventory is not None else ()
        return next((each.find_tier(opened) for each in held if each.name == name), None)

    def _rule(self) -> RoomRule | None:
        budget = self._inventory.budget_bytes if self._inventory is not None else None
        return None if budget is None else RoomRule(budget_bytes=budget)

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
            if self._is_stale or self._trouble:
                await self._take_stock()
            pause_s = _READ_AGAIN_S if self._trouble else _LATEST_LOOK_S
            for sleeper in [*self._sleepers.values()]:
                idle_s = sleeper.idle_s
                if idle_s is None:
                    continue
                await sleeper.look()
                now, rests_at = time.monotonic(), sleeper.rests_at
                if rests_at is not None and rests_at <= now and await sleeper.rest():
                    _log.info("%s was idle for %.0f s and is unloaded", sleeper.name, idle_s)
                    self._room.changed()
                if sleeper.since is not None:
                    pause_s = min(pause_s, idle_s / _LOOKS_IN_IDLE_TIME)
            await asyncio.sleep(max(pause_s, _SOONEST_LOOK_S))
