"""Messages that an engine answers as a chat: what it gets, and what the client gets."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.messages_by_chat import CountTokensByChat, MessagesByChat
from mlx_gateway.protocols.tool_names import engine_name

MESSAGES, COUNTING = MessagesByChat(), CountTokensByChat()
USER = {"role": "user", "content": "hello"}
LONG = "mcp__" + "x" * 90
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "weather", "description": "d", "input_schema": SCHEMA}
USE = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Paris"}}
ASKS = {"role": "assistant", "content": [USE]}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
USAGE = {
    "prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13,
    "prompt_tokens_details": {"cached_tokens": 5},
}  # fmt: skip
ONE_CALL = {"type": "auto", "disable_parallel_tool_use": True}
DONE = b"data: [DONE]\n\n"


def read(api: MessagesByChat | CountTokensByChat = MESSAGES, *, sees_images: bool | None = False,
         **fields: object) -> Call:  # fmt: skip
    asked = {"model": "m", "max_tokens": 100, "messages": [USER], **fields}
    given = read_fields(json.dumps(asked).encode())
    call = api.read(given, sees_images=sees_images)
    return api.by_chat(call, given, sees_images=sees_images)


def sent(**fields: Any) -> dict[str, Any]:
    return json.loads(read(**fields).fields.encode())


def result(content: object = None, *others: object, **more: object) -> list[dict[str, Any]]:
    """A conversation that ends with the result of a tool, and what stands around it."""
    block = {"type": "tool_result", "tool_use_id": "t1", "content": content, **more}
    return [USER, ASKS, {"role": "user", "content": [block, *others]}]


def chunk(finish: str | None = None, **delta: object) -> bytes:
    """A piece of an answer as mlx-lm writes it."""
    choice = {"index": 0, "finish_reason": finish, "delta": {"role": "assistant", **delta}}
    document = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "qwen",
                "created": 1, "choices": [choice]}  # fmt: skip
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def called(index: int, arguments: str, **first: str) -> dict[str, Any]:
    function = {name: first[name] for name in ("name",) if name in first}
    more = {"id": first["id"], "type": "function"} if "id" in first else {}
    return {"index": index, **more, "function": {**function, "arguments": arguments}}


KEEPALIVE = b": keepalive 2048/4096\n\n"
USED = b"data: " + json.dumps({"model": "qwen", "choices": [], "usage": USAGE}).encode() + b"\n\n"


def relayed(call: Call, *pieces: bytes) -> tuple[EventStream, list[dict[str, Any]]]:
    """The stream, and the documents of the events that a client gets, each under its name."""
    stream = MESSAGES.stream(call)
    said = b"".join([stream.feed(each) for each in pieces])
    if stream.is_over:
        said += stream.ending(Usage(prompt_tokens=9, completion_tokens=1))
    documents: list[dict[str, Any]] = []
    for event in (stream.opening + said).split(b"\n\n")[:-1]:
        name, data = event.split(b"\n")
        documents.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + documents[-1]["type"].encode()
    return stream, documents


def rebuilt(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """The message that a client makes of events, which must be in order."""
    first, *others = documents
    assert first["type"] == "message_start"
    message: dict[str, Any] = first["message"]
    is_open = False
    for each in others[:-2]:
        index = len(message["content"]) - (each["type"] != "content_block_start")
        assert (each["index"], is_open) == (index, each["type"] != "content_block_start")
        match each["type"]:
            case "content_block_start":
                message["content"].append({**each["content_block"], "json": ""})
            case "content_block_delta":
                block, delta = message["content"][-1], dict(each["delta"])
                assert delta.pop("type") in ("text_delta", "thinking_delta", "input_json_delta")
                ((key, piece),) = delta.items()
                block[{"partial_json": "json"}.get(key, key)] += piece
        is_open = each["type"] != "content_block_stop"
    assert not is_open
    for block in message["content"]:
        if arguments := block.pop("json"):
            block["input"] = json.loads(arguments)
    assert others[-1] == {"type": "message_stop"}
    message["usage"] |= others[-2]["usage"]
    return message | others[-2]["delta"]


def answered(call: Call, finish: str = "stop", **message: object) -> dict[str, Any]:
    """A whole answer as the client gets it."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    body = {"id": "c", "object": "chat.completion", "model": "qwen", "choices": [choice]}
    answer, usage = MESSAGES.whole(json.dumps({**body, "usage": USAGE}).encode(), call)
    assert usage == Usage(9, 5, 4)
    return json.loads(answer)


