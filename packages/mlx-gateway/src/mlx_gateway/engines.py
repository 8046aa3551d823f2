"""The upstreams as this process knows them: whether each lives, and the connections to it."""

import asyncio
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.liveness import EngineLife, EngineTimeouts, Waiting
from mlx_gateway.upstream_http import Address, ConnectionPool

type HeadersFor = Callable[[str], Mapping[str, str]]
"""What every request to an upstream must carry, by its root: a secret, for example."""

_LONGEST_LIST_BYTES = 2**20


class Engine:
    """One upstream.

    Args:
        root: Its URL.
        pool: Connections.
        headers: What every request to it carries.
        timeouts: How long it may be silent.
        on_hang: Called when it stops answering.

    Attributes:
        address: Where it listens.
        headers: What every request to it carries.
        life: What was heard of it.
        root: Its URL.
    """

    def __init__(
        self,
        root: str,
        pool: ConnectionPool,
        headers: Mapping[str, str],
        timeouts: EngineTimeouts,
        on_hang: Callable[[str], None],
    ) -> None:
        self.root = root
        self.headers = headers
        self.life = EngineLife()
        self.address = Address.of(root)
        self._pool = pool
        self._timeouts = timeouts
        self._on_hang = on_hang
        self._silent = 0
        self._asking: asyncio.Task[None] | None = None
        self._question: asyncio.Task[None] | None = None

    def heard(self) -> float:
        """Note that it said something just now; the time on the monotonic clock."""
        now = time.monotonic()
        self.life = EngineLife(now)
        return now

    async def accompany(self) -> None:
        """Ask whether it lives, if nothing was heard lately, without waiting for the answer.

        The question is written before the request that it accompanies, so that an engine that is
        busy with the request's prompt has answered already.
        """
        if self.life.needs_question(time.monotonic(), self._timeouts) and self._question is None:
            self._question = asyncio.create_task(self._ask())
            await asyncio.sleep(0)

    @contextmanager
    def watched(self, limit: asyncio.Timeout, waiting: "InFlight") -> Generator[None]:
        """Watch over a request while it waits; `limit` ends the wait when the engine hangs."""
        loop = asyncio.get_running_loop()
        every_s = self._timeouts.silence_s
        was_silent = False

        def look() -> None:
            nonlocal timer, was_silent
            now = time.monotonic()
            is_silent = now - waiting.since >= every_s
            if is_silent is not was_silent:
                self._silent += 1 if is_silent else -1
                was_silent = is_silent
            if is_silent:
                self._keep_asking()
                if waiting.state().is_in_vain(self.life, now, self._timeouts):
                    limit.reschedule(loop.time())
                    return
            timer = loop.call_later(every_s, look)

        timer = loop.call_later(every_s, look)
        try:
            yield
        finally:
            timer.cancel()
            if was_silent:
                self._silent -= 1

    def close(self) -> None:
        """Ask nothing more."""
        for task in (self._asking, self._question):
            if task is not None:
                task.cancel()

    def _keep_asking(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_again_and_again())

    async def _ask_again_and_again(self) -> None:
        """Ask while requests wait in silence, and until an engine that hangs answers again."""
        while self._silent or self.life.hangs:
            began = time.monotonic()
            await self._ask()
            await asyncio.sleep(max(self._timeouts.silence_s - (time.monotonic() - began), 0))

    async def _ask(self) -> None:
        asked_at = time.monotonic()
        try:
            async with (
                asyncio.timeout(self._timeouts.question_s),
                self._pool.request(self.address, "GET", "/v1/models", self.headers) as answer,
            ):
                await answer.read(_LONGEST_LIST_BYTES)
                self.heard()
        except TimeoutError:
            was_hanging = self.life.hangs
            self.life = self.life.unanswered(asked_at)
            if self.life.hangs and not was_hanging:
                self._on_hang(self.root)
                self._keep_asking()
        except UpstreamFailedError:
            # nobody listens, or it broke off: the request itself finds out
            self.life = EngineLife(self.life.heard_at)
        finally:
            self._question = None


class InFlight:
    """A request on its way.

    Attributes:
        since: When it last got something.
    """

    __slots__ = ("_prompt_bytes", "_sent_at", "_silence_s", "since")

    def __init__(self, prompt_bytes: int, silence_s: float | None) -> None:
        self.since = self._sent_at = time.monotonic()
        self._prompt_bytes = prompt_bytes
        self._silence_s = silence_s

    def state(self) -> Waiting:
        """What the decision needs to know of it."""
        return Waiting(self._sent_at, self.since, self._prompt_bytes, self._silence_s)


class Engines:
    """Every upstream, by its root, with one pool of connections.

    Args:
        headers_for: What requests to an upstream carry.
        timeouts: How long an engine may be silent.
        on_hang: Called with the root of an engine that stops answering.

    Attributes:
        pool: Connections to them.
    """

    def __init__(
        self,
        headers_for: HeadersFor,
        timeouts: EngineTimeouts,
        on_hang: Callable[[str], None],
    ) -> None:
        self._headers_for = headers_for
        self._timeouts = timeouts
        self._on_hang = on_hang
        self._by_root: dict[str, Engine] = {}
        self.pool = ConnectionPool()

    def at(self, root: str) -> Engine:
        """The engine at this root."""
        engine = self._by_root.get(root)
        if engine is None:
            headers = self._headers_for(root)
            engine = Engine(root, self.pool, headers, self._timeouts, self._on_hang)
            self._by_root[root] = engine
        return engine

    def close(self) -> None:
        """Close every connection."""
        for engine in self._by_root.values():
            engine.close()
        self.pool.close()
