"""Responses: one test a repair, named by its symptom."""

import json
from typing import Any

import pytest

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.openai_responses import Responses

RESPONSES = Responses()
FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {}}
SPACE = {"type": "namespace", "name": "mcp__srv", "tools": [{**FUNCTION, "name": "magic"}]}
CUSTOM = {"type": "custom", "name": "apply_patch", "description": "patches"}


def read(*, sees_images: bool | None = None, **fields: object) -> Call:
    body = json.dumps({"input": "hello", **fields}).encode()
    return RESPONSES.read(read_fields(body), sees_images=sees_images)


def sent(call: Call) -> dict[str, Any]:
    return json.loads(call.fields.encode())


def event(kind: str, number: int = 1, **fields: object) -> bytes:
    document = {"type": kind, "sequence_number": number, **fields}
    return f"event: {kind}\ndata: {json.dumps(document)}\n\n".encode()


def called(name: str, arguments: str = '{"a": 1}') -> dict[str, str]:
    return {
        "type": "function_call", "id": "fc_1", "call_id": "c", "name": name, "arguments": arguments
    }  # fmt: skip


def a_call(item: dict[str, str]) -> list[bytes]:
    """What vllm-mlx sends of a call."""
    delta = {"item_id": item["id"], "output_index": 0, "delta": item["arguments"]}
    return [
        event("response.created", 1), event("response.in_progress", 2),
        event("response.output_item.added", 3, output_index=0, item=item),
        event("response.function_call_arguments.delta", 4, **delta),
        event("response.output_item.done", 5, output_index=0, item=item),
        event("response.completed", 6, response={"status": "completed", "output": [item]}),
    ]  # fmt: skip


def relayed(call: Call, *events: bytes) -> tuple[EventStream, list[dict[str, Any]]]:
    """The stream, and the documents of the events that a client gets."""
    stream = RESPONSES.stream(call)
    said = b""
    for each in events:
        said += stream.feed(each)
    lines = (stream.opening + said).split(b"\n")
    return stream, [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]


