"""Whether the engines behind the gateway live: asked before a request, and watched during one.

No timeout tells a busy engine from a hung one, since the prefill of a long prompt takes minutes.
But a busy engine answers `GET /v1/models` meanwhile, and a hung one doesn't. Those that read their
prompts on the thread that answers are the exception, and are given more time.
"""

import asyncio
import enum
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx

_log = logging.getLogger("mlx_stack_gateway")

type SendRequest[T] = Callable[[T, httpx.Request], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an engine may be silent.

    Attributes:
        fresh_s: A new request trusts an engine that was heard within this time.
        probe_s: An engine that leaves the small question unanswered for so long gets no new
            request, until it answers again.
        silence_s: How long a request in flight hears nothing before its engine is asked, and how
            often from then on.
        unheard_s: A request is given up when its engine has said nothing at all for so long since
            the request was sent: it hung before it could begin. Longer than `probe_s`, since the
            engine cuts a long prompt into tokens on the thread that answers.
        in_flight_s: A request is given up when its engine has said nothing at all for so long.
            Longer than `unheard_s`, since much work is lost with it.
    """

    fresh_s: float = 0.25
    probe_s: float = 3.0
    silence_s: float = 1.0
    unheard_s: float = 10.0
    in_flight_s: float = 60.0


class _Answer(enum.Enum):
    GOOD = "answers"
    BAD = "refuses or answers with an error"
    NONE = "does not answer"


@dataclass(frozen=True, slots=True, eq=False)
class _Wait:
    """A wait for something that the engine is to send; ends it early, where it is in vain.

    Attributes:
        limit: The end of the wait, where there is one.
        sent_at: When the request was sent.
        began_at: When this wait began.
    """

    limit: asyncio.Timeout
    sent_at: float
    began_at: float

    def is_in_vain(self, heard_at: float, patience: Patience) -> bool:
        """Whether an engine that was last heard at `heard_at` hangs."""
        now = time.monotonic()
        if heard_at < self.sent_at:
            return now - self.sent_at > patience.unheard_s
        return now - max(heard_at, self.began_at) > patience.in_flight_s


class Engine:
    """What is known of the life of one engine.

    Args:
        base_url: Of its API, `http://127.0.0.1:8000/v1`.
        client: Asks the small question.
        patience: How long it may be silent.

    Attributes:
        patience: The same.
    """

    def __init__(self, base_url: str, client: httpx.AsyncClient, patience: Patience) -> None:
        self._base_url = base_url
        self._client = client
        self.patience = patience
        self._heard_at = float("-inf")
        self._hangs = False
        self._question: asyncio.Task[_Answer] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._waiting: set[_Wait] = set()

    async def is_answering(self) -> bool:
        """Whether a new request may go there; requests at the same time share one question."""
        if self._hangs:
            return False  # the watch asks on, so that nobody has to wait here
        if time.monotonic() - self._heard_at < self.patience.fresh_s:
            return True
        return await self._ask() is _Answer.GOOD

    @asynccontextmanager
    async def in_flight(self, sent_at: float) -> AsyncGenerator[None]:
        """Around every wait for something that the engine is to send.

        Args:
            sent_at: When the request was sent, by the monotonic clock.

        Raises:
            httpx.ReadTimeout: The engine hangs.
        """
        limit = asyncio.timeout(None)
        wait = _Wait(limit, sent_at, time.monotonic())
        try:
            async with limit:
                self._waiting.add(wait)
                self._begin_watch()
                try:
                    yield
                finally:
                    self._waiting.discard(wait)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise httpx.ReadTimeout(f"{self._base_url} hangs") from error
        self._heard()

    def _heard(self) -> None:
        self._heard_at = time.monotonic()
        self._hangs = False

    def _begin_watch(self) -> None:
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_silence())

    async def _watch_silence(self) -> None:
        """Ask the engine whenever it is silent, while somebody waits for it or it hangs."""
        while self._waiting or self._hangs:
            await asyncio.sleep(self.patience.silence_s)
            if time.monotonic() - self._heard_at < self.patience.silence_s:
                continue
            if await self._ask() is _Answer.NONE:
                self._end_what_is_in_vain()

    def _end_what_is_in_vain(self) -> None:
        now = asyncio.get_running_loop().time()
        for wait in self._waiting:
            if wait.is_in_vain(self._heard_at, self.patience) and not wait.limit.expired():
                wait.limit.reschedule(now)

    async def _ask(self) -> _Answer:
        if self._question is None or self._question.done():
            self._question = asyncio.create_task(self._get_models())
        return await asyncio.shield(self._question)

    async def _get_models(self) -> _Answer:
        try:
            response = await self._client.get(
                f"{self._base_url}/models", timeout=self.patience.probe_s
            )
        except httpx.TimeoutException:
            _log.warning("%s does not answer: left out until it does", self._base_url)
            self._hangs = True
            self._begin_watch()
            return _Answer.NONE
        except httpx.HTTPError as error:
            _log.warning("%s is left out: %r", self._base_url, error)
            self._hangs = False
            return _Answer.BAD
        self._heard()
        return _Answer.GOOD if response.is_success else _Answer.BAD


class Engines:
    """The engines that requests go to, by the base URL of their API."""

    def __init__(self, patience: Patience | None = None) -> None:
        self._patience = patience or Patience()
        self._client = httpx.AsyncClient(trust_env=False)
        self._by_address: dict[tuple[str, int | None], Engine] = {}

    def at(self, base_url: str, silence_s: float | None = None) -> Engine:
        """The engine whose API is at `base_url`.

        Args:
            base_url: Of its API.
            silence_s: How long it may say nothing while it works on a request, where it can't
                answer meanwhile.
        """
        url = httpx.URL(base_url)
        address = (url.host, url.port)
        if address not in self._by_address:
            self._by_address[address] = Engine(base_url, self._client, self._patience)
        engine = self._by_address[address]
        engine.patience = (
            replace(self._patience, unheard_s=silence_s, in_flight_s=silence_s)
            if silence_s
            else self._patience
        )
        return engine

    def watch[T](self, send: SendRequest[T]) -> SendRequest[T]:
        """A transport's `handle_async_request`, so that requests to a hung engine end.

        Requests to engines that `at` was never asked for, and to anywhere else, go on as they are.
        """

        async def watched(transport: T, request: httpx.Request) -> httpx.Response:
            engine = self._by_address.get((request.url.host, request.url.port))
            if engine is None:
                return await send(transport, request)
            sent_at = time.monotonic()
            async with engine.in_flight(sent_at):
                response = await send(transport, request)
            assert isinstance(response.stream, httpx.AsyncByteStream)
            response.stream = _WatchedStream(response.stream, engine, sent_at)
            return response

        return watched


class _WatchedStream(httpx.AsyncByteStream):
    """An answer as it comes, from an engine that may hang in the middle of it."""

    def __init__(self, stream: httpx.AsyncByteStream, engine: Engine, sent_at: float) -> None:
        self._stream = stream
        self._engine = engine
        self._sent_at = sent_at

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = aiter(self._stream)
        while True:
            async with self._engine.in_flight(self._sent_at):
                piece = await anext(pieces, None)
            if piece is None:
                return
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
