"""Ollama's API: what the engine gets, and the lines that the client gets."""

import json
import math
from typing import Any

import pytest

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.ollama import OllamaChat, OllamaEmbed, OllamaGenerate

CHAT, GENERATE, EMBED = OllamaChat(), OllamaGenerate(), OllamaEmbed()
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkAAIAAAoAAv/lxKUAAAAASUVORK5CYII="
)
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}
DOTTED = {"type": "function", "function": {"name": "home.weather", "parameters": SCHEMA}}
HELLO = [{"role": "user", "content": "hello"}]
CALL = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
DONE = b"data: [DONE]\n\n"
USED = {"prompt_tokens": 3, "completion_tokens": 2}


def read(api: Any = CHAT, *, sees_images: bool | None = None, **fields: object) -> Call:
    given_fields = {"model": "m", **({"messages": HELLO} if api is CHAT else {}), **fields}
    return api.read(read_fields(json.dumps(given_fields).encode()), sees_images=sees_images)


def sent(api: Any = CHAT, **fields: Any) -> dict[str, Any]:
    return json.loads(read(api, **fields).fields.encode())


def chunk(finish: str | None = None, usage: object = None, **delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document: dict[str, object] = {"id": "c", "choices": [choice]}
    if usage:
        document["usage"] = usage
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def relayed(api: Any, call: Call, *pieces: bytes) -> tuple[EventStream, list[dict[str, Any]]]:
    """The stream, and the lines that a client gets."""
    stream = api.stream(call)
    said = b"".join([stream.feed(each) for each in pieces])
    return stream, [json.loads(line) for line in (stream.opening + said).splitlines()]


def test_ollama_streams_unless_it_is_told_not_to() -> None:
    assert CHAT.streams(read_fields(b'{"messages": [1]}'))
    assert not CHAT.streams(read_fields(b'{"messages": [1], "stream": false}'))
    assert not EMBED.streams(read_fields(b'{"input": "x"}'))
    assert sent()["stream"] is True
    assert "stream" not in sent(stream=False)


def test_options_go_to_the_engine_under_its_names() -> None:
    options = {"num_predict": 7, "stop": "x", "temperature": 0.5, "top_k": 4, "seed": 1}
    options |= {"repeat_penalty": 1.1, "num_ctx": 8192, "num_gpu": 99, "min_p": 0.1}

    asked = sent(options=options)

    assert asked["max_tokens"] == 7
    assert asked["stop"] == ["x"]
    assert (asked["temperature"], asked["top_k"], asked["seed"]) == (0.5, 4, 1)
    assert (asked["repetition_penalty"], asked["min_p"]) == (1.1, 0.1)
    assert not {"options", "num_ctx", "num_gpu", "num_predict"} & set(asked)


@pytest.mark.parametrize("limit", [-2, -1, 0])
def test_a_limit_below_one_is_none(limit: int) -> None:
    assert "max_tokens" not in sent(options={"num_predict": limit})


def test_a_form_is_asked_for_as_the_engine_knows_it() -> None:
    assert sent(format="json")["response_format"] == {"type": "json_object"}
    schema = sent(format=SCHEMA)["response_format"]["json_schema"]["schema"]
    assert schema == SCHEMA
    assert "response_format" not in sent(format="")
    assert read(format="json").form_param == "format"


def test_thinking_is_switched_on_and_off() -> None:
    assert sent(think=False)["enable_thinking"] is False
    assert sent(think=True)["enable_thinking"] is True
    assert sent(think="low")["reasoning_effort"] == "low"
    assert "enable_thinking" not in sent()


def test_a_result_gets_the_id_of_the_call_that_it_answers() -> None:
    second = {"function": {"name": "time", "arguments": {}}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL, second]},
        {"role": "tool", "content": "noon", "tool_name": "time"},
        {"role": "tool", "content": "sunny"},
    ]

    _, assistant, noon, sunny = sent(messages=messages)["messages"]

    weather, time = assistant["tool_calls"]
    assert weather["function"] == {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert (noon["tool_call_id"], sunny["tool_call_id"]) == (time["id"], weather["id"])
    assert assistant["reasoning_content"] == "hm"


def test_an_image_is_sent_as_what_it_is() -> None:
    message = {"role": "user", "content": "what?", "images": [PIXEL]}
    text, image = sent(messages=[message])["messages"][0]["content"]
    assert text == {"type": "text", "text": "what?"}
    assert image["image_url"]["url"] == f"data:image/png;base64,{PIXEL}"

    with pytest.raises(ApiError, match="can't read images"):
        read(messages=[message], sees_images=False)


@pytest.mark.parametrize("image", ["", "hello", "aGVsbG8gd29ybGQgMTIzNA==", "../../etc/passwd"])
def test_what_is_no_image_is_refused(image: str) -> None:
    with pytest.raises(ApiError, match="images"):
        read(messages=[{"role": "user", "content": "x", "images": [image]}])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "nobody"}]}, "role"),
        ({"messages": [{"role": "user", "content": 1}]}, "content"),
        ({"options": {"temperature": "hot"}}, "temperature"),
        ({"options": {"num_predict": "many"}}, "num_predict"),
        ({"options": []}, "options"),
        ({"format": "xml"}, "format"),
        ({"think": "hard"}, "think"),
        ({"keep_alive": "soon"}, "keep_alive"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "web_search"}]}, "web_search"),
        ({"stream": "yes"}, "stream"),
    ],
)
def test_what_ollama_would_refuse_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ApiError, match=said):
        read(**fields)