def test_arguments_come_once_and_are_said_to_be_done() -> None:
    stream, documents = relayed(read(stream=True, tools=[FUNCTION]), *a_call(called("f")))

    kinds = [each["type"].removeprefix("response.") for each in documents]
    assert kinds == [
        "created", "in_progress", "output_item.added", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert [each["sequence_number"] for each in documents] == [1, 2, 3, 4, 5, 6, 7]
    assert documents[2]["item"]["arguments"] == ""
    assert documents[3]["delta"] == documents[4]["arguments"] == '{"a": 1}'
    assert stream.has_ended


def test_an_engine_that_says_done_itself_is_not_repeated() -> None:
    events = a_call(called("f"))
    done = event("response.function_call_arguments.done", 5, item_id="fc_1", arguments="{}")

    _, documents = relayed(read(stream=True, tools=[FUNCTION]), *events[:4], done, *events[4:])

    assert [each["type"] for each in documents].count(
        "response.function_call_arguments.done"
    ) == 1  # fmt: skip


def test_the_tools_of_a_namespace_are_shown_and_called() -> None:
    call = read(stream=True, tools=[FUNCTION, SPACE])
    assert [tool["name"] for tool in sent(call)["tools"]] == ["f", "mcp__srv__magic"]
    assert {tool["type"] for tool in sent(call)["tools"]} == {"function"}

    _, documents = relayed(call, *a_call(called("mcp__srv__magic")))
    for item in (documents[2]["item"], documents[5]["item"], documents[6]["response"]["output"][0]):
        assert (item["name"], item["namespace"]) == ("magic", "mcp__srv")

    answer, _ = RESPONSES.whole(
        json.dumps({"output": [called("mcp__srv__magic"), called("f")]}).encode(), call
    )
    names = [(item["name"], item.get("namespace")) for item in json.loads(answer)["output"]]
    assert names == [("magic", "mcp__srv"), ("f", None)]


def test_a_custom_tool_is_shown_as_a_function_and_called_with_text() -> None:
    call = read(stream=True, tools=[CUSTOM])
    tool = sent(call)["tools"][0]
    assert (tool["type"], tool["name"]) == ("function", "apply_patch")
    assert tool["parameters"]["required"] == ["input"]

    _, documents = relayed(call, *a_call(called("apply_patch", '{"input": "*** Begin"}')))
    kinds = [each["type"].removeprefix("response.") for each in documents]
    assert kinds == ["created", "in_progress", "output_item.added", "output_item.done", "completed"]
    assert documents[3]["item"]["type"] == "custom_tool_call"
    assert documents[3]["item"]["input"] == "*** Begin"
    assert "arguments" not in documents[3]["item"]


def test_arguments_that_are_no_json_reach_a_custom_tool_as_they_are() -> None:
    body = json.dumps({"output": [called("apply_patch", "oops")]}).encode()

    answer, _ = RESPONSES.whole(body, read(tools=[CUSTOM]))

    assert json.loads(answer)["output"][0]["input"] == "oops"


def test_earlier_calls_are_replayed_under_the_names_that_the_engine_knows() -> None:
    items = [
        {"role": "user", "content": "x"},
        {"type": "function_call", "call_id": "1", "name": "magic", "namespace": "mcp__srv",
         "arguments": "{}", "status": "completed", "id": None},
        {"type": "function_call_output", "call_id": "1", "output": "y"},
        {"type": "custom_tool_call", "call_id": "2", "name": "apply_patch", "input": "p"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "z"},
    ]  # fmt: skip

    given = sent(read(input=items))["input"]

    assert given == [
        {"type": "message", "role": "user", "content": "x"},
        {"type": "function_call", "call_id": "1", "name": "mcp__srv__magic", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "y"},
        {"type": "function_call", "call_id": "2", "name": "apply_patch",
         "arguments": '{"input":"p"}'},
        {"type": "function_call_output", "call_id": "2", "output": "z"},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ("x", "x"),
        ([{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}], "a\nb"),
        ([{"type": "input_image", "image_url": "data:"}], ""),
        ({"a": 1}, '{"a":1}'),
        (None, "null"),
    ],
)
def test_a_tool_result_of_several_parts_is_its_text_and_not_pythons_repr(
    output: object, text: str
) -> None:
    items = [{"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"}]
    items += [{"type": "function_call_output", "call_id": "1", "output": output}]

    assert sent(read(input=items))["input"][1]["output"] == text


def test_an_output_without_its_call_is_refused() -> None:
    items = [{"type": "function_call_output", "call_id": "1", "output": "x"}]
    with pytest.raises(ApiError, match="No tool call found"):
        read(input=items)
    assert sent(read(input=items, previous_response_id="resp_1")), "the call may be there"


def test_replayed_reasoning_without_content_is_no_error() -> None:
    thought = {"type": "reasoning", "summary": None, "content": None, "encrypted_content": None}

    given = sent(read(input=[thought, {"role": "user", "content": "x"}]))["input"]

    assert (given[0]["summary"], given[0]["content"]) == ([], [])


@pytest.mark.parametrize(
    ("effort", "given"), [("max", "xhigh"), ("xhigh", "xhigh"), ("none", "none")]
)
def test_every_effort_is_understood(effort: str, given: str) -> None:
    assert sent(read(reasoning={"effort": effort, "summary": "auto"}))["reasoning"] == {
        "effort": given, "summary": "auto",
    }  # fmt: skip


