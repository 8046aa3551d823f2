"""What the gateway mounts: the page, imported with the first request for it.

A gateway that nobody looks at neither waits for the catalog at its start nor holds it in memory.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlx_gateway.app import Gateway
from mlx_gateway.keys import KeyRing
from mlx_stack.home import Home

if TYPE_CHECKING:
    from mlx_stack.page.app import Page


class PageMount:
    """Answers everything below `/ui`.

    Args:
        key: The admin's.
        keys: Everyone's.
        gateway: In which it is mounted; asked when it is needed.
    """

    def __init__(self, home: Home, key: str, keys: KeyRing, gateway: Callable[[], Gateway]) -> None:
        self._given = (home, key, keys, gateway)
        self._loading = asyncio.Lock()
        self._page: Page | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if self._page is None:
            async with self._loading:
                self._page = self._page or await asyncio.to_thread(self._load)
        await self._page(scope, receive, send)

    def end(self) -> None:
        """End every stream of events."""
        if self._page is not None:
            self._page.end()

    def _load(self) -> "Page":
        from mlx_stack.page.app import Page  # noqa: PLC0415 - what this module is for

        return Page(*self._given)
