"""Responses whose answer must have a form: what the engine gets, and what the client gets."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.responses_by_chat import ResponsesByChat

RESPONSES = ResponsesByChat()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORM = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
TOOL = {"type": "function", "name": "f", "description": "d", "parameters": {}}
SPACE = {"type": "namespace", "name": "mcp__srv", "tools": [{**TOOL, "name": "magic"}]}
CUSTOM = {"type": "custom", "name": "apply_patch"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
IMAGE = {"type": "input_image", "image_url": "data:x"}
DONE = b"data: [DONE]\n\n"


def read(*, form: object = FORM, sees_images: bool | None = None, **fields: object) -> Call:
    body = json.dumps({"input": "hello", "text": {"format": form}, **fields}).encode()
    return RESPONSES.read(read_fields(body), sees_images=sees_images)


def sent(**fields: Any) -> dict[str, Any]:
    return json.loads(read(**fields).fields.encode())


def chunk(finish: str | None = None, **delta: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    document = {"id": "c", "model": "qwen", "choices": [choice]}
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def called(index: int, arguments: str, **first: str) -> dict[str, Any]:
    return {"index": index, **first, "function": {**first, "arguments": arguments}}


OPENING = chunk(role="assistant")
USED = b"data: " + json.dumps({"model": "qwen", "choices": [], "usage": USAGE}).encode() + b"\n\n"


def relayed(call: Call, *pieces: bytes) -> tuple[EventStream, list[dict[str, Any]]]:
    """The stream, and the documents of the events that a client gets."""
    stream = RESPONSES.stream(call)
    said = b"".join([stream.feed(each) for each in pieces])
    lines = (stream.opening + said).split(b"\n")
    return stream, [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def kinds(documents: list[dict[str, Any]]) -> list[str]:
    return [each["type"].removeprefix("response.") for each in documents]


def test_a_schema_is_asked_of_the_engines_chat() -> None:
    call = read(
        instructions="be kind", max_output_tokens=9, temperature=0.5, top_p=0.9, user="me",
        reasoning={"effort": "max"}, stream=True, store=False, metadata={"a": "b"},
    )  # fmt: skip

    assert call.path == "/v1/chat/completions"
    assert json.loads(call.fields.encode()) == {
        "messages": [
            {"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}
        ],
        "response_format": {
            "type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}
        },
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "user": "me", "stream": True,
        "reasoning_effort": "xhigh", "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_an_answer_of_plain_text_is_asked_where_the_client_asked() -> None:
    for form in (None, {"type": "text"}):
        call = read(form=form)
        assert (call.path, call.form_param, "input" in call.fields) == ("", "", True)


def test_json_without_a_schema_is_asked_for() -> None:
    assert sent(form={"type": "json_object"})["response_format"] == {"type": "json_object"}


def test_a_conversation_with_calls_reaches_the_model_in_its_order() -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "be"},
                                          {"type": "input_text", "text": "kind"}]},
        {"role": "user", "content": "x"},
        {"type": "reasoning", "summary": [], "content": None},
        {"role": "assistant", "content": [{"type": "output_text", "text": "I look."}]},
        {"type": "function_call", "call_id": "1", "name": "magic", "namespace": "mcp__srv",
         "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "2", "name": "apply_patch", "input": "p"},
        {"type": "function_call_output", "call_id": "1", "output": [
            {"type": "input_text", "text": "sunny"}, {"type": "input_text", "text": "windy"}]},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "ok"},
        {"type": "function_call", "call_id": "3", "name": "f", "arguments": "{}"},
    ]  # fmt: skip

    given = sent(input=items)["messages"]

    assert [(each["role"], each["content"]) for each in given] == [
        ("system", "be\nkind"), ("user", "x"), ("assistant", "I look."), ("tool", "sunny\nwindy"),
        ("tool", "ok"), ("assistant", ""),
    ]  # fmt: skip
    calls = given[2]["tool_calls"] + given[5]["tool_calls"]
    assert [(each["id"], each["function"]) for each in calls] == [
        ("1", {"name": "mcp__srv__magic", "arguments": "{}"}),
        ("2", {"name": "apply_patch", "arguments": '{"input":"p"}'}),
        ("3", {"name": "f", "arguments": "{}"}),
    ]
    assert [each["tool_call_id"] for each in given[3:5]] == ["1", "2"]


def test_instructions_and_what_developers_say_are_one_message_as_templates_demand() -> None:
    items = [
        {"role": "developer", "content": [{"type": "input_text", "text": "In a sandbox."}]},
        {"role": "user", "content": "x"},
        {"role": "developer", "content": "In Latin."},
        {"role": "user", "content": "y"},
    ]

    given = sent(input=items, instructions="be kind")["messages"]

    assert [(each["role"], each["content"]) for each in given] == [
        ("system", "be kind\n\nIn a sandbox.\n\nIn Latin."), ("user", "x"), ("user", "y")
    ]  # fmt: skip


def test_an_image_reaches_a_model_that_sees() -> None:
    items = [{"role": "user", "content": [{"type": "input_text", "text": "what?"}, IMAGE]}]

    content = sent(input=items, sees_images=True)["messages"][0]["content"]

    assert content == [
        {"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "data:x"}}
    ]  # fmt: skip


def test_tools_and_the_choice_of_one_are_shown_as_chat_has_them() -> None:
    choice = {"type": "function", "name": "magic", "namespace": "mcp__srv"}

    given = sent(tools=[TOOL, SPACE, CUSTOM], tool_choice=choice)

    functions = [tool["function"] for tool in given["tools"]]
    assert [each["name"] for each in functions] == ["f", "mcp__srv__magic", "apply_patch"]
    assert functions[0] == {"name": "f", "description": "d", "parameters": {}}
    assert given["tool_choice"] == {"type": "function", "function": {"name": "mcp__srv__magic"}}
    assert sent(tools=[TOOL], tool_choice="none")["tool_choice"] == "none"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"form": {"type": "json_schema"}}, "text.format"),
        ({"form": {"type": "json_schema", "name": "x"}}, "text.format"),
        ({"form": {"type": "json_schema", "name": "x", "schema": "y"}}, "text.format"),
        ({"form": {"type": "grammar"}}, "text.format"),
        ({"form": {"type": []}}, "text.format"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice"),
        ({"input": [{"role": "user", "content": "x"}, {"type": "item_reference"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "refusal"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_can_not_be_carried_is_refused_in_words(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)

    assert (caught.value.status, caught.value.param) == (400, param)


def test_a_whole_answer_comes_as_a_response() -> None:
    message = {"role": "assistant", "reasoning_content": "Hm.", "content": '{"a":1}'}
    choice = {"message": message, "finish_reason": "stop"}
    body = json.dumps({"model": "qwen", "choices": [choice], "usage": USAGE}).encode()

    answer, usage = RESPONSES.whole(body, read(instructions="be kind", metadata={"k": "v"}))

    response = json.loads(answer)
    assert (response["object"], response["status"], response["model"]) == (
        "response", "completed", "qwen",
    )  # fmt: skip
    assert [item["type"] for item in response["output"]] == ["reasoning", "message"]
    assert response["output"][1]["content"][0]["text"] == '{"a":1}'
    assert response["text"] == {"format": FORM}
    assert (response["instructions"], response["metadata"]) == ("be kind", {"k": "v"})
    assert usage == Usage(prompt_tokens=3, completion_tokens=2)
    assert response["usage"]["total_tokens"] == 5


def test_calls_come_back_by_the_names_of_the_clients_tools() -> None:
    calls = [
        {"id": "1", "function": {"name": "mcp__srv__magic", "arguments": "{}"}},
        {"id": "2", "function": {"name": "apply_patch", "arguments": '{"input":"p"}'}},
    ]
    choice = {"message": {"content": None, "tool_calls": calls}, "finish_reason": "tool_calls"}
    body = json.dumps({"choices": [choice]}).encode()

    first, second = json.loads(RESPONSES.whole(body, read(tools=[SPACE, CUSTOM]))[0])["output"]

    assert (first["namespace"], first["name"], first["call_id"]) == ("mcp__srv", "magic", "1")
    assert (second["type"], second["input"]) == ("custom_tool_call", "p")
    only = json.loads(RESPONSES.whole(body, read(tools=[SPACE], parallel_tool_calls=False))[0])
    assert len(only["output"]) == 1


def test_a_streamed_answer_comes_as_the_events_of_a_response() -> None:
    pieces = (OPENING, chunk(content='{"a"'), chunk(content=":1}"), chunk("stop"), USED, DONE)

    stream, documents = relayed(read(stream=True), *pieces)

    assert kinds(documents) == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [each["sequence_number"] for each in documents] == list(range(1, 11))
    assert documents[6]["text"] == documents[7]["part"]["text"] == '{"a":1}'
    assert {each["item_id"] for each in documents[3:8]} == {documents[2]["item"]["id"]}
    done = documents[-1]["response"]
    assert done["id"] == documents[0]["response"]["id"]
    assert (done["status"], done["model"], done["text"]) == ("completed", "qwen", {"format": FORM})
    assert done["output"] == [documents[8]["item"]]
    assert done["usage"] == {
        "input_tokens": 3, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5,
    }  # fmt: skip
    assert stream.has_ended
    assert stream.usage.completion_tokens == 2


def test_an_answer_that_was_cut_is_incomplete() -> None:
    _, documents = relayed(read(stream=True), chunk(content="{"), chunk("length"), DONE)

    assert documents[-1]["type"] == "response.incomplete"
    response = documents[-1]["response"]
    assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert response["output"][0]["status"] == "incomplete"
    assert response["usage"] is None, "nobody said it"


def test_streamed_calls_that_take_turns_keep_apart() -> None:
    turns = [
        called(0, '{"a"', id="1", name="f"), called(1, "{", id="2", name="apply_patch"),
        called(0, ":1}"), called(1, '"input":"p"}'),
    ]  # fmt: skip
    chunks = [chunk(tool_calls=[each]) for each in turns]

    call = read(stream=True, tools=[TOOL, CUSTOM])
    _, documents = relayed(call, *chunks, chunk("tool_calls"), DONE)

    first, second = documents[-1]["response"]["output"]
    assert (first["name"], first["arguments"], first["call_id"]) == ("f", '{"a":1}', "1")
    assert (second["type"], second["input"]) == ("custom_tool_call", "p")
    assert kinds(documents).count("function_call_arguments.done") == 1
    only_one = read(stream=True, tools=[TOOL, CUSTOM], parallel_tool_calls=False)
    _, documents = relayed(only_one, *chunks, chunk("tool_calls"), DONE)
    assert [item["name"] for item in documents[-1]["response"]["output"]] == ["f"]
    assert kinds(documents).count("output_item.added") == 1


@pytest.mark.parametrize(
    ("failed", "kind"),
    [
        (b'data: {"error": {"message": "dead"}}\n\n', UpstreamFailedError),
        (b'data: {"error": {"message": "dead", "code": 400}}\n\n', ApiError),
        (chunk("error"), UpstreamFailedError),
    ],
)
def test_a_chat_that_fails_ends_the_response_as_failed(failed: bytes, kind: type) -> None:
    stream, documents = relayed(read(stream=True), OPENING, chunk(content="{"), failed, DONE)

    assert isinstance(stream.failure, kind)
    assert documents[-1]["type"] == "response.failed"
    assert documents[-1]["response"]["error"]["message"] == str(stream.failure)
    assert kinds(documents).count("completed") == 0


def test_a_chat_that_breaks_off_has_not_ended() -> None:
    stream, _ = relayed(read(stream=True), OPENING, chunk(content="{"), chunk("stop"))

    assert not stream.has_ended


def test_a_response_that_a_sign_of_life_opened_goes_on_under_its_id() -> None:
    sign = RESPONSES.sign_of_life("m")
    stream = RESPONSES.stream(read(stream=True))
    stream.resume(sign)

    said = b"".join([stream.feed(each) for each in (chunk(content="{}"), chunk("stop"), DONE)])

    documents = [json.loads(line[6:]) for line in said.split(b"\n") if line.startswith(b"data: ")]
    assert kinds(documents)[0] == "output_item.added"
    assert documents[0]["sequence_number"] == 3
    assert documents[-1]["response"]["id"].encode() in sign


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), max_size=6),
    st.lists(st.integers(0, 5_000), max_size=9),
)
def test_a_text_comes_whole_however_its_chunks_are_split(texts: list[str], cuts: list[int]) -> None:
    data = b"".join([OPENING, *(chunk(content=each) for each in texts), chunk("stop"), USED, DONE])
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})

    stream, documents = relayed(read(stream=True), *(data[a:b] for a, b in pairwise(places)))

    text = "".join(each["delta"] for each in documents if each["type"].endswith("text.delta"))
    assert text == "".join(texts)
    assert [each["sequence_number"] for each in documents] == list(range(1, len(documents) + 1))
    assert documents[-1]["type"] == "response.completed"
    parts = [item["content"][0]["text"] for item in documents[-1]["response"]["output"]]
    assert "".join(parts) == text
    assert stream.has_ended
