"""The gateway over real sockets: what clients get, whatever their engines do."""

import asyncio
import json
from typing import Any

import pytest

type Exchange = Any
type MakeBench = Any

ONE = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}], context_tokens: 4096}
aliases: {qwen3-8b: standard, coder: qwen3-8b}
"""
TWO = """
schema_version: 1
models:
  standard:
    upstreams: [{url: "http://127.0.0.1:PORT0", model: big}]
    fallbacks: [fast]
    context_tokens: 100
  fast: {upstreams: [{url: "http://127.0.0.1:PORT1", model: small}], context_tokens: 4000}
"""
HELLO = {"model": "standard", "messages": [{"role": "user", "content": "hello"}]}


def chunk(text: str, **more: object) -> dict[str, object]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more}


async def says_hello(exchange: Exchange) -> None:
    if exchange.document.get("stream"):
        await exchange.events(chunk("Hel"), chunk("lo"))
    else:
        message = {"role": "assistant", "content": "Hello"}
        await exchange.json({"choices": [{"index": 0, "message": message}], "usage": {}})


async def fails(exchange: Exchange) -> None:
    await exchange.json({"detail": "out of memory"}, status=500)


async def test_an_answer_comes_with_the_name_of_who_gave_it(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "model": "coder"})

        assert answer.status == 200
        assert answer.document["choices"][0]["message"]["content"] == "Hello"
        assert answer.headers["x-mlx-stack-tier"] == "standard"
        assert answer.headers["x-mlx-stack-queue-ms"] == "0"
        assert it.engines[0].seen[0].document["model"] == "qwen3-8b"


async def test_events_pass_byte_for_byte(bench: MakeBench) -> None:
    raw = b'data: {"id":"c1" ,  "choices":[{"index":0,"delta":{"content":"\\u00e4"}}]}\n\n'

    async def speaks(exchange: Exchange) -> None:
        await exchange.begin_events()
        for position in range(0, len(raw), 7):
            await exchange.send(raw[position : position + 7])
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    async with bench(ONE, speaks) as it:
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "stream": True})

        assert answer.body == raw + b"data: [DONE]\n\n"


@pytest.mark.parametrize("how", ["refused", "error", "broken", "error event"])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_tier_that_fails_before_its_answer_is_replaced(
    bench: MakeBench, how: str, streams: bool
) -> None:
    async def misbehaves(exchange: Exchange) -> None:
        if how == "error":
            await fails(exchange)
        elif how == "broken":
            exchange.hang_up()
        else:
            await exchange.events({"error": {"message": "dead", "code": 500}})

    async with bench(TWO, misbehaves, says_hello) as it:
        if how == "refused":
            await it.engines[0].stop()
        if how == "error event" and not streams:
            return
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "stream": streams})

        assert answer.status == 200
        assert b"Hel" in answer.body
        assert b"dead" not in answer.body
        assert answer.headers["x-mlx-stack-tier"] == "fast"
        assert answer.headers["x-mlx-stack-fallback-from"] == "standard"


@pytest.mark.parametrize(
    ("status", "seen"), [(400, 400), (404, 404), (413, 413), (422, 400), (429, 429)]
)
async def test_a_mistake_of_the_client_goes_back_to_it_and_nowhere_else(
    bench: MakeBench, status: int, seen: int
) -> None:
    async def refuses(exchange: Exchange) -> None:
        detail = [{"loc": ["body", "temperature"], "msg": "Input should be a number"}]
        await exchange.json({"detail": detail}, status=status)

    async with bench(TWO, refuses, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", HELLO)

        assert answer.status == seen
        assert answer.document["error"]["message"] == "temperature: Input should be a number"
        assert it.engines[1].seen == []

        again = await it.client.ask("/v1/chat/completions", HELLO)
        assert again.status == seen, "the tier was not taken for dead"


async def test_where_no_tier_answers_the_client_hears_why(bench: MakeBench) -> None:
    async with bench(TWO, fails, fails) as it:
        answer = await it.client.ask("/v1/chat/completions", HELLO)

        assert answer.status == 503
        assert "out of memory" in answer.document["error"]["message"]
        assert "fast" in answer.document["error"]["message"]


@pytest.mark.parametrize(
    ("path", "extra", "event"),
    [
        ("/v1/chat/completions", {}, "error"),
        ("/v1/messages", {"max_tokens": 9}, "error"),
        ("/v1/responses", {"input": "hello"}, "response.failed"),
    ],
)
async def test_an_engine_that_dies_in_the_middle_ends_the_stream_with_an_error(
    bench: MakeBench, path: str, extra: dict[str, Any], event: str
) -> None:
    async def dies(exchange: Exchange) -> None:
        if exchange.path.endswith("count_tokens"):
            await exchange.json({"input_tokens": 3})
            return
        await exchange.begin_events()
        await exchange.send(b'event: x\ndata: {"type":"x","text":"one"}\n\n')
        exchange.hang_up()

    async with bench(TWO, dies, says_hello) as it:
        answer = await it.client.ask(path, {**HELLO, **extra, "stream": True})

        last = [each for each in answer.events if isinstance(each, dict)][-1]
        assert event in (last.get("type"), *last)
        assert "broke" in json.dumps(last)
        assert it.engines[1].seen == [], "another model can't finish the sentence"


@pytest.mark.parametrize("streams", [False, True])
async def test_a_client_that_leaves_ends_its_request_at_the_engine(
    bench: MakeBench, streams: bool
) -> None:
    async def takes_long(exchange: Exchange) -> None:
        if streams:
            await exchange.begin_events()
            await exchange.send(b'data: {"choices":[]}\n\n')
        await asyncio.sleep(60)

    async with bench(ONE, takes_long) as it:
        _, writer = await it.client.open("/v1/chat/completions", {**HELLO, "stream": streams})
        await it.engines[0].asked.wait()
        writer.close()

        await asyncio.wait_for(it.engines[0].left.wait(), 1)


LIMITED = ONE.replace("context_tokens: 4096", "max_concurrent: 1, queue: 1")


async def test_requests_wait_at_the_gateway_and_not_in_the_engine(bench: MakeBench) -> None:
    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await go_on.wait()
        await says_hello(exchange)

    async with bench(LIMITED, waits) as it:
        first = asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO))
        await it.engines[0].asked.wait()
        _, leaver = await it.client.open("/v1/chat/completions", HELLO)
        await asyncio.sleep(0.1)
        refused = await it.client.ask("/v1/chat/completions", HELLO)

        assert refused.status == 503
        assert int(refused.headers["retry-after"]) >= 1

        leaver.close()
        await asyncio.sleep(0.1)
        second = asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO))
        await asyncio.sleep(0.1)
        assert len(it.engines[0].seen) == 1, "the one that left never reached the engine"

        go_on.set()
        assert (await first).status == (await second).status == 200
        assert int((await second).headers["x-mlx-stack-queue-ms"]) > 50


async def test_a_prompt_that_is_too_long_goes_to_a_longer_tier(bench: MakeBench) -> None:
    async def counts(exchange: Exchange) -> None:
        if exchange.path.endswith("/count_tokens"):
            words = json.dumps(exchange.document).split()
            await exchange.json({"input_tokens": len(words)})
        else:
            await says_hello(exchange)

    async with bench(TWO, counts, counts) as it:
        question = {"role": "user", "content": "word " * 200}
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "messages": [question]})
        assert answer.headers["x-mlx-stack-tier"] == "fast"

        question["content"] = "word " * 9000
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "messages": [question]})
        assert answer.status == 400
        assert answer.document["error"]["code"] == "context_length_exceeded"
        assert "prompt is too long" in answer.document["error"]["message"]


async def test_a_hung_tier_is_left_and_asked_nothing_until_it_answers_again(
    bench: MakeBench,
) -> None:
    from mlx_gateway.liveness import EngineTimeouts

    quick = EngineTimeouts(soon_s=0.02, question_s=0.3, silence_s=0.1, in_flight_s=5)

    async with bench(TWO, says_hello, says_hello, timeouts=quick) as it:
        it.engines[0].hears.clear()
        answer = await it.client.ask("/v1/chat/completions", HELLO)
        assert answer.headers["x-mlx-stack-tier"] == "fast"

        seen = len(it.engines[0].seen)
        began = asyncio.get_running_loop().time()
        await it.client.ask("/v1/chat/completions", HELLO)
        assert asyncio.get_running_loop().time() - began < 0.2
        assert len(it.engines[0].seen) == seen

        it.engines[0].hears.set()
        for _ in range(100):
            answer = await it.client.ask("/v1/chat/completions", HELLO)
            if answer.headers["x-mlx-stack-tier"] == "standard":
                return
            await asyncio.sleep(0.05)
        pytest.fail("the tier never came back")


@pytest.mark.parametrize(
    ("path", "sign"),
    [("/v1/chat/completions", b'"delta":{}'), ("/v1/messages", b"ping"),
     ("/v1/responses", b"response.in_progress")],
)  # fmt: skip
async def test_a_silent_stream_gets_signs_of_life_as_events(
    bench: MakeBench, path: str, sign: bytes
) -> None:
    async def reads_long(exchange: Exchange) -> None:
        await exchange.begin_events()
        await exchange.send(b": heartbeat\n\n")
        await asyncio.sleep(0.5)
        await exchange.send(b'event: x\ndata: {"type":"x"}\n\ndata: [DONE]\n\n')
        await exchange.end()

    async with bench(ONE, reads_long, sign_of_life_s=0.1) as it:
        question = {**HELLO, "input": "x", "max_tokens": 5, "stream": True}
        answer = await it.client.ask(path, question)

        assert answer.body.count(sign) >= 2
        assert b"heartbeat" not in answer.body


async def test_the_settings_are_read_again_without_dropping_a_request(bench: MakeBench) -> None:
    from mlx_gateway.settings import parse_settings

    go_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await go_on.wait()
        await says_hello(exchange)

    async with bench(ONE, waits) as it:
        first = asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO))
        await it.engines[0].asked.wait()
        changed = ONE.replace("PORT0", str(it.engines[0].port)).replace("standard", "renamed")
        it.gateway.reload(parse_settings(changed), version="2")
        go_on.set()

        assert (await first).status == 200
        assert (await it.client.ask("/v1/chat/completions", HELLO)).status == 404
        renamed = {**HELLO, "model": "renamed"}
        assert (await it.client.ask("/v1/chat/completions", renamed)).status == 200
        probe = await it.client.ask("/health/liveliness", key=None)
        assert probe.headers["x-mlx-stack-config"] == "2"


async def test_metrics_tell_of_requests_and_join_the_engines_own(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        await it.client.ask("/v1/chat/completions", HELLO)
        answer = await it.client.ask("/metrics")

        assert answer.status == 200
        text = answer.body.decode()
        assert 'gen_ai_server_request_duration_seconds_count{error_type="",' in text
        assert 'mlx_gateway_requests_running{model="standard"} 0.0' in text
