"""Messages: one test a repair, named by its symptom."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.anthropic_messages import CountTokens, Messages
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.tool_names import engine_name

MESSAGES = Messages()
USER = {"role": "user", "content": "hello"}
LONG = "mcp__" + "x" * 90
TOOL = {"name": LONG, "description": "d", "input_schema": {"type": "object"}}


def read(*, sees_images: bool | None = None, **fields: object) -> Call:
    asked = {"max_tokens": 100, "messages": [USER], **fields}
    return MESSAGES.read(read_fields(json.dumps(asked).encode()), sees_images=sees_images)


def sent(call: Call) -> dict[str, Any]:
    return json.loads(call.fields.encode())


def event(kind: str, **fields: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def delta(text: str, index: int = 0) -> bytes:
    said = {"type": "text_delta", "text": text}
    return event("content_block_delta", index=index, delta=said)


START = event("message_start", message={"usage": {"input_tokens": 0, "output_tokens": 0}})
TEXT = event("content_block_start", index=0, content_block={"type": "text", "text": ""})
END_TEXT = event("content_block_stop", index=0)
STOP = event("message_stop")


def ended(reason: str = "end_turn", output_tokens: int = 2) -> bytes:
    usage = {"output_tokens": output_tokens}
    said = {"stop_reason": reason, "stop_sequence": None}
    return event("message_delta", delta=said, usage=usage)


def relayed(call: Call, *events: bytes) -> tuple[EventStream, list[dict[str, Any]]]:
    """The stream, and the documents of the events that a client gets."""
    stream = MESSAGES.stream(call)
    said = b""
    for each in events:
        said += stream.feed(each)
    lines = (stream.opening + said).split(b"\n")
    return stream, [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def test_a_streamed_answer_says_how_long_the_prompt_is() -> None:
    call = read(stream=True).counted(42)

    stream, documents = relayed(call, START, TEXT, delta("Hi"), END_TEXT, ended(), STOP)

    assert documents[0]["message"]["usage"]["input_tokens"] == 42
    assert documents[-2]["usage"] == {"output_tokens": 2, "input_tokens": 42}
    assert stream.usage == Usage(prompt_tokens=42, completion_tokens=2)
    assert stream.has_ended


def test_an_engine_that_says_it_itself_is_believed() -> None:
    start = event("message_start", message={"usage": {"input_tokens": 50}})

    stream, documents = relayed(read(stream=True).counted(42), start, TEXT, delta("Hi"))

    assert documents[0]["message"]["usage"]["input_tokens"] == 50
    assert stream.usage.prompt_tokens == 50


@pytest.mark.parametrize(
    ("output_tokens", "reason", "said"),
    [(100, "end_turn", "max_tokens"), (99, "end_turn", "end_turn"), (100, "tool_use", "tool_use")],
)
def test_a_streamed_answer_that_was_cut_says_max_tokens(
    output_tokens: int, reason: str, said: str
) -> None:
    _, documents = relayed(read(stream=True), START, delta("Hi"), ended(reason, output_tokens))

    assert documents[-1]["delta"]["stop_reason"] == said


def test_a_thinking_block_has_a_signature() -> None:
    block = {"type": "thinking", "thinking": "hm"}
    start = event("content_block_start", index=0, content_block=block)

    _, documents = relayed(read(stream=True), START, start, delta("x"))
    answer, _ = MESSAGES.whole(json.dumps({"content": [block]}).encode(), read())

    assert documents[1]["content_block"]["signature"] == ""
    assert json.loads(answer)["content"][0]["signature"] == ""


def test_a_whole_answer_has_every_field_of_anthropics() -> None:
    answer, usage = MESSAGES.whole(
        b'{"content":[{"type":"text","text":"Hi"}],"usage":{"input_tokens":3,"output_tokens":1}}',
        read(),
    )

    assert json.loads(answer)["stop_sequence"] is None
    assert usage == Usage(prompt_tokens=3, completion_tokens=1)


def test_a_whole_answer_ends_before_its_stop_sequence_and_names_it() -> None:
    content = [{"type": "text", "text": "one two three"}, {"type": "tool_use", "name": "f"}]
    body = {"content": content, "stop_reason": "end_turn"}

    answer, _ = MESSAGES.whole(json.dumps(body).encode(), read(stop_sequences=["three", "two"]))

    document = json.loads(answer)
    assert document["content"] == [{"type": "text", "text": "one "}]
    assert (document["stop_reason"], document["stop_sequence"]) == ("stop_sequence", "two")


@given(st.lists(st.sampled_from(["one", " two", " thr", "ee", " three", "e", ""]), max_size=12))
def test_a_streamed_answer_ends_before_its_stop_sequence(words: list[str]) -> None:
    call = read(stream=True, stop_sequences=[" three"])
    events = [START, TEXT, *map(delta, words), END_TEXT, ended(), STOP]

    stream, documents = relayed(call, *events)

    text = "".join(words)
    said = "".join(each["delta"].get("text", "") for each in documents if "delta" in each)
    assert said == text.partition(" three")[0]
    assert stream.is_over is (" three" in text)
    if not stream.is_over:
        assert documents[-1]["type"] == "message_stop"


def test_a_stopped_stream_closes_its_block_and_names_the_sequence() -> None:
    stream, _ = relayed(read(stream=True, stop_sequences=["b"]), START, TEXT, delta("ab"))

    ending = stream.ending(Usage(prompt_tokens=9, completion_tokens=1)).split(b"\n\n")

    block, how, last = (json.loads(each.split(b"data: ")[1]) for each in ending[:-1])
    assert block == {"type": "content_block_stop", "index": 0}
    assert how["delta"] == {"stop_reason": "stop_sequence", "stop_sequence": "b"}
    assert how["usage"] == {"input_tokens": 9, "output_tokens": 1}
    assert last == {"type": "message_stop"}


def test_thinking_and_tools_are_not_cut() -> None:
    thought = {"type": "thinking_delta", "thinking": "abc"}
    call = read(stream=True, stop_sequences=["b"])

    stream, documents = relayed(
        call, START, event("content_block_delta", index=0, delta=thought), delta("c", 1)
    )

    assert documents[1]["delta"] == thought
    assert not stream.is_over


def test_a_tool_result_comes_before_the_text_of_the_same_message() -> None:
    result = {"type": "tool_result", "tool_use_id": "x", "content": "sunny"}
    text = {"type": "text", "text": "and now?"}

    use = {"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f"}]}

    for blocks in ([text, result], [result, text]):
        messages = sent(read(messages=[USER, use, {"role": "user", "content": blocks}]))["messages"]
        assert [each["content"] for each in messages[2:]] == [[result], [text]]


def test_a_tool_result_without_its_call_is_refused() -> None:
    result = {"type": "tool_result", "tool_use_id": "x", "content": "sunny"}

    with pytest.raises(ApiError, match="tool_use"):
        read(messages=[USER, {"role": "user", "content": [result]}])


def test_the_form_of_an_answer_goes_where_the_engine_looks_for_it() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": form, "effort": "low"}}, {"output_format": form}):
        call = read(**fields)
        asked = sent(call)
        assert asked["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert call.form_param == "output_config"
        assert not fields.keys() & asked.keys()
    assert not read(output_config={"effort": "low"}).form_param
    with pytest.raises(ApiError, match="json_schema"):
        read(output_config={"format": {"type": "xml"}})


def test_a_long_tool_name_is_shortened_and_comes_back_as_it_was() -> None:
    use = {"type": "tool_use", "id": "x", "name": LONG, "input": {}}
    call = read(
        tools=[TOOL],
        tool_choice={"type": "tool", "name": LONG},
        messages=[USER, {"role": "assistant", "content": [use]}, USER],
    )

    body = sent(call)
    short = engine_name(LONG)
    assert len(short) == 64
    assert body["tools"] == [{**TOOL, "name": short}]
    assert body["tool_choice"]["name"] == short
    assert body["messages"][1]["content"][0]["name"] == short

    block = {**use, "name": short}
    answer, _ = MESSAGES.whole(json.dumps({"content": [block]}).encode(), call)
    _, documents = relayed(call, START, event("content_block_start", index=1, content_block=block))
    assert json.loads(answer)["content"][0]["name"] == LONG
    assert documents[-1]["content_block"]["name"] == LONG


def test_a_document_of_plain_text_is_read_and_any_other_refused() -> None:
    source = {"type": "text", "media_type": "text/plain", "data": "the document"}
    document = {"type": "document", "source": source}

    messages = sent(read(messages=[{"role": "user", "content": [document]}]))["messages"]
    assert messages[0]["content"] == [{"type": "text", "text": "the document"}]

    pdf = {"type": "document", "source": {"type": "base64", "data": "AAAA"}}
    with pytest.raises(ApiError, match="plain-text"):
        read(messages=[{"role": "user", "content": [pdf]}])


def test_an_image_for_a_model_that_sees_nothing_is_refused() -> None:
    image = {"type": "image", "source": {"type": "base64", "data": "AAAA"}}
    messages = [{"role": "user", "content": [image]}]

    assert sent(read(messages=messages))["messages"] == messages
    with pytest.raises(ApiError, match="can't read images"):
        read(messages=messages, sees_images=False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages.0.role"),
        ({"messages": [USER, {"role": "user"}]}, "messages.1"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages.0.content.0"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "needs `text`"),
        ({"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "search_result"),
        ({"system": 5}, "system"),
        ({"system": [{"type": "text", "text": 5}]}, "system"),
        ({"tools": [{}]}, "tools.0"),
        ({"tools": [{"name": "x" * 129}]}, "tools.0.name"),
        ({"tools": "x"}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "f"}}, "there is no such tool"),
        ({"tool_choice": {"type": "tool", "name": []}}, "there is no such tool"),
        ({"stop_sequences": 5}, "stop_sequences"),
        ({"stop_sequences": [5]}, "stop_sequences"),
        ({"metadata": "x"}, "metadata"),
        ({"temperature": "hot"}, "temperature"),
        ({"stream": 1}, "stream"),
    ],
)
def test_what_the_engine_answers_500_to_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)

    assert caught.value.status == 400
    assert said in caught.value.message


@pytest.mark.parametrize(
    "fields",
    [
        {"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}]},
        {"thinking": {"type": "enabled", "budget_tokens": 1024}, "metadata": {"user_id": "x"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search", "max_uses": 5}]},
        {"messages": [{"role": "system", "content": "x"}, USER]},
        {"messages": [{"role": "assistant", "content": []}, USER]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            {"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "x"}]}, USER]},
        {"messages": [{"role": "assistant", "content": [
            {"type": "tool_use", "id": "x", "name": "f", "input": {}},
            {"type": "tool_use", "id": "y", "name": "f", "input": {}}]},
            {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "x", "is_error": True},
            {"type": "tool_result", "tool_use_id": "y",
             "content": [{"type": "image", "source": {"type": "base64", "data": "A"}}]}]}]},
        {"stop_sequences": "x", "top_k": 5, "tool_choice": {"type": "any"}, "tools": [TOOL]},
    ],
)  # fmt: skip
def test_what_claude_code_sends_passes(fields: dict[str, object]) -> None:
    assert sent(read(**fields))["messages"]


def test_errors_are_of_anthropics_kinds() -> None:
    kinds = {
        status: json.loads(MESSAGES.error(ApiError(status, "m")))["error"]["type"]
        for status in (400, 401, 403, 404, 408, 413, 429, 500, 502, 503)
    }

    assert kinds == {
        400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
        404: "not_found_error", 408: "invalid_request_error", 413: "request_too_large",
        429: "rate_limit_error", 500: "api_error", 502: "api_error", 503: "overloaded_error",
    }  # fmt: skip
    assert MESSAGES.error_event(ApiError(503, "m")).startswith(b'event: error\ndata: {"type":"err')


def test_the_opening_waits_for_the_first_word() -> None:
    stream = MESSAGES.stream(read(stream=True))

    assert stream.feed(START + event("ping") + TEXT) == b""
    assert stream.feed(delta("Hi")).endswith(delta("Hi"))
    assert stream.opening.count(b"event: ") == 2


def test_an_error_event_is_noticed() -> None:
    broken = event("error", error={"type": "api_error", "message": "dead"})

    stream, _ = relayed(read(stream=True), START, broken, STOP)

    assert str(stream.failure) == "its stream contains an error: dead"


def test_tokens_are_counted_of_the_request_that_would_be_sent() -> None:
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}
    use = {"type": "tool_use", "id": "t1", "name": LONG, "input": {}}
    fields = {
        "system": "be kind",
        "tools": [TOOL],
        "messages": [
            USER,
            {"role": "assistant", "content": [use]},
            {"role": "user", "content": [{"type": "text", "text": "x"}, result]},
        ],
    }

    call = CountTokens().read(read_fields(json.dumps(fields).encode()), sees_images=None)

    assert MESSAGES.counted(call) == MESSAGES.counted(read(**fields, stream=True, temperature=1))
    assert sent(call)["tools"][0]["name"] == engine_name(LONG)
    assert len(sent(call)["messages"]) == 4, "the result stands before the text"


def a_tool_use(index: int) -> list[bytes]:
    block = {"type": "tool_use", "id": f"t{index}", "name": "f", "input": {}}
    said = {"type": "input_json_delta", "partial_json": "{}"}
    return [
        event("content_block_start", index=index, content_block=block),
        event("content_block_delta", index=index, delta=said),
        event("content_block_stop", index=index),
    ]


def test_a_call_without_words_has_no_empty_block_of_text_before_it() -> None:
    first = a_tool_use(1), a_tool_use(2)
    for call in (read(stream=True), read(stream=True, stop_sequences=["x"])):
        _, documents = relayed(call, START, TEXT, END_TEXT, *first[0], *first[1], STOP)
        begun = [each for each in documents if each["type"] == "content_block_start"]
        assert [each["content_block"]["type"] for each in begun] == ["tool_use", "tool_use"]
        assert [each["index"] for each in documents if "index" in each] == [0, 0, 0, 1, 1, 1]

    call = read(stream=True, tool_choice={"type": "auto", "disable_parallel_tool_use": True})
    _, documents = relayed(call, START, TEXT, END_TEXT, *first[0], *first[1], ended(), STOP)
    assert len(documents) == 1 + 3 + 2


def test_an_answer_of_nothing_is_an_empty_block_of_text() -> None:
    for call in (read(stream=True), read(stream=True, stop_sequences=["x"])):
        _, documents = relayed(call, START, TEXT, END_TEXT, ended(), STOP)
        assert [each["type"] for each in documents][1:3] == [
            "content_block_start",
            "content_block_stop",
        ]

    stream, documents = relayed(read(stream=True, stop_sequences=["Hi"]), START, TEXT, delta("Hi"))
    assert documents[1:] == []
    assert stream.ending(Usage()).startswith(TEXT.partition(b"\ndata")[0])


def test_a_second_call_is_dropped_where_the_client_takes_one() -> None:
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    call = read(stream=True, tools=[TOOL], tool_choice=choice)
    first = [START, TEXT, delta("I look."), END_TEXT, *a_tool_use(1)]

    stream, documents = relayed(call, *first, *a_tool_use(2), ended("tool_use"), STOP)

    assert {each["index"] for each in documents if "index" in each} == {0, 1}
    assert len(documents) == len(first) + 2
    assert stream.has_ended
    blocks = [{"type": "text", "text": "x"}, {"type": "tool_use", "name": "f", "id": "1"},
              {"type": "tool_use", "name": "f", "id": "2"}]  # fmt: skip
    whole, _ = MESSAGES.whole(json.dumps({"content": blocks}).encode(), call)
    assert json.loads(whole)["content"] == blocks[:2]
