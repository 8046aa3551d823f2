"""The upstreams as this process knows them: whether each lives, and the connections to it."""

import asyncio
import ssl
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.liveness import EngineLife, EngineTimeouts, Wait
from mlx_gateway.settings import GatewaySettings
from mlx_gateway.upstream_http import Address, ConnectionPool, MakeChallenge, Response

type AskFor = Callable[[str], MakeChallenge | None]
"""What a new connection to an upstream proves itself with, and has it proven; by its root."""
type HeadersFor = Callable[[str], Mapping[str, str]]
"""What every request to an upstream must carry, by its root: a secret, for example."""
type TlsFor = Callable[[str], ssl.SSLContext | None]
"""By what an upstream is known whose URL begins with https; None for the usual authorities."""
type OnHang = Callable[[str, bool], None]

_LONGEST_LIST_BYTES = 2**20
_CONNECTED_WITHIN_S = 1.0


class Engine:
    """One upstream."""

    def __init__(
        self,
        root: str,
        pool: ConnectionPool,
        headers_for: HeadersFor,
        ask_for: AskFor,
        tls_for: TlsFor,
        timeouts: EngineTimeouts,
        on_hang: OnHang,
    ) -> None:
        self.life = EngineLife()
        self.address: Address = Address.of(root)
        self._root = root
        self._headers_for = headers_for
        self._ask_for = ask_for
        self._tls_for = tls_for
        self._pool = pool
        self._timeouts = timeouts
        self._on_hang = on_hang
        self._silent: set[Callable[[], None]] = set()
        self._asking: asyncio.Task[None] | None = None

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> AbstractAsyncContextManager[Response]:
        """One request to it, as `ConnectionPool.request`, with all that it must carry."""
        return self._pool.request(
            *(self.address, method, path, {**(headers or {}), **self._headers_for(self._root)}),
            body,
            lambda: self._ask_for(self._root),
            lambda: self._tls_for(self._root),
        )

    async def listens(self) -> bool:
        """Whether something takes a connection there now."""
        try:
            async with asyncio.timeout(_CONNECTED_WITHIN_S):
                _, writer = await asyncio.open_connection(self.address.host, self.address.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        return True

    def heard(self) -> float:
        """Note that it said something just now; the time on the monotonic clock."""
        now = time.monotonic()
        was_up, self.life = self.life.is_up, EngineLife(now)
        if not was_up:
            self._on_hang(self._root, False)
        return now

    @contextmanager
    def watched(self, limit: asyncio.Timeout, waiting: Wait) -> Generator[None]:
        """Watch over a request while it waits; `limit` ends the wait when the engine hangs."""
        loop = asyncio.get_running_loop()
        soon_s, every_s = self._timeouts.soon_s, self._timeouts.silence_s

        def look() -> None:
            nonlocal timer
            timer.cancel()
            now = time.monotonic()
            if now - waiting.since < soon_s * 0.99:
                self._silent.discard(look)
            else:
                self._silent.add(look)
                self._keep_asking()
                if waiting.is_in_vain(self.life, now, self._timeouts):
                    limit.reschedule(loop.time())
                    return
            timer = loop.call_later(every_s, look)

        timer = loop.call_later(soon_s, look)
        try:
            yield
        finally:
            timer.cancel()
            self._silent.discard(look)

    def lose(self) -> None:
        """Take it for gone until it answers; it is asked again and again from now on.

        For what nothing on this machine watches over, and is somewhere else.
        """
        was_up, self.life = self.life.is_up, replace(self.life, is_gone=True)
        if was_up:
            self._on_hang(self._root, True)
        self._keep_asking()

    def close(self) -> None:
        """Ask nothing more."""
        if self._asking is not None:
            self._asking.cancel()

    def _keep_asking(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_again_and_again())

    async def _ask_again_and_again(self) -> None:
        """Ask while requests wait in silence, and until an engine that hangs answers again."""
        while self._silent or not self.life.is_up:
            began = time.monotonic()
            if self.life.needs_question(began, self._timeouts):
                await self._ask()
            every_s = self.life.asked_every_s(self._timeouts)
            await asyncio.sleep(max(every_s - (time.monotonic() - began), 0))

    async def _ask(self) -> None:
        asked_at = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeouts.question_s),
                self.request("GET", "/v1/models") as answer,
            ):
                await answer.read(_LONGEST_LIST_BYTES)
                self.heard()
        except TimeoutError:
            was_hanging = self.life.hangs
            self.life = self.life.unanswered(asked_at)
            if self.life.hangs:
                if not was_hanging:
                    self._on_hang(self._root, True)
                for look in tuple(self._silent):
                    look()
        except UpstreamFailedError:
            # nobody listens, or it was cut off: the request itself finds out
            self.life: EngineLife = replace(self.life, hangs=False)


class Engines:
    """Every upstream, by its root, with one pool of connections.

    Args:
        on_hang: Called with the root of an engine, and whether it stops answering or begins again.
        is_wedged: Whether someone who knows better says that the engine at a root is of no use.
    """

    def __init__(
        self,
        headers_for: HeadersFor,
        ask_for: AskFor,
        tls_for: TlsFor,
        timeouts: EngineTimeouts,
        on_hang: OnHang,
        is_wedged: Callable[[str], bool],
    ) -> None:
        self._headers_for = headers_for
        self._ask_for = ask_for
        self._tls_for = tls_for
        self._timeouts = timeouts
        self._on_hang = on_hang
        self._is_wedged = is_wedged
        self._by_root: dict[str, Engine] = {}
        self.pool: ConnectionPool = ConnectionPool()

    def at(self, root: str) -> Engine:
        """The engine at this root."""
        engine = self._by_root.get(root)
        if engine is None:
            given = (self._headers_for, self._ask_for, self._tls_for)
            engine = Engine(root, self.pool, *given, self._timeouts, self._on_hang)
            self._by_root[root] = engine
        return engine

    def is_up(self, root: str) -> bool:
        """Whether the engine at this root is worth a request."""
        return self.at(root).life.is_up and not self._is_wedged(root)

    async def ready_models(self, settings: GatewaySettings) -> list[str]:
        """The models of which an upstream on this side of the cloud listens, and lives.

        One on a node is called as its upstream is shown: `standard@studio`.
        """
        roots: dict[str, list[str]] = {}
        for name, model in settings.models.items():
            for each in model.upstreams:
                if not settings.is_cloud(each.root):
                    roots.setdefault(each.shown(name), []).append(each.root)
        ready = await asyncio.gather(*(self._is_ready(each) for each in roots.values()))
        return [name for name, is_ready in zip(roots, ready, strict=True) if is_ready]

    async def _is_ready(self, roots: list[str]) -> bool:
        for root in roots:
            if self.is_up(root) and await self.at(root).listens():
                return True
        return False

    def forget_others(self, roots: Collection[str]) -> None:
        """Ask nothing more of engines that are not at these roots."""
        for root in self._by_root.keys() - set(roots):
            self._by_root.pop(root).close()

    def close(self) -> None:
        """Close every connection."""
        self.forget_others(())
        self.pool.close()
