"""The gateway over real sockets: what clients get, whatever their engines do."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.activation import NothingToStart
from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.ledger import Ledger
from mlx_gateway.liveness import EngineTimeouts
from mlx_gateway.requests import read_requests
from mlx_gateway.settings import parse_settings

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
LIMITED = ONE.replace("context_tokens: 4096", "max_concurrent: 1, queue: 1")
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


def says_hello_after(go_on: asyncio.Event) -> Any:
    async def waits(exchange: Exchange) -> None:
        await go_on.wait()
        await says_hello(exchange)

    return waits


async def fails(exchange: Exchange) -> None:
    await exchange.json({"detail": "out of memory"}, status=500)


async def test_an_answer_comes_with_the_name_of_who_gave_it(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "model": "coder"})

        assert answer.status == 200
        assert answer.document["choices"][0]["message"]["content"] == "Hello"
        assert answer.headers["x-mlx-stack-tier"] == "standard"
        assert int(answer.headers["x-mlx-stack-queue-ms"]) < 1000
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


async def test_an_engine_that_is_known_to_deliver_nothing_gets_no_request(bench: Any) -> None:
    wedged: set[int] = set()
    async with bench(
        TWO,
        says_hello,
        says_hello,
        is_wedged=lambda root: int(root.rpartition(":")[2]) in wedged,
    ) as it:
        wedged.add(it.engines[0].port)
        answer = await it.client.ask("/v1/chat/completions", HELLO)
        assert answer.headers["x-mlx-stack-fallback-from"] == "standard"
        assert it.engines[0].seen == []

        wedged.clear()
        answer = await it.client.ask("/v1/chat/completions", HELLO)
        assert answer.headers["x-mlx-stack-tier"] == "standard"


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


OPENINGS = {
    "/v1/chat/completions": [
        b'data: {"choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'
    ],
    "/v1/messages": [
        b'event: message_start\ndata: {"type":"message_start","message":{"usage":{}}}\n\n',
        b'data: {"type":"content_block_start","index":0,"content_block":{"type":"text"}}\n\n',
    ],
    "/v1/responses": [
        b'event: response.created\ndata: {"type":"response.created","response":{"id":"e"}}\n\n',
        b'event: response.in_progress\ndata: {"type":"response.in_progress","response":{}}\n\n',
    ],
}


@pytest.mark.parametrize("signs", [False, True])
@pytest.mark.parametrize("path", OPENINGS)
async def test_an_engine_that_dies_before_its_first_word_is_replaced(
    bench: MakeBench, path: str, signs: bool
) -> None:
    async def dies(exchange: Exchange) -> None:
        if exchange.path.endswith("count_tokens"):
            await exchange.json({"input_tokens": 3})
            return
        await exchange.begin_events()
        for opening in OPENINGS[path]:
            await exchange.send(opening)
        await asyncio.sleep(0.15 if signs else 0)
        exchange.hang_up()

    async def answers(exchange: Exchange) -> None:
        if exchange.path.endswith("count_tokens"):
            await exchange.json({"input_tokens": 3})
            return
        await exchange.begin_events()
        for opening in OPENINGS[path]:
            await exchange.send(opening)
        last = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
        if path.endswith("responses"):
            last = b'data: {"type":"response.completed","response":{"id":"e"}}\n\n'
        await exchange.send(b'data: {"type":"x","say":"Hello"}\n\n' + last + b"data: [DONE]\n\n")
        await exchange.end()

    async with bench(TWO, dies, answers, sign_of_life_s=0.05 if signs else 9) as it:
        question = {**HELLO, "input": "x", "max_tokens": 5, "stream": True}
        answer = await it.client.ask(path, question)

        assert b'"say":"Hello"' in answer.body
        assert b"broke" not in answer.body
        if signs or path.endswith("responses"):
            assert b"\n: x-mlx-stack-tier: fast\n: " in answer.body
            assert b"\n: x-mlx-stack-fallback-from: standard\n" in answer.body
        else:
            assert answer.headers["x-mlx-stack-tier"] == "fast"
        starts = [each for each in answer.events if isinstance(each, dict)
                  and each.get("type") in ("message_start", "response.created")]  # fmt: skip
        assert len(starts) == (0 if path.endswith("completions") else 1)


@pytest.mark.parametrize("at", range(0, 700, 45))
async def test_an_engine_may_die_at_any_byte(bench: MakeBench, at: int) -> None:
    events = [chunk("Hel"), chunk("lo"), {**chunk(""), "usage": {"prompt_tokens": 1}}]
    said = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)
    start = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 9999\r\n\r\n"

    async def dies(exchange: Exchange) -> None:
        exchange.writer.write((start + said)[:at])
        await exchange.writer.drain()
        exchange.writer.close()

    async with bench(TWO, dies, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "stream": True})

        assert answer.status == 200
        text = "".join(
            each["choices"][0]["delta"].get("content") or ""
            for each in answer.events
            if isinstance(each, dict) and each.get("choices")
        )
        if b"error" in answer.body:
            assert "Hello".startswith(text)
            assert it.engines[1].seen == []
        else:
            assert text == "Hello", "from the other one, and nothing twice"
            assert answer.headers["x-mlx-stack-tier"] == "fast"
        assert answer.events[-1] == "[DONE]"


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_a_client_may_leave_at_any_point(bench: MakeBench, after: int) -> None:
    async def talks(exchange: Exchange) -> None:
        await exchange.begin_events()
        while True:
            await exchange.send(b"data: " + json.dumps(chunk("word ")).encode() + b"\n\n")
            await asyncio.sleep(0.001)

    async with bench(LIMITED, talks) as it:
        for _ in range(3):
            it.engines[0].left.clear()
            it.engines[0].asked.clear()
            reader, writer = await it.client.open("/v1/chat/completions", {**HELLO, "stream": True})
            await it.engines[0].asked.wait()
            for _ in range(after):
                await reader.read(100)
            writer.transport.abort()
            await asyncio.wait_for(it.engines[0].left.wait(), 1)
        metrics = await it.client.ask("/metrics")
        assert b'mlx_gateway_requests_running{model="standard"} 0.0' in metrics.body
        assert b'error_type="client_left"' in metrics.body


@pytest.mark.parametrize(
    "document",
    [{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}, ["no", "object"]],
)
async def test_an_answer_of_200_that_is_a_failure_is_one(
    bench: MakeBench, document: object
) -> None:
    async def gives_up(exchange: Exchange) -> None:
        await exchange.json(document)

    async with bench(TWO, gives_up, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", HELLO)

        assert answer.document["choices"][0]["message"]["content"] == "Hello"
        assert answer.headers["x-mlx-stack-tier"] == "fast"


@pytest.mark.parametrize("status", [301, 307, 401, 403, 407])
async def test_an_engine_that_refuses_the_gateway_itself_is_not_the_clients_mistake(
    bench: MakeBench, status: int
) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.json({"detail": "wrong secret"}, status=status)

    async with bench(TWO, refuses, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", HELLO)

        assert answer.status == 200
        assert answer.headers["x-mlx-stack-tier"] == "fast"


@pytest.mark.parametrize(
    ("path", "asked", "param"),
    [
        ("/v1/chat/completions", {"response_format": {"type": "json_object"}}, "response_format"),
        ("/v1/responses", {"text": {"format": {"type": "json_object"}}}, "text.format"),
    ],
)
async def test_an_answer_in_a_form_that_the_engine_can_not_give_is_refused_once(
    bench: MakeBench, path: str, asked: dict[str, Any], param: str
) -> None:
    async with bench(TWO, fails, says_hello) as it:
        answer = await it.client.ask(path, {**HELLO, "input": "hello", **asked})

        assert (answer.status, answer.document["error"]["param"]) == (400, param)
        assert "out of memory" in answer.document["error"]["message"]
        assert it.engines[1].seen == []


@pytest.mark.parametrize("waits_s", [0, 0.2])
async def test_a_response_of_a_form_is_asked_of_the_engines_chat(
    bench: MakeBench, waits_s: float
) -> None:
    async def says_slowly(exchange: Exchange) -> None:
        await asyncio.sleep(waits_s)
        await says_hello(exchange)

    async with bench(ONE, says_slowly, sign_of_life_s=0.05) as it:
        asked = {"model": "standard", "input": "hello", "stream": True,
                 "text": {"format": {"type": "json_object"}}}  # fmt: skip
        answer = await it.client.ask("/v1/responses", asked)

        assert it.engines[0].seen[0].path == "/v1/chat/completions"
        events = [each for each in answer.events if isinstance(each, dict)]
        kinds = [each["type"] for each in events]
        assert (kinds.count("response.created"), kinds[-1]) == (1, "response.completed")
        assert {each["response"]["id"] for each in events if "response" in each} == {
            events[0]["response"]["id"]
        }
        assert events[-1]["response"]["output"][0]["content"][0]["text"] == "Hello"


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_stop_sequence_ends_the_work_of_the_engine_and_the_tokens_are_counted(
    bench: MakeBench, path: str
) -> None:
    async def talks(exchange: Exchange) -> None:
        if exchange.path.endswith("count_tokens"):
            texts = [each["content"] for each in exchange.document["messages"]]
            words = " ".join([exchange.document.get("system", ""), *texts]).split()
            await exchange.json({"input_tokens": len(words)})
            return
        await exchange.begin_events()
        while True:
            delta = {"type": "text_delta", "text": "one two STOP"}
            event = chunk("one two STOP", type="content_block_delta", delta=delta)
            await exchange.send(b"data: " + json.dumps(event).encode() + b"\n\n")
            await asyncio.sleep(0.001)

    async with bench(ONE, talks) as it:
        asked = {**HELLO, "stream": True, "max_tokens": 99, "stop": "STOP",
                 "stop_sequences": ["STOP"], "stream_options": {"include_usage": True}}  # fmt: skip
        answer = await it.client.ask(path, asked)

        await asyncio.wait_for(it.engines[0].left.wait(), 1)
        usage = [each["usage"] for each in answer.events if isinstance(each, dict)
                 and each.get("usage")][-1]  # fmt: skip
        assert usage.get("completion_tokens", usage.get("output_tokens")) == 2
        assert usage.get("prompt_tokens", usage.get("input_tokens")) >= 1


CLOUD = """
schema_version: 1
litellm: {url: "http://127.0.0.1:PORT1"}
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: big}], fallbacks: [cloud]}
  cloud: {upstreams: [{url: "http://127.0.0.1:PORT1", model: auto}]}
