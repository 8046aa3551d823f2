"""What is there, noted in the ledger again and again: an absence shows as a gap."""

import asyncio
import time
from collections.abc import Callable

from mlx_gateway.availability import READY, STOP
from mlx_gateway.engines import Engines
from mlx_gateway.ledger import BEAT_S, ENDPOINT, WEDGE, Ledger, LedgerEvent
from mlx_gateway.settings import GatewaySettings


class Heartbeat:
    """Notes the gateway, and every model that has an engine on this machine which delivers.

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
        self._ledger.note(LedgerEvent(time.time(), READY, ENDPOINT))
        self._task = asyncio.create_task(self._beat())

    async def stop(self) -> None:
        """End, and write down what is left."""
        if self._task is not None:
            self._task.cancel()
        self._ledger.note(LedgerEvent(time.time(), STOP, ENDPOINT))
        await asyncio.to_thread(self._ledger.close)

    def note_hang(self, root: str, *, hangs: bool) -> None:
        """Note that the upstream at this root stopped answering, or answers again."""
        for name, model in self._settings().models.items():
            for each in model.upstreams:
                if each.root == root:
                    what, shown = WEDGE if hangs else READY, each.shown(name)
                    self._ledger.note(LedgerEvent(time.time(), what, shown))

    async def _beat(self) -> None:
        before: set[str] | None = None
        while True:
            up = await self._engines.ready_models(self._settings())
            self._ledger.beat((ENDPOINT, *up), () if before is None else set(up) - before)
            before = set(up)
            await asyncio.sleep(BEAT_S)