def test_a_response_that_was_cut_is_incomplete() -> None:
    cut = {"status": "incomplete", "output": [], "usage": {"input_tokens": 3, "output_tokens": 16}}

    stream, documents = relayed(read(stream=True), event("response.completed", response=cut))

    assert documents[0]["type"] == "response.incomplete"
    assert stream.usage == Usage(prompt_tokens=3, completion_tokens=16)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, None),
        ({"input": 5}, "input"),
        ({"input": ["x"]}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input"),
        ({"input": [{"role": "user", "content": 5}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": []}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "hologram"}]}]}, "input"),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"instructions": 5}, "instructions"),
        ({"stream": 1}, "stream"),
    ],
)
def test_what_the_engine_answers_500_to_is_refused(
    fields: dict[str, object], param: str | None
) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)

    assert (caught.value.status, caught.value.param) == (400, param)


def test_what_codex_sends_passes() -> None:
    call = read(
        store=False, include=["reasoning.encrypted_content"], prompt_cache_key="x", stream=True,
        parallel_tool_calls=False, reasoning={"summary": "auto"}, text={"verbosity": "low"},
        tools=[FUNCTION, {"type": "web_search"}, {"type": "local_shell"}], instructions="be kind",
        input=[{"type": "message", "role": "developer", "content": [
            {"type": "input_text", "text": "x"}]}],
    )  # fmt: skip

    assert sent(call)["tools"][1] == {"type": "web_search"}
    assert call.tools == {}


def test_a_tool_that_is_chosen_is_named_as_the_engine_knows_it() -> None:
    choice = {"type": "function", "name": "magic", "namespace": "mcp__srv"}

    assert sent(read(tools=[SPACE], tool_choice=choice))["tool_choice"]["name"] == "mcp__srv__magic"


def test_a_whole_response_that_failed_is_a_failure_of_the_engine() -> None:
    body = b'{"status":"failed","error":{"message":"out of memory"}}'

    with pytest.raises(UpstreamFailedError, match="out of memory"):
        RESPONSES.whole(body, read())


def test_a_whole_response_without_need_of_repair_passes_untouched() -> None:
    body = b'{"output" : [], "usage": {"input_tokens": 2}}'

    assert RESPONSES.whole(body, read()) == (body, Usage(prompt_tokens=2))


def test_a_sign_of_life_opens_the_response_as_the_sdk_expects() -> None:
    sign = RESPONSES.sign_of_life("m")

    created, in_progress = (
        json.loads(line[6:]) for line in sign.split(b"\n") if line.startswith(b"data: ")
    )
    assert (created["type"], in_progress["type"]) == ("response.created", "response.in_progress")
    assert created["response"]["id"] == in_progress["response"]["id"]


def test_a_response_keeps_the_id_that_it_was_opened_with() -> None:
    stream = RESPONSES.stream(read(stream=True))

    sign = RESPONSES.sign_of_life("m")
    stream.resume(sign)
    said = stream.feed(event("response.completed", response={"id": "second"}))

    first = json.loads(sign.split(b"\n")[1][6:])["response"]["id"]
    assert json.loads(said.split(b"data: ")[1])["response"]["id"] == first


def test_a_failed_response_is_noticed_and_told() -> None:
    failed = event("response.failed", response={"error": {"message": "dead"}})

    stream, _ = relayed(read(stream=True), event("response.created"), failed)

    assert str(stream.failure) == "its stream contains an error: dead"
    told = json.loads(RESPONSES.error_event(ApiError(502, "broke off")).split(b"data: ")[1])
    assert told["response"]["error"]["message"] == "broke off"
    assert told["response"]["status"] == "failed"


def test_a_second_call_is_dropped_where_the_client_takes_one() -> None:
    one, other = called("f"), {**called("f"), "id": "fc_2"}
    first, second = a_call(one), a_call(other)[2:5]
    both = {"status": "completed", "output": [one, other]}
    events = (*first[:5], *second, event("response.completed", 9, response=both))

    call = read(stream=True, tools=[FUNCTION], parallel_tool_calls=False)
    stream, documents = relayed(call, *events)

    assert len(documents) == len(a_call(one)) + 1, "as if there had been one call"
    assert [each["sequence_number"] for each in documents] == [1, 2, 3, 4, 5, 6, 7]
    assert documents[-1]["response"]["output"] == [one]
    assert stream.has_ended
    whole, _ = RESPONSES.whole(json.dumps(both).encode(), call)
    assert json.loads(whole)["output"] == [one]