"""


async def test_the_cloud_gets_a_request_as_the_client_sent_it(bench: MakeBench) -> None:
    asked = {**HELLO, "model": "cloud", "n": 2, "stop": "x", "logprobs": True, "audio": {"a": 1}}

    async with bench(CLOUD, says_hello, says_hello) as it:
        answer = await it.client.ask("/v1/chat/completions", asked)

        assert answer.headers["x-mlx-stack-tier"] == "cloud"
        assert it.engines[1].seen[0].document == {**asked, "model": "auto"}


@pytest.mark.parametrize("is_stable", [True, False])
async def test_what_changes_each_turn_is_kept_from_an_engine_and_not_from_the_cloud(
    bench: MakeBench, is_stable: bool
) -> None:
    header = "x-anthropic-billing-header: cc_version=2.1.100.7b4; cc_entrypoint=cli; cch=eb6c6;"
    told = {"role": "system", "content": f"{header}\nBe brief."}
    asked = {**HELLO, "messages": [told, *HELLO["messages"]]}
    settings = f"{CLOUD}stable_prompts: {str(is_stable).lower()}\n"

    async with bench(settings, says_hello, says_hello) as it:
        await it.client.ask("/v1/chat/completions", asked)
        await it.client.ask("/v1/chat/completions", {**asked, "model": "cloud"})

        heard = [engine.seen[0].document["messages"][0]["content"] for engine in it.engines]
        assert heard == ["Be brief." if is_stable else told["content"], told["content"]]


async def test_a_mistake_never_reaches_the_cloud(bench: MakeBench) -> None:
    async def refuses(exchange: Exchange) -> None:
        await exchange.json({"detail": "no"}, status=422)

    async with bench(CLOUD, refuses, says_hello) as it:
        for asked in (HELLO, {**HELLO, "n": 2}, {**HELLO, "max_tokens": -1}):
            assert (await it.client.ask("/v1/chat/completions", asked)).status == 400
        assert it.engines[1].seen == []


async def test_what_an_upstream_must_be_shown_is_asked_for_each_time(bench: MakeBench) -> None:
    secrets = iter(["first", "second"])

    async with bench(
        ONE, says_hello, headers_for=lambda root: {"x-secret": f"{next(secrets)} {root[:7]}"}
    ) as it:
        for _ in range(2):
            await it.client.ask("/v1/chat/completions", HELLO)

        shown = [each.headers["x-secret"] for each in it.engines[0].seen]
        assert shown == ["first http://", "second http://"]
        assert "authorization" not in it.engines[0].seen[0].headers, "the client's own key stays"


async def test_a_model_that_has_to_start_first_keeps_its_client_waiting(bench: MakeBench) -> None:
    class Starter(NothingToStart):
        def __init__(self) -> None:
            self.steps: list[str] = []

        async def ready(self, model: str, priority: Priority) -> None:
            del priority
            self.steps.append(f"ready {model}")
            await asyncio.sleep(0.15)
            if model == "standard":
                raise UpstreamFailedError("it does not fit")

        def finished(self, model: str, keep_s: float | None = None) -> None:
            self.steps.append(f"finished {model} {keep_s}")

    starter = Starter()
    async with bench(TWO, says_hello, says_hello, activator=starter, sign_of_life_s=0.05) as it:
        answer = await it.client.ask("/v1/chat/completions", {**HELLO, "stream": True})

        assert b'"delta":{}' in answer.body
        assert b": x-mlx-stack-tier: fast" in answer.body
        assert starter.steps == ["ready standard", "ready fast", "finished fast None"]
        bad = await it.client.ask("/v1/chat/completions", {**HELLO, "n": 2})
        assert bad.status == 400
        assert len(starter.steps) == 3, "nothing is started for a request that is refused"


async def test_a_sound_is_heard_and_a_text_is_spoken(bench: MakeBench) -> None:
    form = (
        b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nstandard\r\n'
        b'--b\r\nContent-Disposition: form-data; name="response_format"\r\n\r\ntext\r\n'
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="/etc/x"\r\n\r\n'
        b"RIFF\x00\xff\r\n--b--\r\n"
    )

    async def speaks(exchange: Exchange) -> None:
        if exchange.path == "/v1/audio/speech":
            exchange.writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: audio/wav\r\ncontent-length: 6\r\n\r\n"
                b"RIFF\x00\xff"
            )
        else:
            await exchange.json({"text": "hello", "segments": []})

    async with bench(ONE, speaks) as it:
        kind = {"content-type": "multipart/form-data; boundary=b"}
        heard = await it.client.ask("/v1/audio/transcriptions", body=form, headers=kind)
        asked = {"model": "coder", "input": "a & b", "voice": "af", "response_format": "wav"}
        spoken = await it.client.ask("/v1/audio/speech", asked)

        assert (heard.body, heard.headers["content-type"]) == (
            b"hello\n",
            "text/plain; charset=utf-8",
        )
        sent = it.engines[0].seen[0]
        assert sent.path == "/v1/audio/transcriptions"
        assert b'name="model"\r\n\r\nqwen3-8b\r\n' in sent.body
        assert b'filename="sound"' in sent.body
        assert b"/etc" not in sent.body
        assert b"\r\n\r\nRIFF\x00\xff\r\n--" in sent.body
        assert spoken.body == b"RIFF\x00\xff"
        assert spoken.headers["content-type"] == "audio/wav"
        assert it.engines[0].seen[1].document["model"] == "qwen3-8b"


@pytest.mark.parametrize(
    ("path", "kind", "body", "said"),
    [
        ("/v1/audio/transcriptions", "application/json", b'{"model": "standard"}', "multipart"),
        ("/v1/chat/completions", "multipart/form-data; boundary=b", b"--b--", "JSON object"),
        (
            "/v1/audio/translations",
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nx\r\n--b--\r\n',
            "`file` is missing",
        ),
    ],
)
async def test_a_request_that_comes_in_the_wrong_form_is_refused(
    bench: MakeBench, path: str, kind: str, body: bytes, said: str
) -> None:
    async with bench(ONE, says_hello) as it:
        answer = await it.client.ask(path, body=body, headers={"content-type": kind})

        assert answer.status == 400
        assert said in answer.document["error"]["message"]
        assert not it.engines[0].seen


REPLICAS = """
schema_version: 1
models:
  standard:
    upstreams:
    - {url: "http://127.0.0.1:PORT0", model: big}
    - {url: "http://127.0.0.1:PORT1", model: big}
    max_concurrent: 1