def test_a_request_is_asked_of_the_engines_chat() -> None:
    call = read(
        system="be kind", temperature=0.5, top_p=0.9, top_k=5, stop_sequences=["x"], stream=True,
        metadata={"user_id": "u"}, service_tier="auto",
    )  # fmt: skip

    assert call.path == "/v1/chat/completions"
    assert json.loads(call.fields.encode()) == {
        "messages": [{"role": "system", "content": "be kind"}, USER],
        "max_tokens": 100, "temperature": 0.5, "top_p": 0.9, "top_k": 5, "stop": ["x"],
        "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_all_that_speaks_for_the_system_comes_first() -> None:
    blocks = [{"type": "text", "text": each, "cache_control": {"type": "ephemeral"}}
              for each in ("be brief", "and kind")]  # fmt: skip
    later = {"role": "system", "content": [{"type": "text", "text": "hurry"}]}

    given = sent(system=blocks, messages=[USER, later])["messages"]

    assert given == [{"role": "system", "content": "be brief\nand kind\n\nhurry"}, USER]


def test_a_conversation_with_tools_reaches_the_model_in_its_order() -> None:
    other = {**USE, "id": "t2", "input": {}}
    thought = {"type": "thinking", "thinking": "hm", "signature": ""}
    hidden = {"type": "redacted_thinking", "data": "x"}
    text = {"type": "text", "text": "I look."}
    results = [
        {"type": "text", "text": "and now?"},
        {"type": "tool_result", "tool_use_id": "t2", "content": "windy"},
        {"type": "tool_result", "tool_use_id": "t1",
         "content": [{"type": "text", "text": "sunny"}, {"type": "text", "text": "warm"}]},
    ]  # fmt: skip
    said = {"role": "assistant", "content": [thought, hidden, text, USE, other]}

    given = sent(messages=[USER, said, {"role": "user", "content": results}])["messages"]

    function = {"name": "weather", "arguments": '{"city":"Paris"}'}
    assert given == [
        USER,
        {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [
            {"id": "t1", "type": "function", "function": function},
            {"id": "t2", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t2", "content": "windy"},
        {"role": "tool", "tool_call_id": "t1", "content": "sunny\nwarm"},
        {"role": "user", "content": "and now?"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "more", "said"),
    [
        (None, {}, ""),
        (None, {"is_error": True}, "The tool failed."),
        ("broken", {"is_error": True}, "broken"),
        ([{"type": "text", "text": "sunny"}, IMAGE], {},
         "sunny\n[image: can't be read by this model]"),
        ([{"type": "tool_reference", "tool_name": "f"}], {},
         "[tool_reference: can't be read by this model]"),
        ([{"type": "document", "source": {"type": "text", "data": "paper"}}], {}, "paper"),
        ([{"type": "document", "source": {"type": "base64", "data": "AA"}}], {},
         "[document: can't be read by this model]"),
    ],
)  # fmt: skip
def test_nothing_of_a_tools_result_is_left_out_in_silence(
    content: object, more: dict[str, object], said: str
) -> None:
    assert sent(messages=result(content, **more))["messages"][-1]["content"] == said


def test_images_reach_a_model_that_sees_those_of_tools_as_well() -> None:
    far = {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}
    text = {"type": "text", "text": "what?"}

    given = sent(messages=result([IMAGE], text, far), sees_images=True)["messages"]

    assert given[-3:] == [
        {"role": "tool", "tool_call_id": "t1", "content": ""},
        {"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]},
        {"role": "user", "content": [
            {"type": "text", "text": "what?"},
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}}]},
    ]  # fmt: skip


def test_empty_content_and_empty_texts_are_no_lines() -> None:
    texts = [{"type": "text", "text": each} for each in ("", "ok")]
    messages = [{"role": "user", "content": texts}, {"role": "assistant", "content": []},
                {"role": "user", "content": []}]  # fmt: skip

    assert [each["content"] for each in sent(messages=messages)["messages"]] == ["ok", "", ""]


def test_tools_and_the_choice_of_one_are_shown_as_chat_has_them() -> None:
    bash = {"type": "bash_20250124", "name": "bash"}

    given = sent(tools=[TOOL, bash], tool_choice={"type": "tool", "name": "weather"})

    assert given["tools"] == [
        {"type": "function",
         "function": {"name": "weather", "description": "d", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "bash", "description": "",
                                          "parameters": {"type": "object", "properties": {}}}},
    ]  # fmt: skip
    assert given["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    for kind, word in (("auto", "auto"), ("any", "required"), ("none", "none")):
        assert sent(tools=[TOOL], tool_choice={"type": kind})["tool_choice"] == word


@pytest.mark.parametrize(
    ("thinking", "words"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, None),
    ],
)
def test_the_template_hears_whether_to_think(thinking: object, words: object) -> None:
    assert sent(thinking=thinking).get("chat_template_kwargs") == words
    own = {"enable_thinking": False, "x": 1}
    assert sent(thinking=thinking, chat_template_kwargs=own)["chat_template_kwargs"] == own


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tool_choice": {"type": "wish"}}, "tool_choice.type"),
        ({"tool_choice": {"type": 5}}, "tool_choice.type"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "can't read images"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}], "sees_images": True},
         "needs a `source`"),
        ({"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t9"}]}]}, "t9"),
    ],
)  # fmt: skip
def test_what_cannot_be_had_is_refused_in_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)

    assert caught.value.status == 400
    assert said in caught.value.message


