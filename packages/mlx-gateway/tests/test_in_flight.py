"""What a mounted application sees of the gateway, and what it may do, over real sockets."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gateway.in_flight import RequestPhase
from mlx_gateway.keys import ClientKey
from mlx_gateway.ledger import Ledger, RequestRow
from mlx_gateway.requests import RequestFilter, read_request, read_requests

if TYPE_CHECKING:
    from mlx_gateway.app import Gateway

type MakeBench = Any

ONE = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}], max_concurrent: 1}
"""
HELLO = {"model": "standard", "stream": True, "messages": [{"role": "user", "content": "hello"}]}


class Application:
    """Echoes where it was asked, and asks a model for a client that it lets in itself."""

    def __init__(self) -> None:
        self.gateway: Gateway | None = None
        self.has_ended = False

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["path"] == "/there/chat":
            assert self.gateway is not None
            client = ClientKey(name="a-client", tiers=("other",))
            named = {**scope, "path": "/v1/chat/completions"}
            await self.gateway.serve_as(client, named, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    def end(self) -> None:
        self.has_ended = True


async def never(_exchange: Any) -> None:
    await asyncio.Event().wait()


async def until[T](look: Callable[[], T]) -> T:
    """What `look` finds once it finds something; the test's own time limit ends it."""
    while not (found := look()):  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return found


async def test_an_application_answers_below_its_path_without_a_key_and_only_there(
    bench: MakeBench,
) -> None:
    there = Application()
    async with bench(ONE, never, mounts={"/there": there}) as it:
        for path in ("/there", "/there/", "/there/a/b"):
            assert (await it.client.ask(path, key=None)).body == path.encode()
        for path in ("/therefore", "/v1/models", "/a/there"):
            assert (await it.client.ask(path, key=None)).status == 401
        rebound = await it.client.ask("/there/", key=None, headers={"host": "rebound.example"})
        assert rebound.status == 403

        it.gateway.end_soon()
        assert there.has_ended


async def test_a_client_that_an_application_lets_in_may_use_what_its_key_allows(
    bench: MakeBench,
) -> None:
    there = Application()
    async with bench(ONE, never, mounts={"/there": there}) as it:
        there.gateway = it.gateway

        answer = await it.client.ask("/there/chat", HELLO, key=None)

        assert answer.status == 403
        assert "a-client" in answer.document["error"]["message"]


async def test_requests_on_their_way_are_seen_with_their_phase(bench: MakeBench) -> None:
    says, ends = asyncio.Event(), asyncio.Event()

    async def speaks(exchange: Any) -> None:
        await exchange.begin_events()
        await says.wait()
        for word in ("one", "two"):
            chunk = {"choices": [{"index": 0, "delta": {"content": word}}]}
            await exchange.send(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await ends.wait()
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    def phases() -> list[RequestPhase]:
        return [each.phase for each in it.gateway.requests()]

    async with bench(ONE, speaks) as it:
        asked = [asyncio.create_task(it.client.ask("/v1/chat/completions", HELLO))]
        await it.engines[0].asked.wait()
        asked.append(asyncio.create_task(it.client.ask("/v1/chat/completions", HELLO)))
        await until(lambda: phases() == [RequestPhase.READING, RequestPhase.QUEUED])
        first, second = it.gateway.requests()
        assert first.id != second.id
        assert (first.key, first.tier, first.ttft_s, first.events) == ("admin", "standard", None, 0)
        assert it.gateway.lines() == {"standard": (1, 1)}

        says.set()
        await until(lambda: it.gateway.requests()[0].events == 2)
        assert phases() == [RequestPhase.WRITING, RequestPhase.QUEUED]
        first = it.gateway.requests()[0]
        assert first.ttft_s is not None
        assert first.writing_s is not None

        ends.set()
        await asyncio.gather(*asked)
        assert it.gateway.requests() == ()
        assert it.gateway.finished == 2


async def test_how_far_a_prompt_was_read_is_asked_of_its_engine(bench: MakeBench) -> None:
    told = {"status": "running", "phase": "prefill", "prompt_tokens": 12_000, "progress": 0.25}
    others = [told | {"phase": "generation"}, told | {"status": "waiting"}]
    two = ONE.replace(", max_concurrent: 1", "")

    async with bench(two, never) as it:
        assert await it.gateway.readings() == {}
        asked = [asyncio.create_task(it.client.ask("/v1/chat/completions", HELLO))]
        await until(lambda: [r.phase for r in it.gateway.requests()] == [RequestPhase.READING])
        (first,) = it.gateway.requests()
        assert await it.gateway.readings() == {}, "this engine says nothing of it"

        it.engines[0].told["/v1/status"] = {"requests": [*others, told]}
        assert await it.gateway.readings() == {first.id: (12_000, 0.25)}
        it.engines[0].told["/v1/status"] = {
            "requests": [told | {"progress": 0, "prompt_tokens": 0}]
        }
        assert await it.gateway.readings() == {first.id: (None, None)}, "0 is what it doesn't know"
        for nonsense in ({"requests": [{"progress": 7}]}, {"requests": 1}, [], "text"):
            it.engines[0].told["/v1/status"] = nonsense
            assert await it.gateway.readings() == {}

        asked.append(asyncio.create_task(it.client.ask("/v1/chat/completions", HELLO)))
        await until(lambda: len(it.engines[0].seen) == 2)
        it.engines[0].told["/v1/status"] = {"requests": [told]}
        assert await it.gateway.readings() == {}, "nobody says whose it is"
        later = told | {"progress": 0.5}
        it.engines[0].told["/v1/status"] = {"requests": [later, told]}
        assert list((await it.gateway.readings()).values()) == [(12_000, 0.5), (12_000, 0.25)]
        for each in asked:
            each.cancel()


def row(number: int, **fields: Any) -> RequestRow:
    usual = {"key": "laptop", "program": "curl", "model": "qwen3-8b", "tier": "standard"}
    given = {"protocol": "chat/completions", "status": 200, "seconds": 1.5, **usual, **fields}
    return RequestRow(at=1_790_000_000.0 + number, **given)


def test_requests_are_found_by_what_they_were_newest_first(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    ledger.note(row(1, queue_s=0.25, ttft_s=0.5, generation_tps=61.5, prompt_tokens=7))
    ledger.note(row(2, key="admin", status=503, tier="fast", fallback_from="standard"))
    ledger.note(row(3, status=499, program=""))
    ledger.close()

    def found(**wanted: Any) -> list[int]:
        return [each.id for each in read_requests(path, RequestFilter(**wanted))]

    assert found() == [3, 2, 1]
    assert found(failed=True) == [2]
    assert found(failed=False) == [3, 1]
    assert found(key="laptop", tier="standard") == [3, 1]
    assert found(model="qwen3-8b", program="curl", before=2) == [1]
    assert found(since=1_790_000_002.0) == [3, 2]
    assert found(key="' OR 1=1 --") == []
    assert [each.id for each in read_requests(path, limit=1)] == [3]
    one = read_request(path, 1)
    assert one is not None
    assert (one.queue_s, one.ttft_s, one.generation_tps, one.prompt_tokens) == (0.25, 0.5, 61.5, 7)
    assert (one.fallback_from, one.cached_tokens, one.was_alone) == (None, None, False)
    assert read_request(path, 9) is None
    assert read_requests(tmp_path / "none.db") == ()
    assert not (tmp_path / "none.db").exists()


def test_reading_in_the_writers_own_process_takes_nothing_from_it(tmp_path: Path) -> None:
    """POSIX takes a process's locks away when it closes any descriptor of the file."""
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    for number in range(4):
        ledger.note(row(number))
        while len(read_requests(path)) <= number:
            assert ledger.problem == ""
    ledger.close()

    assert len(read_requests(path)) == 4
    assert (ledger.problem, ledger.dropped) == ("", 0)
