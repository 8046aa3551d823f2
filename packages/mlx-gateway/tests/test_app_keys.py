"""What a client's key allows, and what is noted of its requests, over real sockets."""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.keys import ClientKey, ClientKeys, KeyRing, Priority, new_key
from mlx_gateway.ledger import Ledger
from mlx_gateway.usage import By, clean_requests, key_uses, read_events, read_usage

type Exchange = Any
type MakeBench = Any

ADMIN_KEY = "a-key-of-the-test"
LAPTOP = new_key()
TWO = """
schema_version: 1
models:
  standard:
    upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}]
    fallbacks: [fast]
    max_concurrent: 1
  fast: {upstreams: [{url: "http://127.0.0.1:PORT1", model: qwen3-0.6b}]}
aliases: {coder: standard}
"""
HELLO = {"model": "standard", "messages": [{"role": "user", "content": "hello"}]}
PATHS = {
    "/v1/chat/completions": HELLO,
    "/v1/responses": {"model": "standard", "input": "hello"},
    "/v1/messages": {**HELLO, "max_tokens": 5},
}


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nothing announces; the test's own time limit ends it."""
    while not holds():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def ring(path: Path, **fields: Any) -> KeyRing:
    """The keys of a gateway with one client."""
    client = ClientKey(name="laptop", **fields)
    path.write_text(ClientKeys().with_key(client, LAPTOP).encode())
    return KeyRing(ADMIN_KEY, path)


def chunk(text: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more}


async def says_hello(exchange: Exchange) -> None:
    usage = {"prompt_tokens": 600, "completion_tokens": 70, "total_tokens": 670,
             "prompt_tokens_details": {"cached_tokens": 0}}  # fmt: skip
    if exchange.document.get("stream"):
        await exchange.begin_events()
        for text in ("a secret ", "answer"):
            await exchange.send(b"data: " + json.dumps(chunk(text)).encode() + b"\n\n")
            await asyncio.sleep(0.02)
        last = {**chunk(""), "choices": [], "usage": usage}
        await exchange.send(b"data: " + json.dumps(last).encode() + b"\n\ndata: [DONE]\n\n")
        await exchange.end()
    else:
        message = {"role": "assistant", "content": "a secret answer"}
        await exchange.json({"choices": [{"index": 0, "message": message}], "usage": usage})


async def says_hello_after(go_on: asyncio.Event, exchange: Exchange) -> None:
    await go_on.wait()
    await says_hello(exchange)


async def fails(exchange: Exchange) -> None:
    await exchange.json({"detail": "out of memory"}, status=500)


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_a_key_may_not_use_is_refused_in_the_clients_protocol(
    bench: MakeBench, tmp_path: Path, path: str
) -> None:
    async with bench(TWO, says_hello, says_hello, keys=ring(tmp_path / "k", tiers=("fast",))) as it:
        for model in ("standard", "coder"):
            answer = await it.client.ask(path, {**PATHS[path], "model": model}, key=LAPTOP)

            assert answer.status == 403
            error = answer.document["error"]
            assert error["type"] == "permission_error"
            assert "It may use: fast." in error["message"]
            is_anthropics = path == "/v1/messages"
            assert (answer.document.get("type") == "error") is is_anthropics
        assert it.engines[0].seen == []


async def test_a_request_falls_back_to_nothing_that_its_key_may_not_use(
    bench: MakeBench, tmp_path: Path
) -> None:
    keys = ring(tmp_path / "k", tiers=("standard",))
    async with bench(TWO, fails, says_hello, keys=keys) as it:
        answer = await it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP)
        assert answer.status == 503
        assert it.engines[1].seen == []

        answer = await it.client.ask("/v1/chat/completions", HELLO)
        assert answer.status == 200


async def test_a_client_sees_the_models_that_it_may_use(bench: MakeBench, tmp_path: Path) -> None:
    async with bench(TWO, says_hello, says_hello, keys=ring(tmp_path / "k", tiers=("fast",))) as it:
        listed = await it.client.ask("/v1/models", key=LAPTOP)
        assert [each["id"] for each in listed.document["data"]] == ["fast"]
        assert (await it.client.ask("/v1/models/standard", key=LAPTOP)).status == 403
        assert (await it.client.ask("/v1/models/fast", key=LAPTOP)).status == 200


async def test_a_key_without_tiers_may_scrape_and_nothing_else(
    bench: MakeBench, tmp_path: Path
) -> None:
    async with bench(TWO, says_hello, says_hello, keys=ring(tmp_path / "k", tiers=())) as it:
        assert (await it.client.ask("/metrics", key=LAPTOP)).status == 200
        assert (await it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP)).status == 403
        anthropics = {"anthropic-version": "2023-06-01"}
        listed = await it.client.ask("/v1/models", headers=anthropics, key=LAPTOP)
        assert listed.document == {"data": [], "has_more": False, "first_id": None, "last_id": None}
        assert (await it.client.ask("/metrics", key=None)).status == 401


