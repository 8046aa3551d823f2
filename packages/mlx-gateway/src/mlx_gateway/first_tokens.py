"""The chats that wait for the first token of their answer, and the work that waits for them.

Engines of one machine share its GPU: texts that are embedded by the hundred would slow down every
prompt that is read meanwhile.

(decision 0118)
"""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress

from mlx_gateway.outbox import Outbox

_MOST_S = 5.0
_TIMES_ITS_LENGTH = 9
"""Work that waits so many times as long as it takes has a tenth of the machine at the most."""


class FirstTokens:
    """Those that are awaited now."""

    def __init__(self) -> None:
        self._awaited: set[Outbox] = set()
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def awaited_by(self, outbox: Outbox) -> Generator[None]:
        """Around an answer that an engine of this machine gives."""
        self._awaited.add(outbox)
        self._none.clear()
        outbox.on_first = lambda: self._came(outbox)
        try:
            yield
        finally:
            self._came(outbox)

    async def go_first(self, work_s: float) -> None:
        """Return when none is awaited, or after a while.

        Args:
            work_s: How long the work takes that can wait, in seconds.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(min(_TIMES_ITS_LENGTH * work_s, _MOST_S)):
                await self._none.wait()

    def _came(self, outbox: Outbox) -> None:
        self._awaited.discard(outbox)
        if not self._awaited:
            self._none.set()
