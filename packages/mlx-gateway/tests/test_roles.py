"""Models that don't chat, over real sockets: who is asked for what, and what comes back."""

import asyncio
import json
import struct
from base64 import b64decode
from typing import Any

import pytest

type Exchange = Any
type MakeBench = Any

ROLES = """
schema_version: 1
models:
  standard:
    upstreams: [{url: "http://127.0.0.1:PORT0", model: chatty}]
    fallbacks: [embed]
    role: chat
  embed:
    upstreams: [{url: "http://127.0.0.1:PORT1", model: bge}]
    fallbacks: [standard]
    role: embedding
    max_concurrent: 1
    context_tokens: 10
    dimensions: 4
    shortens: true
  rank:
    upstreams: [{url: "http://127.0.0.1:PORT1", model: ranker}]
    role: rerank
    context_tokens: 10
"""
VECTOR = [0.5, 0.5, 0.1, 0.7]


async def fails(exchange: Exchange) -> None:
    await exchange.json({"error": {"message": "out of memory"}}, 500)


async def serves(exchange: Exchange) -> None:
    asked = exchange.document
    if exchange.path == "/v1/rerank":
        scores = [len(text) for text in asked["documents"]]
        rows = [{"index": index, "relevance_score": each} for index, each in enumerate(scores)]
        await exchange.json({"results": rows, "usage": {"total_tokens": 9}})
        return
    texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
    rows = [{"index": index, "embedding": VECTOR} for index, _ in enumerate(texts)]
    await exchange.json({"data": rows, "model": "bge", "usage": {"prompt_tokens": len(texts)}})


async def test_vectors_come_in_the_form_that_clients_ask_for(bench: MakeBench) -> None:
    async with bench(ROLES, fails, serves) as it:
        asked = {"model": "embed", "input": ["a", "b"]}
        plain = await it.client.ask("/v1/embeddings", asked)
        packed = await it.client.ask("/v1/embeddings", asked | {"encoding_format": "base64"})
        short = await it.client.ask("/v1/embeddings", asked | {"dimensions": 2})
        ollamas = await it.client.ask("/api/embed", asked | {"dimensions": 2})

        assert [row["embedding"] for row in plain.document["data"]] == [VECTOR, VECTOR]
        data = b64decode(packed.document["data"][1]["embedding"])
        assert struct.unpack("<4f", data) == pytest.approx(VECTOR)
        half = pytest.approx([0.5**0.5, 0.5**0.5])
        assert [row["embedding"] for row in short.document["data"]] == [half, half]
        assert ollamas.document["embeddings"] == [half, half]
        assert short.document["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        assert {each.document["model"] for each in it.engines[1].seen} == {"bge"}


async def test_others_come_in_between_while_many_texts_are_embedded(bench: MakeBench) -> None:
    order: list[int] = []
    first, go_on = asyncio.Event(), asyncio.Event()

    async def serves_slowly(exchange: Exchange) -> None:
        order.append(len(exchange.document["input"]))
        first.set()
        await go_on.wait()
        await serves(exchange)

    async with bench(ROLES, fails, serves_slowly) as it:
        many = {"model": "embed", "input": [f"text {number}" for number in range(150)]}
        all_of_them = asyncio.ensure_future(it.client.ask("/v1/embeddings", many))
        await first.wait()
        one = asyncio.ensure_future(
            it.client.ask("/v1/embeddings", {"model": "embed", "input": ["x"]})
        )
        while not it.gateway.lines()["embed"].waiting:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
        go_on.set()
        answers = await asyncio.gather(all_of_them, one)

        assert order[1] == 1
        assert max(order) <= 64
        assert order[0] + sum(order[2:]) == 150
        assert [len(each.document["data"]) for each in answers] == [150, 1]
        assert answers[0].document["usage"]["prompt_tokens"] == 150


async def test_a_chat_has_its_first_token_before_many_texts_are_embedded(bench: MakeBench) -> None:
    is_read, speak, end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def chats(exchange: Exchange) -> None:
        is_read.set()
        await speak.wait()
        await exchange.begin_events()
        words = {"choices": [{"index": 0, "delta": {"content": "hello"}}]}
        await exchange.send(f"data: {json.dumps(words)}\n\n".encode())
        await end.wait()
        await exchange.send(b"data: [DONE]\n\n")
        await exchange.end()

    async with bench(ROLES, chats, serves) as it:
        hello = [{"role": "user", "content": "hello"}]
        chat = {"model": "standard", "messages": hello, "stream": True}
        chatting = asyncio.ensure_future(it.client.ask("/v1/chat/completions", chat))
        await is_read.wait()
        many = {"model": "embed", "input": [f"text {number}" for number in range(100)]}
        embedding = asyncio.ensure_future(it.client.ask("/v1/embeddings", many))
        while len(it.gateway.requests()) < 2:  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)
        one = await it.client.ask("/v1/embeddings", {"model": "embed", "input": ["a question"]})

        assert one.status == 200
        assert [each.document["input"] for each in it.engines[1].seen] == [["a question"]]
        speak.set()
        assert len((await embedding).document["data"]) == 100
        assert not chatting.done()
        end.set()
        assert b"hello" in (await chatting).body


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_documents_are_ranked_for_both_kinds_of_clients(bench: MakeBench, path: str) -> None:
    async with bench(ROLES, fails, serves) as it:
        asked = {"model": "rank", "query": "q", "documents": ["a", "ccc", "bb"], "top_n": 2}
        answer = await it.client.ask(path, asked)

        assert [each["index"] for each in answer.document["results"]] == [1, 2]
        assert answer.document["usage"]["total_tokens"] == 9
        assert it.engines[1].seen[0].path == "/v1/rerank"


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
@pytest.mark.parametrize(
    ("model", "more", "status"),
    [("rank", {}, 400), ("gone", {}, 404), ("rank", {"key": "wrong"}, 401)],
)
async def test_what_is_wrong_with_a_ranking_is_where_each_kind_of_client_looks(
    bench: MakeBench, path: str, model: str, more: dict[str, str], status: int
) -> None:
    async with bench(ROLES, fails, serves) as it:
        answer = await it.client.ask(path, {"model": model, "query": "q"}, **more)

        said = answer.document
        assert answer.status == status
        assert said["message"] == said["detail"] == said["error"]["message"]


