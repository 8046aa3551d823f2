"""Requests to engines that die or hang, over real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
from mlx_stack_gateway.health import Engines, Patience

SHORT = Patience(fresh_s=0.0, probe_s=0.2, silence_s=0.05, unheard_s=0.4, in_flight_s=0.8)


@dataclass
class StandIn:
    """An engine: answers the small question while `answers` is set, and streams what it is told."""

    answers: asyncio.Event = field(default_factory=asyncio.Event)
    models_status: int = 200
    questions: int = 0
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            if b"/models" in request:
                self.questions += 1
                await self.answers.wait()
                head = f"HTTP/1.1 {self.models_status} So\r\ncontent-length: 0\r\n"
                writer.write(head.encode() + b"connection: close\r\n\r\n")
            else:
                await self._stream(writer)
        except (ConnectionError, asyncio.CancelledError):
            return
        finally:
            writer.close()

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        first = await self.pieces.get()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
        while first is not None:
            writer.write(first)
            await writer.drain()
            first = await self.pieces.get()


type Story = Callable[[StandIn, Engines, httpx.AsyncClient], Awaitable[None]]


@asynccontextmanager
async def _listening(engine: StandIn) -> AsyncIterator[None]:
    server = await asyncio.start_server(engine.serve, "127.0.0.1", engine.port)
    engine.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        server.close_clients()


def _play(story: Story, patience: Patience = SHORT) -> None:
    """Tell `story` with an engine that answers, and a client whose requests are watched."""

    async def play() -> None:
        engine, engines = StandIn(), Engines(patience)
        engine.answers.set()

        class Watched(httpx.AsyncHTTPTransport):
            handle_async_request = engines.watch(httpx.AsyncHTTPTransport.handle_async_request)

        async with (
            _listening(engine),
            httpx.AsyncClient(transport=Watched(), timeout=30) as client,
            asyncio.timeout(20),
        ):
            engines.at(engine.base_url)
            await story(engine, engines, client)

    asyncio.run(play())


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110 - what is awaited has no event
        await asyncio.sleep(0.01)


def test_a_living_engine_gets_the_request() -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        assert await engines.at(engine.base_url).is_answering()

    _play(story)


def test_requests_of_the_same_moment_share_one_question() -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        at = engines.at(engine.base_url)
        assert all(await asyncio.gather(*(at.is_answering() for _ in range(32))))
        assert engine.questions == 1

    _play(story)


def test_an_engine_that_was_just_heard_is_not_asked() -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        at = engines.at(engine.base_url)
        assert await at.is_answering()
        assert await at.is_answering()
        assert engine.questions == 1

    _play(story, Patience(fresh_s=60))


@pytest.mark.parametrize("status", [404, 500, 503])
def test_an_engine_that_answers_with_an_error_gets_no_request(status: int) -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        engine.models_status = status
        assert not await engines.at(engine.base_url).is_answering()

    _play(story)


def test_a_dead_engine_gets_no_request_and_its_successor_gets_the_next() -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        dead = StandIn(engine.answers)
        async with _listening(dead):
            pass
        assert not await engines.at(dead.base_url).is_answering()
        async with _listening(dead):
            assert await engines.at(dead.base_url).is_answering()

    _play(story)


def test_a_hung_engine_is_waited_for_once_and_trusted_again_when_it_answers() -> None:
    async def story(engine: StandIn, engines: Engines, _: httpx.AsyncClient) -> None:
        at = engines.at(engine.base_url)
        loop = asyncio.get_running_loop()
        engine.answers.clear()
        assert not await at.is_answering()
        began = loop.time()
        assert not await at.is_answering()
        assert loop.time() - began < SHORT.probe_s / 2, "the second request must not wait"
        engine.answers.set()
        await _until(at.is_answering)

    _play(story)


def test_a_request_ends_when_its_engine_hangs_before_the_answer() -> None:
    async def story(engine: StandIn, _: Engines, client: httpx.AsyncClient) -> None:
        engine.answers.clear()
        with pytest.raises(httpx.ReadTimeout, match="hangs"):
            await client.get(f"{engine.base_url}/chat")

    _play(story)


def test_a_request_to_an_engine_that_hung_before_it_is_given_up_long_before_others() -> None:
    patience = Patience(fresh_s=60, probe_s=0.1, silence_s=0.05, unheard_s=0.3, in_flight_s=3600)

    async def story(engine: StandIn, engines: Engines, client: httpx.AsyncClient) -> None:
        at = engines.at(engine.base_url)
        assert await at.is_answering()
        engine.answers.clear()
        assert await at.is_answering(), "it was heard just now"
        with pytest.raises(httpx.ReadTimeout, match="hangs"):
            await client.get(f"{engine.base_url}/chat")

    _play(story, patience)


def test_a_stream_ends_when_its_engine_hangs_in_the_middle() -> None:
    async def story(engine: StandIn, _: Engines, client: httpx.AsyncClient) -> None:
        engine.pieces.put_nowait(b"some")
        async with client.stream("GET", f"{engine.base_url}/chat") as answer:
            pieces = answer.aiter_bytes()
            assert await anext(pieces) == b"some"
            engine.answers.clear()
            with pytest.raises(httpx.ReadTimeout, match="hangs"):
                await anext(pieces)

    _play(story)


async def _answer_after(
    reads_s: float, engine: StandIn, client: httpx.AsyncClient, asked_every_s: float
) -> None:
    """The engine reads for so long, by the questions it is asked, and its answer arrives."""

    async def asked_long_enough() -> bool:
        return engine.questions * asked_every_s > reads_s

    answer = asyncio.create_task(client.get(f"{engine.base_url}/chat"))
    await _until(asked_long_enough)
    engine.pieces.put_nowait(b"read it all")
    engine.pieces.put_nowait(None)
    assert (await answer).text == "read it all"


def test_a_long_prefill_is_waited_for_while_the_engine_answers_the_small_question() -> None:
    patience = Patience(fresh_s=0, probe_s=1, silence_s=0.02, unheard_s=0.1, in_flight_s=0.1)

    async def story(engine: StandIn, _: Engines, client: httpx.AsyncClient) -> None:
        await _answer_after(3 * patience.in_flight_s, engine, client, patience.silence_s)

    _play(story, patience)


def test_an_engine_that_reads_in_silence_is_given_the_time_that_it_needs() -> None:
    patience = Patience(fresh_s=0, probe_s=0.02, silence_s=0.02, unheard_s=0.1, in_flight_s=0.1)

    async def story(engine: StandIn, engines: Engines, client: httpx.AsyncClient) -> None:
        engines.at(engine.base_url, silence_s=30)
        engine.answers.clear()

        await _answer_after(3 * patience.in_flight_s, engine, client, patience.probe_s)

    _play(story, patience)


def test_an_engine_that_comes_back_in_time_loses_no_request() -> None:
    async def story(engine: StandIn, engines: Engines, client: httpx.AsyncClient) -> None:
        async def left_out() -> bool:
            return not await engines.at(engine.base_url).is_answering()

        engine.answers.clear()
        answer = asyncio.create_task(client.get(f"{engine.base_url}/chat"))
        await _until(left_out)
        engine.answers.set()
        engine.pieces.put_nowait(b"late")
        engine.pieces.put_nowait(None)
        assert (await answer).text == "late"

    _play(story, Patience(fresh_s=0, probe_s=0.1, silence_s=0.05, in_flight_s=30))


def test_requests_to_anywhere_else_are_not_watched() -> None:
    async def story(engine: StandIn, engines: Engines, client: httpx.AsyncClient) -> None:
        cloud = StandIn()
        async with _listening(cloud):
            answer = asyncio.create_task(client.get(f"{cloud.base_url}/chat"))
            engine.answers.clear()
            await _until(lambda: _is_left_out(engines, engine))
            cloud.pieces.put_nowait(b"from afar")
            cloud.pieces.put_nowait(None)
            assert (await answer).text == "from afar"
        assert cloud.questions == 0

    _play(story)


async def _is_left_out(engines: Engines, engine: StandIn) -> bool:
    return not await engines.at(engine.base_url).is_answering()


def test_a_client_that_goes_away_ends_the_watch() -> None:
    async def story(engine: StandIn, _: Engines, client: httpx.AsyncClient) -> None:
        answer = asyncio.create_task(client.get(f"{engine.base_url}/chat"))
        await _until(lambda: _asked(engine))
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await _until(lambda: _ended(others, "_watch_silence"))

    _play(story)


async def _asked(engine: StandIn) -> bool:
    return engine.questions > 0


async def _ended(tasks: set[asyncio.Task[object]], name: str) -> bool:
    return all(task.done() for task in tasks if name in repr(task.get_coro()))
