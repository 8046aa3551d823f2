"""Ollama's own Python client at the gateway, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import ollama
import pytest

from mlx_gateway.activation import NothingToStart, Presence

type Exchange = Any
type MakeBench = Any

KEY = "a-key-of-the-test"
ONE = """
schema_version: 1
models:
  standard:
    upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}]
    context_tokens: 4096
    calls_tools: true
    thinks: true
    sees_images: false
aliases: {qwen3-8b: standard}
"""
TWO = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: big}], fallbacks: [fast]}
  fast: {upstreams: [{url: "http://127.0.0.1:PORT1", model: small}]}
"""
HELLO = [{"role": "user", "content": "hello"}]
USED = {"prompt_tokens": 3, "completion_tokens": 2}
CALL = {"name": "weather", "arguments": '{"city": "Paris"}'}


async def says_hello(exchange: Exchange) -> None:
    """Think, say hello and call a tool if there is one; embed a text in two dimensions."""
    if exchange.path == "/v1/embeddings":
        rows = [
            {"index": at, "embedding": [0.5, at]} for at, _ in enumerate(exchange.document["input"])
        ]
        await exchange.json({"data": rows, "usage": USED})
        return
    message: dict[str, Any] = {"content": "Hello", "reasoning_content": "hm"}
    if exchange.document.get("tools"):
        message["tool_calls"] = [{"index": 0, "id": "c1", "function": CALL}]
    if not exchange.document.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        await exchange.json({"choices": [choice], "usage": USED})
        return
    pieces = [{"role": "assistant"}, *({name: value} for name, value in message.items())]
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": USED}
    await exchange.events(*({"choices": [{"delta": piece}]} for piece in pieces), last)


async def fails(exchange: Exchange) -> None:
    await exchange.json({"detail": "out of memory"}, status=500)


@asynccontextmanager
async def client_of(it: Any, key: str = KEY) -> AsyncIterator[ollama.AsyncClient]:
    headers = {"authorization": f"Bearer {key}"}
    client = ollama.AsyncClient(f"http://127.0.0.1:{it.client.port}", headers=headers)
    try:
        yield client
    finally:
        await client.close()


def weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"sunny in {city}"