"""


async def test_replicas_share_the_work_and_stand_in_for_each_other(bench: MakeBench) -> None:
    async def slowly(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await says_hello(exchange)

    async with bench(REPLICAS, slowly, slowly) as it:
        answers = await asyncio.gather(
            *(it.client.ask("/v1/chat/completions", HELLO) for _ in range(10))
        )
        assert {answer.status for answer in answers} == {200}
        assert [len(engine.seen) for engine in it.engines] == [5, 5]

        await it.engines[0].stop()
        for _ in range(4):
            answer = await it.client.ask("/v1/chat/completions", HELLO)
            assert answer.status == 200
            assert "x-mlx-stack-fallback-from" not in answer.headers


WITH_A_NODE = REPLICAS.replace('PORT1", model: big}', 'PORT1", model: large, node: studio}')


async def test_a_tier_that_another_mac_lacks_by_now_is_answered_here(bench: MakeBench) -> None:
    async def lacks_it(exchange: Exchange) -> None:
        said = {"message": "The model 'large' does not exist.", "code": "model_not_found"}
        await exchange.json({"error": said}, status=404)

    async with bench(WITH_A_NODE, says_hello, lacks_it) as it:
        answers = await asyncio.gather(
            *(it.client.ask("/v1/chat/completions", HELLO) for _ in range(10))
        )
        assert {answer.status for answer in answers} == {200}
        assert len(it.engines[0].seen) == 10
        assert 1 <= len(it.engines[1].seen) < 5  # it gets nothing for a while


async def test_an_engine_that_answers_is_asked_nothing_besides(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        for _ in range(20):
            await it.client.ask("/v1/chat/completions", {**HELLO, "stream": True})

        assert it.engines[0].questions == 0


async def test_models_are_listed_for_both_kinds_of_clients(bench: MakeBench) -> None:
    async with bench(ONE, says_hello) as it:
        listed = (await it.client.ask("/v1/models")).document
        assert [row["id"] for row in listed["data"]] == ["standard", "qwen3-8b", "coder"]
        assert {row["context_length"] for row in listed["data"]} == {4096}
        assert (await it.client.ask("/v1/models/coder")).document == listed["data"][2]

        version = {"anthropic-version": "2023-06-01"}
        listed = (await it.client.ask("/v1/models", headers=version)).document
        assert (listed["first_id"], listed["has_more"]) == ("standard", False)
        assert {row["type"] for row in listed["data"]} == {"model"}
        nobody = await it.client.ask("/v1/models/nobody", headers=version)
        assert nobody.document["error"]["type"] == "not_found_error"


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


async def test_a_client_that_hangs_up_at_the_last_event_has_had_its_answer(
    bench: MakeBench, tmp_path: Path
) -> None:
    async def ends_late(exchange: Exchange) -> None:
        await exchange.begin_events()
        used = {"prompt_tokens": 3, "completion_tokens": 2}
        for document in (chunk("Hello"), chunk("", usage=used)):
            await exchange.send(b"data: " + json.dumps(document).encode() + b"\n\n")
        await exchange.send(b"data: [DONE]\n\n")
        await asyncio.sleep(60)

    ledger = Ledger(tmp_path / "ledger.db")
    async with bench(ONE, ends_late, ledger=ledger) as it:
        reader, writer = await it.client.open("/v1/chat/completions", {**HELLO, "stream": True})
        await reader.readuntil(b"[DONE]")
        writer.close()
        await asyncio.wait_for(it.engines[0].left.wait(), 1)
    ledger.close()

    (row,) = read_requests(tmp_path / "ledger.db")
    assert (row.status, row.prompt_tokens, row.completion_tokens) == (200, 3, 2)


async def test_requests_wait_at_the_gateway_and_not_in_the_engine(bench: MakeBench) -> None:
    go_on = asyncio.Event()
    async with bench(LIMITED, says_hello_after(go_on)) as it:
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
        counted = [each for engine in it.engines for each in engine.seen if "count" in each.path]
        assert max(len(each.body) for each in counted) < 30_000, "its beginning was enough"


async def test_a_hung_tier_is_left_and_asked_nothing_until_it_answers_again(
    bench: MakeBench,
) -> None:
    quick = EngineTimeouts(soon_s=0.02, question_s=1.0, silence_s=0.1, in_flight_s=5)

    async with bench(TWO, says_hello, says_hello, timeouts=quick) as it:
        it.engines[0].hears.clear()
        answer = await it.client.ask("/v1/chat/completions", HELLO)
        assert answer.headers["x-mlx-stack-tier"] == "fast"

        seen = len(it.engines[0].seen)
        began = asyncio.get_running_loop().time()
        await it.client.ask("/v1/chat/completions", HELLO)
        assert asyncio.get_running_loop().time() - began < quick.question_s
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
        for _ in range(10):  # in steps, so that a busy machine holds up both sides alike
            await asyncio.sleep(0.06)
        await exchange.send(b'event: x\ndata: {"type":"x"}\n\ndata: [DONE]\n\n')
        await exchange.end()

    async with bench(ONE, reads_long, sign_of_life_s=0.1) as it:
        question = {**HELLO, "input": "x", "max_tokens": 5, "stream": True}
        answer = await it.client.ask(path, question)

        assert answer.body.count(sign) >= 2
        assert b"heartbeat" not in answer.body


async def test_the_settings_are_read_again_without_dropping_a_request(bench: MakeBench) -> None:
    go_on = asyncio.Event()
    async with bench(ONE, says_hello_after(go_on)) as it:
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


async def test_who_asks_how_it_goes_learns_what_runs_and_what_waits(bench: MakeBench) -> None:
    goes_on = asyncio.Event()

    async def waits(exchange: Exchange) -> None:
        await goes_on.wait()
        await says_hello(exchange)

    async with bench(ONE, waits) as it:
        asked = [
            asyncio.ensure_future(it.client.ask("/v1/chat/completions", HELLO)) for _ in range(2)
        ]
        await it.engines[0].asked.wait()
        (row,) = (await it.client.ask("/v1/status", method="GET")).document["models"]
        goes_on.set()
        await asyncio.gather(*asked)
        (after,) = (await it.client.ask("/v1/status", method="GET")).document["models"]

    assert row["name"] == "standard"
    assert row["requests_running"] + row["requests_waiting"] in (1, 2)
    assert (after["requests_running"], after["requests_waiting"]) == (0, 0)