@pytest.mark.parametrize("name", ["suffix", "template", "context"])
def test_what_no_engine_does_is_refused_in_words(name: str) -> None:
    with pytest.raises(ApiError, match=name):
        read(GENERATE, prompt="x", **{name: [1] if name == "context" else "x"})


@pytest.mark.parametrize("keep_alive", [None, 0.5, -1, "5m", "-1", "1h30m", "24h", "", "-1s"])
def test_a_request_without_messages_makes_the_model_ready(keep_alive: object) -> None:
    for call in (read(messages=[], keep_alive=keep_alive), read(GENERATE, keep_alive=keep_alive)):
        answer = json.loads(call.ready_answer)
        assert (answer["model"], answer["done"], answer["done_reason"]) == ("m", True, "load")
        assert not call.streams


@pytest.mark.parametrize("texts", [{}, {"input": ""}, {"input": []}])
@pytest.mark.parametrize("keep_alive", ["5m", 0])
def test_an_embedder_without_texts_is_made_ready_or_unloaded(
    texts: dict[str, object], keep_alive: object
) -> None:
    call = read(EMBED, keep_alive=keep_alive, **texts)

    assert call.unloads is (keep_alive == 0)
    assert json.loads(call.ready_answer)["embeddings"] == []


@pytest.mark.parametrize("keep_alive", [0, "0", "0s", "0m0s"])
def test_a_request_without_messages_and_time_unloads_the_model(keep_alive: object) -> None:
    for call in (read(messages=[], keep_alive=keep_alive), read(GENERATE, keep_alive=keep_alive)):
        assert call.unloads
        assert json.loads(call.ready_answer)["done_reason"] == "unload"
    answered = read(keep_alive=keep_alive)
    assert not answered.unloads
    assert (answered.ready_answer, answered.keep_s) == (b"", 0)


@pytest.mark.parametrize(
    ("keep_alive", "seconds"),
    [(None, None), ("", None), (0.5, 0.5), ("300", 300), ("1h30m", 5400), ("1.5s", 1.5),
     ("2ms", 0.002), (-1, math.inf), ("-1", math.inf), ("-5m", math.inf), ("9" * 400, math.inf)],
)  # fmt: skip
def test_how_long_a_model_is_kept_is_read_as_go_writes_it(
    keep_alive: object, seconds: float | None
) -> None:
    assert read(keep_alive=keep_alive).keep_s == pytest.approx(seconds)
    assert read(EMBED, input="x", keep_alive=keep_alive).keep_s == pytest.approx(seconds)


def test_a_prompt_is_a_message_and_a_raw_one_a_text() -> None:
    asked = sent(GENERATE, prompt="hello", system="be brief", stream=False)
    roles = [(each["role"], each["content"]) for each in asked["messages"]]
    assert roles == [("system", "be brief"), ("user", "hello")]

    raw = read(GENERATE, prompt="hello", raw=True)
    assert raw.path == "/v1/completions"
    assert json.loads(raw.fields.encode())["prompt"] == "hello"


def test_the_lines_of_a_stream_say_what_the_engine_says() -> None:
    call = read()
    stream, lines = relayed(
        CHAT, call, chunk(role="assistant"), chunk(reasoning_content="hm"), chunk(content="Hel"),
        chunk(content="lo"), chunk("length", usage=USED), DONE,
    )  # fmt: skip

    said = [line["message"] for line in lines]
    assert [each.get("thinking") for each in said] == ["hm", None, None, None]
    assert "".join(each["content"] for each in said) == "Hello"
    assert [line["done"] for line in lines] == [False, False, False, True]
    assert {line["model"] for line in lines} == {"m"}
    last = lines[-1]
    assert (last["done_reason"], last["prompt_eval_count"], last["eval_count"]) == ("length", 3, 2)
    assert last["total_duration"] >= last["eval_duration"] >= 0
    assert stream.has_ended
    assert stream.usage == Usage(3, None, 2)