async def test_a_chat_is_answered_whole_and_in_pieces(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it, client_of(it) as client:
        whole = await client.chat("standard", HELLO, think=True, options={"num_predict": 9})
        pieces = [each async for each in await client.chat("qwen3-8b:latest", HELLO, stream=True)]

        for said in (whole, *pieces[-1:]):
            assert (said.done, said.done_reason) == (True, "stop")
            assert (said.prompt_eval_count, said.eval_count) == (3, 2)
            assert said.total_duration is not None
        assert (whole.message.content, whole.message.thinking) == ("Hello", "hm")
        assert "".join(each.message.content or "" for each in pieces) == "Hello"
        assert "".join(each.message.thinking or "" for each in pieces) == "hm"
        assert it.engines[0].seen[0].document["max_tokens"] == 9
        assert it.engines[0].seen[1].document["model"] == "qwen3-8b"


async def test_a_tool_is_called_and_its_result_goes_back(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it, client_of(it) as client:
        for streams in (False, True):
            answer = await client.chat("standard", HELLO, tools=[weather], stream=streams)  # pyright: ignore[reportCallIssue, reportArgumentType]
            messages = [each.message async for each in answer] if streams else [answer.message]
            (called,) = [call for each in messages for call in each.tool_calls or ()]
            assert (called.function.name, called.function.arguments) == (
                "weather",
                {"city": "Paris"},
            )
            result = {"role": "tool", "tool_name": "weather", "content": "sunny"}
            await client.chat("standard", [*HELLO, *messages, result])

            sent = it.engines[0].seen[-1].document["messages"]
            calls = [call for each in sent for call in each.get("tool_calls", ())]
            assert calls[0]["function"]["arguments"] == '{"city":"Paris"}'
            assert sent[-1]["tool_call_id"] == calls[0]["id"]


async def test_a_text_is_generated_and_embedded(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it, client_of(it) as client:
        whole = await client.generate("standard", "hello", system="be brief")
        pieces = [each async for each in await client.generate("standard", "hello", stream=True)]
        vectors = await client.embed("standard", ["a", "b"])

        assert whole.response == "".join(each.response or "" for each in pieces) == "Hello"
        assert [list(each) for each in vectors.embeddings] == [[0.5, 0], [0.5, 1]]
        loaded = await client.generate("standard", keep_alive=-1)
        assert (loaded.done, loaded.done_reason) == (True, "load")


async def test_models_are_listed_with_what_they_can_do(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it, client_of(it) as client:
        assert [each.model for each in (await client.list()).models] == ["standard", "qwen3-8b"]
        shown = await client.show("qwen3-8b")
        assert shown.capabilities == ["completion", "tools", "thinking"]
        assert shown.modelinfo is not None
        architecture = shown.modelinfo["general.architecture"]
        assert shown.modelinfo[f"{architecture}.context_length"] == 4096
        (running,) = (await client.ps()).models
        assert running.model == "standard"
        assert running.expires_at is not None
        assert running.expires_at.year > 2200, "nobody ends it"
        version = (await it.client.ask("/api/version")).document["version"]
        assert tuple(map(int, version.split("."))) >= (0, 6, 4), "VS Code looks for that"

        await it.engines[0].stop()
        assert list((await client.ps()).models) == []


async def test_how_long_a_model_is_kept_is_told_to_who_ends_it(bench: MakeBench) -> None:
    class Keeper(NothingToStart):
        def __init__(self) -> None:
            self.told: list[tuple[str, float | None]] = []

        def finished(self, model: str, keep_s: float | None = None) -> None:
            self.told.append((model, keep_s))

        def presence(self, model: str) -> Presence:
            assert model == "standard"
            return Presence(state="up", rests_in_s=self.told[-1][1])

        async def unload(self, model: str) -> None:
            self.told.append((model, 0))

    keeper = Keeper()
    async with bench(ONE, says_hello, activator=keeper) as it, client_of(it) as client:
        await client.chat("standard", HELLO, keep_alive="10m")
        assert keeper.told == [("standard", 600)]
        (running,) = (await client.ps()).models
        assert running.expires_at is not None
        left = running.expires_at - datetime.now(UTC)
        assert 590 < left.total_seconds() <= 600

        ended = await client.generate("standard", keep_alive=0)
        assert (ended.done, ended.done_reason) == (True, "unload")
        assert keeper.told[-1] == ("standard", 0)


async def test_problems_come_in_ollamas_shape(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it, client_of(it) as client:
        for ask, status in (
            (client.chat("nobody", HELLO), 404),
            (client.show("nobody"), 404),
            (client.chat("standard", HELLO, options={"temperature": -1.0}), 400),
            (client.chat("standard", HELLO, logprobs=True), 400),
            (client.generate("standard", keep_alive=0), 400),
            (client.pull("standard"), 404),
        ):
            with pytest.raises(ollama.ResponseError) as caught:
                await ask
            assert caught.value.status_code == status
            assert not caught.value.error.startswith("{"), "the text, and not a document"
        async with client_of(it, "wrong") as stranger:
            with pytest.raises(ollama.ResponseError) as caught:
                await stranger.list()
            assert caught.value.status_code == 401
        for path, headers, status in (
            ("/api/tags", {"host": "evil.example"}, 403),
            ("/api/chat", {"content-length": str(2**30)}, 413),
            ("/api/delete", {}, 404),
        ):
            method = "GET" if path == "/api/tags" else "POST"
            answer = await it.client.ask(path, method=method, headers=headers)
            assert answer.status == status
            assert isinstance(answer.document["error"], str)


async def test_another_model_answers_for_one_that_fails(bench: MakeBench) -> None:
    async with bench(TWO, fails, says_hello) as it:
        for streams in (False, True):
            asked = {"model": "standard", "messages": HELLO, "stream": streams}
            answer = await it.client.ask("/api/chat", asked)

            assert answer.headers["x-mlx-stack-tier"] == "fast"
            assert answer.headers["x-mlx-stack-fallback-from"] == "standard"
            assert int(answer.headers["x-mlx-stack-queue-ms"]) < 1000
            kind = "application/x-ndjson" if streams else "application/json"
            assert answer.headers["content-type"] == kind


async def test_a_silent_stream_gets_lines_that_say_nothing(bench: MakeBench) -> None:
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await go_on.wait()
        await says_hello(exchange)

    async with bench(ONE, waits, sign_of_life_s=0.05) as it:
        asked = {"model": "standard", "messages": HELLO}
        reader, writer = await it.client.open("/api/chat", asked)
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readuntil(b"\n\r\n")
        go_on.set()
        rest = await reader.read()
        writer.close()

        assert b"application/x-ndjson" in head
        assert json.loads(first.partition(b"\r\n")[2])["message"]["content"] == ""
        assert b"x-mlx-stack-tier: standard" in head
        assert b'"content":"Hello"' in rest


async def test_an_answer_that_breaks_off_ends_with_an_error(bench: MakeBench) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.send(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\n')
        exchange.hang_up()

    async with bench(ONE, breaks_off) as it, client_of(it) as client:
        with pytest.raises(ollama.ResponseError, match="cut off"):
            async for _ in await client.chat("standard", HELLO, stream=True):
                pass