@pytest.mark.parametrize(
    ("path", "body", "hint"),
    [
        ("/v1/embeddings", {"model": "standard", "input": "a"}, "makes embeddings. Use 'embed'."),
        ("/api/embed", {"model": "standard", "input": "a"}, "makes embeddings. Use 'embed'."),
        ("/v1/rerank", {"model": "embed", "query": "q", "documents": ["a"]}, "Use 'rank'."),
        ("/v1/chat/completions", {"model": "embed", "messages": []}, "Use 'standard'."),
        ("/v1/messages", {"model": "rank", "messages": []}, "Use 'standard'."),
        ("/v1/audio/speech", {"model": "rank", "input": "a"}, "No other model on this server does"),
    ],
)
async def test_a_model_is_only_asked_for_what_it_does(
    bench: MakeBench, path: str, body: dict[str, object], hint: str
) -> None:
    async with bench(ROLES, serves, serves) as it:
        answer = await it.client.ask(path, body)

        assert answer.status == 400
        assert hint in answer.body.decode()
        assert not it.engines[0].seen
        assert not it.engines[1].seen


async def test_another_models_vectors_never_stand_in(bench: MakeBench) -> None:
    async with bench(ROLES, serves, fails) as it:
        vectors = await it.client.ask("/v1/embeddings", {"model": "embed", "input": "a"})
        many = await it.client.ask("/v1/embeddings", {"model": "embed", "input": ["a"] * 99})

        assert (vectors.status, many.status) == (503, 503)
        assert not it.engines[0].seen


@pytest.mark.parametrize("wrong", [{"error": {"message": "out of memory"}}, {"data": []}])
async def test_an_engine_that_fails_in_the_middle_of_many_texts_is_asked_no_further(
    bench: MakeBench, wrong: dict[str, object]
) -> None:
    pieces = 0

    async def fails_at_the_third(exchange: Exchange) -> None:
        nonlocal pieces
        pieces += 1
        if pieces == 3:
            await exchange.json(wrong, 500 if "error" in wrong else 200)
        else:
            await serves(exchange)

    async with bench(ROLES, fails, fails_at_the_third) as it:
        many = {"model": "embed", "input": [f"text {number}" for number in range(500)]}
        answer = await it.client.ask("/v1/embeddings", many)

        assert answer.status == 503
        assert answer.document["error"]["message"].startswith("No model could answer. embed: ")
        assert pieces == 3