def test_a_call_comes_in_one_piece_under_the_name_that_the_client_gave() -> None:
    call = read(tools=[TOOL, DOTTED])
    short = json.loads(call.fields.encode())["tools"][1]["function"]["name"]
    assert "." not in short
    begun = {"index": 0, "id": "c1", "function": {"name": short, "arguments": '{"ci'}}
    more = {"index": 0, "function": {"arguments": 'ty": "Paris"}'}}
    _, lines = relayed(
        CHAT, call, chunk(tool_calls=[begun]), chunk(tool_calls=[more]), chunk("tool_calls"), DONE
    )

    assert len(lines) == 2
    (called,) = lines[0]["message"]["tool_calls"]
    assert called["function"]["name"] == "home.weather"
    assert called["function"]["arguments"] == {"city": "Paris"}
    assert lines[1]["done_reason"] == "stop"


def test_a_call_without_an_object_is_said_as_text() -> None:
    begun = {"index": 0, "id": "c1", "function": {"name": "weather", "arguments": "[1"}}
    _, lines = relayed(CHAT, read(tools=[TOOL]), chunk(tool_calls=[begun]), DONE)

    assert lines[0]["message"] == {"role": "assistant", "content": "weather [1"}


def test_a_stop_sequence_ends_the_lines() -> None:
    call = read(options={"stop": ["lo"]})
    stream, lines = relayed(CHAT, call, chunk(content="Hel"), chunk(content="lo, you"))

    assert stream.is_over
    assert "".join(line["message"]["content"] for line in lines) == "Hel"
    last = json.loads(stream.ending(Usage(3, None, 1)))
    assert (last["done"], last["done_reason"], last["eval_count"]) == (True, "stop", 1)


def test_a_whole_answer_has_ollamas_fields() -> None:
    call = read(stream=False, tools=[TOOL])
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    message = {"content": None, "reasoning_content": "hm",
               "tool_calls": [{"id": "c1", "function": function}]}  # fmt: skip
    choice = {"message": message, "finish_reason": "tool_calls"}
    body, usage = CHAT.whole(json.dumps({"choices": [choice], "usage": USED}).encode(), call)

    answer = json.loads(body)
    called = {"index": 0, "name": "weather", "arguments": {"city": "Paris"}}
    assert answer["message"] == {
        "role": "assistant", "content": "", "thinking": "hm",
        "tool_calls": [{"id": "c1", "function": called}],
    }  # fmt: skip
    assert (answer["done"], answer["done_reason"], answer["eval_count"]) == (True, "stop", 2)
    assert usage == Usage(3, None, 2)


def test_a_generated_text_is_a_response() -> None:
    for raw in (False, True):
        call = read(GENERATE, prompt="x", raw=raw, stream=False)
        said = {"text": "hello"} if raw else {"message": {"content": "hello"}}
        body, _ = GENERATE.whole(json.dumps({"choices": [said]}).encode(), call)
        assert json.loads(body)["response"] == "hello"

        streamed = read(GENERATE, prompt="x", raw=raw)
        piece = {"text": "hello"} if raw else {"delta": {"content": "hello"}}
        event = b"data: " + json.dumps({"choices": [piece]}).encode() + b"\n\n"
        _, lines = relayed(GENERATE, streamed, event, DONE)
        assert [line["response"] for line in lines] == ["hello", ""]


def embedded(call: Call, answer: dict[str, Any]) -> dict[str, Any]:
    """What the client gets for an engine's answer for all texts."""
    assert call.texts is not None
    part = call.texts.read(json.dumps(answer).encode(), len(call.texts.all))
    return json.loads(call.texts.joined([part])[0])


def test_embeddings_come_in_the_order_of_the_texts() -> None:
    call = read(EMBED, input=["a", "b"], keep_alive="5m", truncate=True)
    assert call.texts is not None
    assert json.loads(call.texts.asked(["a"]).encode()) == {"model": "m", "input": ["a"]}
    rows = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    answer = embedded(call, {"data": rows, "usage": {"prompt_tokens": 2}})
    assert (answer["embeddings"], answer["prompt_eval_count"]) == ([[1.0], [2.0]], 2)


def test_embeddings_are_shortened_as_openais_are() -> None:
    call = read(EMBED, input="a", dimensions=1)
    rows = [{"index": 0, "embedding": [0.6, 0.8]}]

    assert embedded(call, {"data": rows})["embeddings"] == [[1.0]]


def test_an_error_is_a_text() -> None:
    problem = ApiError(404, "The model 'x' does not exist.")
    assert json.loads(CHAT.error(problem)) == {"error": problem.message}
    assert CHAT.error_event(problem).endswith(b"}\n")


def test_an_engine_that_fails_is_said_in_a_line() -> None:
    error = b'data: {"error": {"message": "out of memory", "code": 500}}\n\n'
    stream, lines = relayed(CHAT, read(), chunk(content="Hel"), error)

    assert lines[-1] == {"error": "out of memory"}
    assert isinstance(stream.failure, UpstreamFailedError)


def test_who_answers_is_said_in_a_line_where_the_head_has_gone() -> None:
    line = json.loads(CHAT.late_headers([(b"x-mlx-stack-tier", b"fast")], "m"))
    assert (line["x-mlx-stack-tier"], line["done"]) == ("fast", False)
    assert line["message"]["content"] == ""