async def test_a_client_has_no_more_in_flight_than_its_key_allows(
    bench: MakeBench, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    waits = partial(says_hello_after, go_on)
    keys = ring(tmp_path / "k", max_in_flight=1)
    async with bench(TWO, waits, says_hello, keys=keys) as it:
        first = asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP))
        await it.engines[0].asked.wait()

        refused = await it.client.ask("/v1/messages", PATHS["/v1/messages"], key=LAPTOP)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert refused.document["error"]["type"] == "rate_limit_error"
        go_on.set()
        assert (await first).status == 200
        assert (await it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP)).status == 200


async def test_a_key_that_is_revoked_ends_no_answer_that_has_begun(
    bench: MakeBench, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    waits = partial(says_hello_after, go_on)
    path = tmp_path / "keys.json"
    async with bench(TWO, waits, says_hello, keys=ring(path)) as it:
        first = asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP))
        await it.engines[0].asked.wait()
        path.unlink()

        assert (await it.client.ask("/v1/chat/completions", HELLO, key=LAPTOP)).status == 401
        go_on.set()
        assert (await first).status == 200


async def test_a_person_is_answered_before_the_agents_that_came_earlier(
    bench: MakeBench, tmp_path: Path
) -> None:
    go_on, order = asyncio.Event(), list[str]()

    async def waits(exchange: Exchange) -> None:
        order.append(exchange.document["messages"][0]["content"])
        await says_hello_after(go_on, exchange)

    def words(text: str) -> dict[str, object]:
        return {"model": "standard", "messages": [{"role": "user", "content": text}]}

    keys = ring(tmp_path / "k", priority=Priority.AGENT)
    async with bench(TWO, waits, says_hello, keys=keys) as it:
        ask = it.client.ask
        asked = [asyncio.ensure_future(ask("/v1/chat/completions", words("first"), key=LAPTOP))]
        await it.engines[0].asked.wait()
        asked.append(asyncio.ensure_future(ask("/v1/chat/completions", words("agent"), key=LAPTOP)))
        await until(lambda: it.gateway.lines()["standard"].waiting == 1)
        asked.append(asyncio.ensure_future(ask("/v1/chat/completions", words("person"))))
        await until(lambda: it.gateway.lines()["standard"].waiting == 2)
        go_on.set()
        await asyncio.gather(*asked)

    assert order == ["first", "person", "agent"]


async def test_each_request_is_one_row_without_a_word_of_it(
    bench: MakeBench, tmp_path: Path
) -> None:
    path, begin = tmp_path / "ledger.db", time.time()
    asked = {"model": "coder", "messages": [{"role": "user", "content": "a secret question"}]}
    keys, ledger = ring(tmp_path / "k"), Ledger(path)
    async with bench(TWO, says_hello, says_hello, keys=keys, ledger=ledger) as it:
        agent = {"user-agent": "claude-cli/1.0.33 (external, cli)"}
        for streams in (True, False):
            document = {**asked, "stream": streams}
            await it.client.ask("/v1/chat/completions", document, headers=agent, key=LAPTOP)
        await it.client.ask("/v1/chat/completions", {"model": "none", "messages": []})

    usage = read_usage(path, since=begin - 1, until=time.time() + 1, by=By.KEY)
    assert {name: each.requests for name, each in usage.rows.items()} == {"laptop": 2}
    assert usage.totals.prompt_tokens == 1200
    assert usage.totals.completion_tokens == 140
    assert usage.totals.ttft_s(0.5) is not None
    shares = {name: each.share for name, each in usage.availability.items()}
    assert shares == {"endpoint": 1.0, "standard": 1.0, "fast": 1.0}
    assert key_uses(path).keys() == {"laptop", "admin"}
    assert {each.what for each in read_events(path)} == {"ready", "stop"}
    (clean, _) = clean_requests(path, "standard", begin - 1)
    assert clean.prompt_tps is not None
    assert 100 < (clean.generation_tps or 0) < 69 / 0.02
    with closing(sqlite3.connect(path)) as connection:
        whole = "\n".join(connection.iterdump())
    assert "secret" not in whole
    for word in ("laptop", "claude-cli", "qwen3-8b", "standard", "chat/completions"):
        assert word in whole


async def test_a_fallback_and_a_failure_are_noted_as_such(bench: MakeBench, tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    answers = iter((says_hello, fails))

    async def says_hello_once(exchange: Exchange) -> None:
        await next(answers)(exchange)

    async with bench(TWO, fails, says_hello_once, ledger=Ledger(path)) as it:
        await it.client.ask("/v1/chat/completions", HELLO)
        await it.client.ask("/v1/chat/completions", HELLO)

    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(
            "SELECT status, t.name, m.name, f.name FROM requests JOIN names t ON t.id = tier"
            " JOIN names m ON m.id = model LEFT JOIN names f ON f.id = fallback_from"
        ).fetchall()
    assert rows[0] == (200, "fast", "qwen3-0.6b", "standard")
    assert rows[1][0] == 503


async def test_a_ledger_that_can_not_be_written_fails_no_request(
    bench: MakeBench, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "no folder" / "ledger.db")
    async with bench(TWO, says_hello, says_hello, ledger=ledger) as it:
        for _ in range(3):
            assert (await it.client.ask("/v1/chat/completions", HELLO)).status == 200
        await until(lambda: bool(ledger.problem))
        text = (await it.client.ask("/metrics")).body.decode()

    assert "mlx_gateway_ledger_writes 0.0" in text