async def test_texts_of_a_client_that_left_are_embedded_no_further(bench: MakeBench) -> None:
    async def answers_once(exchange: Exchange) -> None:
        if len(it.engines[1].seen) > 1:
            await asyncio.Event().wait()
        await serves(exchange)

    async with bench(ROLES, fails, answers_once) as it:
        engine = it.engines[1]
        many = {"model": "embed", "input": [f"text {number}" for number in range(512)]}
        _, writer = await it.client.open("/v1/embeddings", many)
        while len(engine.seen) < 2:
            engine.asked.clear()
            await engine.asked.wait()
        writer.close()
        await engine.left.wait()
        while it.gateway.requests():  # noqa: ASYNC110 - nothing announces it
            await asyncio.sleep(0.01)

        assert len(engine.seen) == 2


async def test_a_text_that_cannot_fit_is_refused_before_it_is_sent(bench: MakeBench) -> None:
    async with bench(ROLES, fails, serves) as it:
        long = await it.client.ask("/v1/embeddings", {"model": "embed", "input": ["a", "b" * 999]})
        many = await it.client.ask("/v1/embeddings", {"model": "embed", "input": ["b" * 99] * 60})

        assert (long.status, many.status) == (400, 200)
        assert "999 characters, and the model reads 10 tokens" in long.document["error"]["message"]
        assert long.document["error"]["code"] == "context_length_exceeded"
        assert long.document["error"]["param"] == "input"


@pytest.mark.parametrize("param", ["query", "documents"])
async def test_a_question_that_cannot_fit_is_not_sent_with_every_document(
    bench: MakeBench, param: str
) -> None:
    async with bench(ROLES, fails, serves) as it:
        asked = {"model": "rank", "query": "q", "documents": ["a", "b"]}
        long = {"query": "q" * 999, "documents": ["a", "b" * 999]}
        answer = await it.client.ask("/v1/rerank", asked | {param: long[param]})

        assert answer.status == 400
        assert answer.document["error"]["param"] == param
        assert f"`{param}` is too long for rank" in answer.document["error"]["message"]
        assert not it.engines[1].seen


