"""Chat Completions and Completions: one test a repair, named by its symptom."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Api, Call
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions

CHAT = ChatCompletions()
USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def read(api: Api = CHAT, *, sees_images: bool | None = None, **fields: object) -> Call:
    asked = {"messages": [USER]} if isinstance(api, ChatCompletions) else {"prompt": "hello"}
    return api.read(read_fields(json.dumps({**asked, **fields}).encode()), sees_images=sees_images)


def sent(call: Call) -> dict[str, Any]:
    return json.loads(call.fields.encode())


def chunk(text: str | None = None, finish: str | None = None, **more: object) -> dict[str, Any]:
    delta = {} if text is None else {"content": text}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more}


def event(document: object) -> bytes:
    return b"data: " + (
        document if isinstance(document, bytes) else json.dumps(document).encode()
    ) + b"\n\n"  # fmt: skip


DONE = event(b"[DONE]")


def relayed(call: Call, *events: bytes, api: Api = CHAT) -> tuple[EventStream, list[Any]]:
    """The stream, and the documents of the events that a client gets."""
    stream = api.stream(call)
    said = b""
    for each in events:
        said += stream.feed(each)
    said = stream.opening + said
    lines = [line[6:] for line in said.split(b"\n") if line.startswith(b"data: ")]
    return stream, [json.loads(line) if line.startswith(b"{") else line for line in lines]


def text_of(documents: Iterable[Any]) -> str:
    choices = (
        each["choices"][0] for each in documents if isinstance(each, dict) and each["choices"]
    )
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.mark.parametrize("api", [CHAT, Completions()])
def test_stop_as_a_text_is_understood(api: Api) -> None:
    call = read(api, stop="three")

    assert call.stops == ("three",)
    assert sent(call)["stop"] == ["three"]


@pytest.mark.parametrize("stop", ["", [], [""]])
def test_an_empty_stop_is_none(stop: object) -> None:
    assert "stop" not in sent(read(stop=stop))


@pytest.mark.parametrize(
    ("fields", "longest"),
    [
        ({"max_completion_tokens": 3}, 3),
        ({"max_completion_tokens": 3, "max_tokens": 9}, 3),
        ({"max_completion_tokens": 9, "max_tokens": 3}, 3),
        ({"max_tokens": 5}, 5),
        ({}, None),
    ],
)
def test_max_completion_tokens_is_obeyed(fields: dict[str, int], longest: int | None) -> None:
    body = sent(read(**fields))

    assert body.get("max_tokens") == longest
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, 2**60])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_length_that_is_none_is_refused(name: str, value: object) -> None:
    with pytest.raises(ApiError, match=name):
        read(**{name: value})


def test_a_tool_result_of_several_parts_is_its_text_and_not_pythons_repr() -> None:
    parts = [{"type": "text", "text": "sunny"}, {"type": "text", "text": "windy"}]
    result = {"role": "tool", "tool_call_id": "x", "content": parts}

    call = {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f"}}]}

    messages = sent(read(messages=[USER, call, result]))["messages"]

    assert messages == [USER, call, {**result, "content": "sunny\nwindy"}]


@pytest.mark.parametrize("calls", [[], [{"id": "y", "function": {"name": "f"}}]])
def test_a_tool_result_without_its_call_is_refused(calls: list[object]) -> None:
    said = {"role": "assistant", "content": "", "tool_calls": calls}
    with pytest.raises(ApiError, match="must answer a call"):
        read(messages=[USER, said, {"role": "tool", "tool_call_id": "x", "content": "sunny"}])


def test_parts_of_other_messages_stay_as_they_came() -> None:
    message = {"role": "user", "content": [{"type": "text", "text": "x"}]}

    assert sent(read(messages=[message]))["messages"] == [message]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"top_logprobs": 3}, "logprobs"),
        ({"functions": []}, "functions"),
        ({"function_call": "auto"}, "function_call"),
        ({"messages": []}, "messages"),
        ({"messages": "x"}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": []}]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "hologram"}]}]}, "messages"),
        ({"messages": [{"role": "system", "content": [{"type": "input_text", "text": "x"}]}]},
         "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages"),
        ({"tools": "x"}, "tools"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}},
         "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": []}}},
         "tool_choice"),
        ({"stop": 5}, "stop"),
        ({"stream": "yes"}, "stream"),
    ],
)  # fmt: skip
def test_what_the_engine_would_ignore_or_answer_500_to_is_refused(
    fields: dict[str, object], param: str
) -> None:
    with pytest.raises(ApiError) as caught:
        read(**fields)

    assert (caught.value.status, caught.value.param) == (400, param)


@pytest.mark.parametrize("fields", [{"echo": True}, {"suffix": "x"}, {"prompt": ""}, {"prompt": 5}])
def test_completions_refuse_what_the_engine_would_ignore(fields: dict[str, object]) -> None:
    with pytest.raises(ApiError):
        read(Completions(), **fields)


@pytest.mark.parametrize(("sees_images", "passes"), [(False, False), (None, True), (True, True)])
def test_an_image_for_a_model_that_sees_nothing_is_refused(
    sees_images: bool | None, passes: bool
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    messages = [{"role": "user", "content": [image]}]

    if passes:
        assert sent(read(messages=messages, sees_images=sees_images))["messages"] == messages
        return
    with pytest.raises(ApiError, match="can't read images"):
        read(messages=messages, sees_images=sees_images)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "logprobs": False, "echo": None, "stream": None, "tools": [], "user": "me"},
        {"tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False, "store": True},
        {"response_format": {"type": "json_object"}, "verbosity": "low", "seed": 1},
        {"messages": [{"role": "developer", "content": "x"}, {"role": "user", "content": ""}]},
        {"messages": [USER, {"role": "assistant", "content": None, "refusal": None}]},
    ],
)
def test_what_clients_send_passes(fields: dict[str, object]) -> None:
    assert sent(read(**fields))["messages"]


def test_usage_comes_once_and_only_if_asked_for() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    events = [
        event(chunk("Hi")), event(chunk(None, "stop", usage=usage)),
        event({"id": "c1", "choices": [], "usage": usage}), DONE,
    ]  # fmt: skip

    stream, unasked = relayed(read(stream=True), *events)
    assert not any("usage" in each for each in unasked[:-1])
    assert unasked[-1] == b"[DONE]"
    assert stream.usage == Usage(prompt_tokens=3, completion_tokens=2)

    _, asked = relayed(read(stream=True, stream_options={"include_usage": True}), *events)
    with_usage = [each for each in asked if isinstance(each, dict) and "usage" in each]
    assert with_usage == [{"id": "c1", "object": "chat.completion.chunk", "created": None,
                           "model": None, "choices": [], "usage": usage}]  # fmt: skip


@pytest.mark.parametrize("options", [None, {"include_usage": None}, {"include_usage": False}, {}])
def test_stream_options_that_ask_for_nothing_are_left_out(options: object) -> None:
    call = read(stream=True, stream_options=options)

    assert not call.wants_usage
    assert "stream_options" not in sent(call)


def test_events_without_need_of_repair_pass_untouched() -> None:
    stream = CHAT.stream(read(stream=True))
    odd = b'data: {"choices" : [{"delta":{"content":"\\u00e4 [DONE] \\"usage\\": {"}}]}\n\n'

    assert stream.feed(odd) == odd
    assert not stream.has_ended


@given(st.lists(st.sampled_from(["one", " two", " three", " thr", "ee", "", "e"]), max_size=12))
def test_a_streamed_answer_ends_before_its_stop_sequence(words: list[str]) -> None:
    call = read(stream=True, stop=[" three"])
    events = [*(event(chunk(word)) for word in words), event(chunk(None, "stop")), DONE]

    stream, documents = relayed(call, *events)

    text = "".join(words)
    assert text_of(documents) == text.partition(" three")[0]
    assert stream.is_over is (" three" in text)
    if stream.is_over:
        assert documents[-1]["choices"][0]["finish_reason"] == "stop"
        assert stream.text == text.partition(" three")[0]
    else:
        assert documents[-1] == b"[DONE]"
    assert stream.has_ended


def test_a_stopped_stream_ends_as_any_other() -> None:
    call = read(stream=True, stop="b", stream_options={"include_usage": True})
    stream, _ = relayed(call, event(chunk("ab")))

    ending = stream.ending(Usage(prompt_tokens=4, completion_tokens=1))

    usage = {"prompt_tokens": 4, "completion_tokens": 1, "total_tokens": 5}
    assert json.loads(ending.split(b"\n")[0][6:])["usage"] == usage
    assert ending.endswith(DONE)
    assert stream.counts_at_stop
    assert stream.ending(Usage()).count(b"data:") <= 2


def test_what_was_held_back_is_said_at_the_end() -> None:
    _, with_reason = relayed(
        read(stream=True, stop="STOP"), event(chunk("a ST")), event(chunk(None, "length")), DONE
    )
    _, without = relayed(read(stream=True, stop="STOP"), event(chunk("a ST")), DONE)

    assert text_of(with_reason) == text_of(without) == "a ST"


def test_a_completion_is_cut_as_well() -> None:
    api = Completions()
    call = read(api, stream=True, stop="c")
    events = [event({"choices": [{"index": 0, "text": text}]}) for text in ("a", "bc", "d")]

    stream, documents = relayed(call, *events, api=api)

    assert [each["choices"][0]["text"] for each in documents] == ["a", "b"]
    assert stream.is_over


@pytest.mark.parametrize(
    ("api", "choice", "place"),
    [
        (CHAT, {"message": {"role": "assistant", "content": "one two three"}}, "message"),
        (Completions(), {"text": "one two three"}, "text"),
    ],
)
def test_a_whole_answer_ends_before_its_stop_sequence(
    api: Api, choice: dict[str, Any], place: str
) -> None:
    body = {"choices": [{"index": 0, "finish_reason": "length", **choice}], "usage": {}}

    answer, _ = api.whole(json.dumps(body).encode(), read(api, stop=["two", " three"]))

    cut = json.loads(answer)["choices"][0]
    assert cut["finish_reason"] == "stop"
    assert (cut[place]["content"] if place == "message" else cut[place]) == "one "


def test_a_whole_answer_without_need_of_repair_passes_untouched() -> None:
    body = b'{"choices" : [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 2}}'

    assert CHAT.whole(body, read()) == (body, Usage(prompt_tokens=2))


@pytest.mark.parametrize("body", [b"", b"[]", b"oops", b'{"choices":[{"finish_reason":"error"}]}'])
def test_an_answer_that_is_none_is_a_failure_of_the_engine(body: bytes) -> None:
    with pytest.raises(UpstreamFailedError):
        CHAT.whole(body, read())


def test_the_opening_of_an_answer_waits_for_its_first_word() -> None:
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]})
    stream = CHAT.stream(read(stream=True))

    assert stream.feed(role) == stream.feed(event(chunk(""))) == b""
    assert stream.feed(event(chunk("Hi"))) == event(chunk("Hi"))
    assert stream.opening == role + event(chunk(""))


@pytest.mark.parametrize(
    "first",
    [chunk("x"), chunk(None, "stop"), chunk(tool_calls=[]),
     {"choices": [{"delta": {"reasoning_content": "hm"}}]},
     {"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}, {"choices": []}, {"else": 1}],
)  # fmt: skip
def test_whatever_says_something_is_no_opening(first: dict[str, Any]) -> None:
    stream = CHAT.stream(read(stream=True))
    is_empty = first == chunk(tool_calls=[])

    assert bool(stream.feed(event(first))) is not is_empty


@pytest.mark.parametrize(
    "broken",
    [{"error": {"message": "dead", "code": 500}}, chunk(None, "error")],
)
def test_an_engine_that_gives_up_in_a_stream_is_noticed(broken: dict[str, Any]) -> None:
    stream, documents = relayed(read(stream=True), event(chunk("Hi")), event(broken), DONE)

    assert isinstance(stream.failure, UpstreamFailedError)
    assert any("error" in each for each in documents if isinstance(each, dict))


def test_a_sign_of_life_is_a_chunk_that_says_nothing() -> None:
    sign = json.loads(CHAT.sign_of_life("m")[6:])
    plain = json.loads(Completions().sign_of_life("m")[6:])

    assert (sign["model"], sign["choices"][0]["delta"]) == ("m", {})
    assert plain["choices"][0]["text"] == ""


def test_a_form_for_the_answer_is_noticed() -> None:
    assert read(response_format={"type": "json_schema"}).form_param == "response_format"
    assert not read(response_format={"type": "text"}).form_param
    assert not read().form_param


def a_tool_call(index: int, **function: str) -> dict[str, Any]:
    return {"index": index, "function": function}


def calling(*calls: dict[str, Any], finish: str | None = None) -> bytes:
    document = chunk(finish=finish)
    document["choices"][0]["delta"] = {"tool_calls": list(calls)}
    return event(document)


@pytest.mark.parametrize(
    ("parallel", "indexes"), [({}, [0, 0, 1]), ({"parallel_tool_calls": False}, [0, 0])]
)
def test_a_second_call_is_dropped_where_the_client_takes_one(
    parallel: dict[str, bool], indexes: list[int]
) -> None:
    stream, documents = relayed(
        read(stream=True, tools=[TOOL], **parallel),
        calling(a_tool_call(0, name="f", arguments="")),
        calling(a_tool_call(0, arguments="{}"), a_tool_call(1, name="f", arguments="{}")),
        event(chunk(finish="tool_calls")),
        DONE,
    )

    choices = [each["choices"][0] for each in documents if isinstance(each, dict)]
    calls = [call for choice in choices for call in choice["delta"].get("tool_calls", ())]
    assert [call["index"] for call in calls] == indexes
    assert choices[-1]["finish_reason"] == "tool_calls"
    assert stream.has_ended

    message = {"content": None, "tool_calls": [a_tool_call(0), a_tool_call(1)]}
    body = json.dumps({"choices": [{"message": message}]}).encode()
    whole, _ = CHAT.whole(body, read(tools=[TOOL], **parallel))
    kept = json.loads(whole)["choices"][0]["message"]["tool_calls"]
    assert [call["index"] for call in kept] == sorted(set(indexes))


def test_whether_calls_may_be_parallel_is_true_or_false() -> None:
    with pytest.raises(ApiError, match="parallel_tool_calls"):
        read(parallel_tool_calls="no")