def test_tokens_are_counted_of_the_chat_that_would_be_sent() -> None:
    fields = {"system": "be kind", "tools": [{**TOOL, "name": LONG}], "messages": result("sunny"),
              "thinking": {"type": "disabled"}}  # fmt: skip
    counting = read(COUNTING, **fields, max_tokens=None)

    counted = json.loads(counting.fields.encode())

    assert counting.path == ""
    assert counted == MESSAGES.counted(read(**fields, stream=True, temperature=1))
    assert counted.keys() == {"messages", "tools", "chat_template_kwargs"}
    assert counted["tools"][0]["function"]["name"] == engine_name(LONG)
    assert COUNTING.whole(b'{"input_tokens":5}', counting) == (b'{"input_tokens":5}', Usage())


def test_a_whole_answer_is_a_message() -> None:
    call = {"id": "t1", "type": "function",
            "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}  # fmt: skip

    message = answered(
        read(), "tool_calls", content="I look.", reasoning_content="hm", tool_calls=[call]
    )

    assert message.pop("id").startswith("msg_")
    assert message == {
        "type": "message", "role": "assistant", "model": "qwen",
        "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "I look."}, USE,
        ],
        "stop_reason": "tool_use", "stop_sequence": None,
        "usage": {"input_tokens": 9, "output_tokens": 4},
    }  # fmt: skip


def test_a_streamed_answer_is_the_same_message() -> None:
    call = read(stream=True).counted(9)
    pieces = [
        KEEPALIVE, chunk(reasoning_content="h"), chunk(reasoning_content="m"),
        chunk(content="\n\n"), chunk(content="I "), chunk(content="look."),
        chunk(tool_calls=[called(0, '{"city"', id="t1", name="weather")]),
        chunk(tool_calls=[called(0, ': "Paris"}')]), chunk("tool_calls"), USED, DONE,
    ]  # fmt: skip

    stream, documents = relayed(call, *pieces)

    assert documents[0]["message"]["usage"] == {"input_tokens": 9, "output_tokens": 0}
    message = rebuilt(documents)
    assert message["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "text", "text": "\n\nI look."}, USE,
    ]  # fmt: skip
    assert (message["stop_reason"], message["model"]) == ("tool_use", "qwen")
    assert documents[-2]["usage"] == {"input_tokens": 9, "output_tokens": 4}
    assert stream.usage == Usage(prompt_tokens=9, cached_tokens=5, completion_tokens=4)
    assert stream.has_ended
    assert stream.failure is None


def test_pieces_of_calls_in_any_order_are_whole_blocks_one_after_the_other() -> None:
    pieces = [
        chunk(tool_calls=[called(0, '{"city": ', id="t1", name="weather"),
                          called(1, "{", id="t2", name="f")]),
        chunk(content="\n"), chunk(tool_calls=[called(1, "}")]),
        chunk(tool_calls=[called(0, '"Paris"}')]), chunk("tool_calls"), USED, DONE,
    ]  # fmt: skip

    _, documents = relayed(read(stream=True), *pieces)
    _, only_one = relayed(read(stream=True, tool_choice=ONE_CALL), *pieces)

    second = {"type": "tool_use", "id": "t2", "name": "f", "input": {}}
    assert rebuilt(documents)["content"] == [USE, second]
    assert rebuilt(only_one)["content"] == [USE]


def test_a_call_that_is_no_json_is_text_and_no_call() -> None:
    broken = {"id": "t1", "function": {"name": "f", "arguments": '{"a": '}}

    whole = answered(read(), "tool_calls", content="so:", tool_calls=[broken])
    _, documents = relayed(
        read(stream=True), chunk(content="so:"), chunk(tool_calls=[{**broken, "index": 0}]), USED,
        DONE,
    )  # fmt: skip

    for message in (whole, rebuilt(documents)):
        assert message["content"] == [{"type": "text", "text": 'so:f {"a": '}]
        assert message["stop_reason"] == "end_turn"