ONLY_CHATS = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: m}], chat_only: true}
"""


async def says_hello(exchange: Exchange) -> None:
    message = {"role": "assistant", "content": "hello"}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    await exchange.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


async def test_an_engine_that_only_chats_answers_responses_as_well(bench: MakeBench) -> None:
    async with bench(ONLY_CHATS, says_hello) as it:
        asked = {"model": "standard", "instructions": "Be brief.", "input": "Hi"}
        answer = await it.client.ask("/v1/responses", asked)

        (item,) = answer.document["output"]
        assert item["content"][0]["text"] == "hello"
        assert answer.document["usage"]["input_tokens"] == 3
        (seen,) = it.engines[0].seen
        assert seen.path == "/v1/chat/completions"
        assert seen.document["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
        assert "response_format" not in seen.document


ASKED = {
    "model": "standard",
    "max_tokens": 9,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "Hi"}],
    "tools": [{"name": "f", "input_schema": {"type": "object"}}],
}


async def only_chats(exchange: Exchange) -> None:
    """As mlx-lm behind its guard: chats, whole and streamed, and counts their prompts."""
    asked = exchange.document
    if exchange.path == "/v1/messages/count_tokens":
        await exchange.json({"input_tokens": 40 + len(asked["messages"])})
        return
    assert exchange.path == "/v1/chat/completions"
    if not asked.get("stream"):
        await says_hello(exchange)
        return
    usage = {"prompt_tokens": 42, "completion_tokens": 1, "total_tokens": 43}
    said, last = (
        {"id": "c", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": end}]}
        for delta, end in (({"content": "hello"}, None), ({}, "stop"))
    )
    await exchange.events(said, last, {"id": "c", "choices": [], "usage": usage})


async def test_an_engine_that_only_chats_answers_messages_as_well(bench: MakeBench) -> None:
    async with bench(ONLY_CHATS, only_chats) as it:
        whole = await it.client.ask("/v1/messages", ASKED)
        stream = await it.client.ask("/v1/messages", {**ASKED, "stream": True})
        counted = await it.client.ask("/v1/messages/count_tokens", {**ASKED, "max_tokens": None})

        assert whole.document["content"] == [{"type": "text", "text": "hello"}]
        assert whole.document["usage"] == {"input_tokens": 3, "output_tokens": 1}
        first, *_, end, last = stream.events
        assert first["message"]["usage"]["input_tokens"] == 42
        assert end["usage"] == {"input_tokens": 42, "output_tokens": 1}
        assert last == {"type": "message_stop"}
        assert counted.document == {"input_tokens": 42}
        assert all(
            each.document["messages"][0] == {"role": "system", "content": "Be brief."}
            and each.document["tools"][0]["function"]["name"] == "f"
            for each in it.engines[0].seen
        )


async def test_what_such_an_engine_refuses_is_said_in_the_clients_shape(bench: MakeBench) -> None:
    async def refuses(exchange: Exchange) -> None:
        error = {"message": "no such form", "type": "invalid_request_error", "code": 400}
        await exchange.json({"error": error}, 400)

    async with bench(ONLY_CHATS, refuses) as it:
        answer = await it.client.ask("/v1/messages", ASKED)

        error = {"type": "invalid_request_error", "message": "no such form"}
        assert (answer.status, answer.document) == (400, {"type": "error", "error": error})


async def test_a_stream_of_such_an_engine_that_breaks_off_ends_with_an_error(
    bench: MakeBench,
) -> None:
    async def breaks_off(exchange: Exchange) -> None:
        if exchange.path == "/v1/messages/count_tokens":
            await only_chats(exchange)
            return
        said = {"index": 0, "delta": {"content": "hel"}, "finish_reason": None}
        await exchange.events({"id": "c", "choices": [said]}, done=False)

    async with bench(ONLY_CHATS, breaks_off) as it:
        answer = await it.client.ask("/v1/messages", {**ASKED, "stream": True})

        assert answer.events[0]["type"] == "message_start"
        assert answer.events[-1]["type"] == "error"


async def test_clients_of_messages_hear_that_such_an_engine_is_alive(bench: MakeBench) -> None:
    go_on = asyncio.Event()

    async def thinks_first(exchange: Exchange) -> None:
        if exchange.path == "/v1/chat/completions":
            await go_on.wait()
        await only_chats(exchange)

    async with bench(ONLY_CHATS, thinks_first, sign_of_life_s=0.05) as it:
        reader, writer = await it.client.open("/v1/messages", {**ASKED, "stream": True})
        head = await reader.readuntil(b'{"type":"ping"}')
        go_on.set()
        rest = await reader.read()
        writer.close()

        assert b"message_start" not in head
        assert rest.count(b"message_start") == 2, "the event's name, and its type"
        assert b"message_stop" in rest


NODE_OF_ITS_OWN = """
schema_version: 1
models:
  standard:
    upstreams:
    - {url: "http://127.0.0.1:PORT0", model: m}
    - {url: "http://127.0.0.1:PORT1", model: standard, node: studio}
    chat_only: true
"""


async def test_another_machines_gateway_is_asked_as_the_client_asked(bench: MakeBench) -> None:
    async def hangs_up(exchange: Exchange) -> None:
        exchange.hang_up()

    async def answers(exchange: Exchange) -> None:
        content = [{"type": "text", "text": "from there"}]
        usage = {"input_tokens": 3, "output_tokens": 2}
        is_count = exchange.path.endswith("count_tokens")
        await exchange.json(
            {"input_tokens": 7} if is_count else {"type": "message", "content": content,
                                                  "usage": usage}
        )  # fmt: skip

    async with bench(NODE_OF_ITS_OWN, hangs_up, answers) as it:
        answer = await it.client.ask("/v1/messages", ASKED)
        counted = await it.client.ask("/v1/messages/count_tokens", ASKED)

        assert answer.document["content"] == [{"type": "text", "text": "from there"}]
        assert counted.document == {"input_tokens": 7}
        asked, count = it.engines[1].seen
        assert (asked.path, count.path) == ("/v1/messages", "/v1/messages/count_tokens")
        assert asked.document["system"] == count.document["system"] == "Be brief."
        assert asked.document["tools"][0]["name"] == "f"
