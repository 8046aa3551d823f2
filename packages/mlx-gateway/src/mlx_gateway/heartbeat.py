"""What is there, noted in the ledger again and again: an absence shows as a gap."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

from mlx_gateway.engines import Engines
from mlx_gateway.ledger import BEAT_S, ENDPOINT, Event, Ledger
from mlx_gateway.settings import GatewaySettings

_CONNECTED_WITHIN_S = 1.0


class Heartbeat:
    """Notes the gateway, and every model that has an engine on this machine which listens.

    Args:
        ledger: Where it is noted.
        engines: What is known of the upstreams.
        settings: The settings in force, whenever it is called.
    """

    def __init__(
        self, ledger: Ledger, engines: Engines, settings: Callable[[], GatewaySettings]
    ) -> None:
        self._ledger = ledger
        self._engines = engines
        self._settings = settings
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; the gateway is ready."""
        self._ledger.note(Event(time.time(), "ready", ENDPOINT))
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """End, and write down what is left."""
        if self._task is not None:
            self._task.cancel()
        self._ledger.note(Event(time.time(), "stop", ENDPOINT))
        await asyncio.to_thread(self._ledger.close)

    def note_wedge(self, root: str) -> None:
        """Note that the upstream at this root stopped answering."""
        for name, model in self._settings().models.items():
            if root in [each.root for each in model.upstreams]:
                self._ledger.note(Event(time.time(), "wedge", name))

    async def _beat(self) -> None:
        while True:
            names = list(self._settings().models)
            there = await asyncio.gather(*map(self._is_there, names))
            up = [name for name, is_there in zip(names, there, strict=True) if is_there]
            self._ledger.beat((ENDPOINT, *up))
            await asyncio.sleep(BEAT_S)

    async def _is_there(self, name: str) -> bool:
        """Whether one of a model's upstreams on this side of the cloud listens, and lives."""
        settings = self._settings()
        model = settings.models.get(name)
        for root in [] if model is None else [each.root for each in model.upstreams]:
            if self._engines.is_up(root) and not settings.is_cloud(root):
                address = self._engines.at(root).address
                with suppress(OSError, TimeoutError):
                    async with asyncio.timeout(_CONNECTED_WITHIN_S):
                        _, writer = await asyncio.open_connection(address.host, address.port)
                    writer.close()
                    return True
        return False