def test_a_long_tool_name_is_shortened_and_comes_back_as_it_was() -> None:
    use = {**USE, "name": LONG}
    fields: dict[str, Any] = {
        "tools": [{**TOOL, "name": LONG}],
        "tool_choice": {"type": "tool", "name": LONG},
        "messages": [USER, {"role": "assistant", "content": [use]}, USER],
    }
    short = engine_name(LONG)
    given = sent(**fields)
    names = [
        given["tools"][0]["function"]["name"], given["tool_choice"]["function"]["name"],
        given["messages"][1]["tool_calls"][0]["function"]["name"],
    ]  # fmt: skip
    assert names == [short] * 3

    call = {"id": "t1", "function": {"name": short, "arguments": '{"city": "Paris"}'}}
    whole = answered(read(**fields), content=None, tool_calls=[call])
    _, documents = relayed(
        read(**fields, stream=True), chunk(tool_calls=[{**call, "index": 0}]), DONE
    )
    assert whole["content"] == rebuilt(documents)["content"] == [use]
    assert whole["stop_reason"] == "tool_use", "though the engine said `stop`"


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
def test_the_reason_why_an_answer_ended_is_anthropics(finish: str, reason: str) -> None:
    _, documents = relayed(read(stream=True), chunk(content="Hi"), chunk(finish), USED, DONE)

    assert rebuilt(documents)["stop_reason"] == reason
    assert answered(read(), finish, content="Hi")["stop_reason"] == reason


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_answer_of_nothing_is_a_block_of_text(content: str) -> None:
    said = [chunk(content=content)] if content else []
    _, documents = relayed(read(stream=True), *said, chunk("stop"), USED, DONE)

    expected = [{"type": "text", "text": content}]
    assert rebuilt(documents)["content"] == expected
    assert answered(read(), content=content or None)["content"] == expected


@given(
    st.lists(st.sampled_from(["one", " two", " thr", "ee", " three", "e", "", "\n"]), max_size=9)
)
def test_an_answer_ends_before_its_stop_sequence_whole_and_streamed(words: list[str]) -> None:
    call = read(stop_sequences=["zzz", " three"], stream=True)
    text = "".join(words)
    # as mlx-lm does: nothing comes after the token that completes the sequence
    last = next((n for n, _ in enumerate(words) if " three" in "".join(words[: n + 1])), len(words))
    ending = [] if " three" in text else [chunk("stop"), USED, DONE]
    said = [chunk(content=each) for each in words[: last + 1]]
    stream, documents = relayed(call, *said, *ending)

    for message in (rebuilt(documents), answered(call, content=text)):
        shown = "".join(block["text"] for block in message["content"])
        assert shown == text.partition(" three")[0]
        assert message["stop_sequence"] == (" three" if " three" in text else None)
        assert (message["stop_reason"] == "stop_sequence") is (" three" in text)
    assert stream.is_over is (" three" in text)


def test_nothing_goes_out_before_the_model_has_said_something() -> None:
    stream = MESSAGES.stream(read(stream=True).counted(9))

    assert stream.feed(KEEPALIVE + chunk() + chunk(content="\n")) == b""
    assert b"message_start" in stream.opening
    assert b'"text":"\\nHi"' in stream.feed(chunk(content="Hi"))


@pytest.mark.parametrize(
    ("error", "kind", "failure"),
    [
        ({"message": "dead", "type": "server_error", "code": 500}, "api_error",
         UpstreamFailedError),
        ({"message": "dead", "type": "invalid_request_error", "code": 400},
         "invalid_request_error", ApiError),
    ],
)  # fmt: skip
def test_an_error_in_the_middle_is_an_error_event_and_ends_the_answer(
    error: dict[str, Any], kind: str, failure: type[Exception]
) -> None:
    broken = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"

    stream, documents = relayed(read(stream=True), chunk(content="Hi"), broken, DONE)

    assert documents[-1] == {"type": "error", "error": {"type": kind, "message": "dead"}}
    assert isinstance(stream.failure, failure)


def test_an_engine_that_gives_up_has_failed() -> None:
    stream, documents = relayed(read(stream=True), chunk(content="Hi"), chunk("error"), DONE)

    assert documents[-1]["type"] == "error"
    assert isinstance(stream.failure, UpstreamFailedError)
    with pytest.raises(UpstreamFailedError):
        answered(read(), "error", content="Hi")


def test_a_stream_that_breaks_off_has_not_ended() -> None:
    stream, _ = relayed(read(stream=True), chunk(content="Hi"), chunk("stop"))

    assert not stream.has_ended


def test_an_engine_that_has_messages_is_asked_for_them() -> None:
    given = read_fields(json.dumps({"max_tokens": 9, "messages": [USER]}).encode())

    call = MESSAGES.read(given, sees_images=None)

    assert (call.path, call.asked) == ("", None)
    assert MESSAGES.counted(call) == {"messages": [USER]}
