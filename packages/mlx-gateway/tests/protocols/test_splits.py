"""Streams of every API: what a client gets is the same wherever the engine's bytes are split."""

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlx_gateway.fields import read_fields
from mlx_gateway.protocols.api import Api
from mlx_gateway.protocols.messages_by_chat import MessagesByChat
from mlx_gateway.protocols.ollama import OllamaChat, OllamaGenerate
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.responses_by_chat import ResponsesByChat

type Engine = Callable[[list[str]], bytes]

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
HELLO = [{"role": "user", "content": "hello"}]
FUNCTION = {"name": "weather", "parameters": SCHEMA}
CUSTOM = {"type": "custom", "name": "weather"}
MESSAGE: dict[str, Any] = {
    "messages": HELLO,
    "max_tokens": 9,
    "tools": [{"name": "weather", "input_schema": SCHEMA}],
}
FORM = {"type": "json_schema", "name": "x", "schema": SCHEMA}
MADE_UP = re.compile(
    rb'"(id|item_id|call_id)":"[^"]*"|"created(_at)?":("[^"]*"|\d+)|"[a-z_]*duration":\d+'
)
"""What an answer has of its own: names and times that are made when it is given."""


def event(document: dict[str, Any], *, named: bool = False) -> bytes:
    """An event as the engine writes it, letters beyond ASCII as they are."""
    name = f"event: {document['type']}\n" if named else ""
    return f"{name}data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()


def chat(texts: list[str]) -> bytes:
    """A chat with thoughts, text and two calls; usage in the last chunk and in one of its own."""
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    arguments = json.dumps({"city": "".join(texts)}, ensure_ascii=False)
    deltas: list[dict[str, Any]] = [{"role": "assistant"}, {"reasoning_content": "hm 🎉"}]
    deltas += [{"content": text} for text in texts]
    for index in (0, 1):
        for piece in (arguments[:4], arguments[4:]):
            function = {"name": "weather", "arguments": piece}
            deltas.append({"tool_calls": [{"index": index, "id": "call", "function": function}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    said = [event({"id": "c", "choices": [choice]}) for choice in choices]
    last = {"index": 0, "delta": {}, "finish_reason": "tool_calls"}
    said += [event({"id": "c", "choices": [last], "usage": usage})]
    said += [event({"id": "c", "choices": [], "usage": usage}), b"data: [DONE]\n\n"]
    return b": heartbeat\n\n".join(said)


def completion(texts: list[str]) -> bytes:
    choices = [{"index": 0, "text": text, "finish_reason": None} for text in texts]
    choices.append({"index": 0, "text": "", "finish_reason": "stop"})
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    said = [event({"id": "c", "choices": [choice]}) for choice in choices]
    return b"".join([*said, event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"])


def message(texts: list[str]) -> bytes:
    """Anthropic's: thoughts, text, an empty block as the engine begins one, and two calls."""
    usage = {"input_tokens": 0, "output_tokens": 0}
    documents: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "m", "content": [], "usage": usage}}
    ]
    arguments = json.dumps({"city": "".join(texts)}, ensure_ascii=False)
    call = {"type": "tool_use", "id": "call", "name": "weather", "input": {}}
    as_json = {"type": "input_json_delta", "partial_json": arguments}
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"type": "thinking", "thinking": ""}, [{"type": "thinking_delta", "thinking": "hm 🎉"}]),
        ({"type": "text", "text": ""}, [{"type": "text_delta", "text": each} for each in texts]),
        ({"type": "text", "text": ""}, []),
        (call, [as_json]),
        (call, [as_json]),
    ]
    for index, (block, deltas) in enumerate(blocks):
        documents.append({"type": "content_block_start", "index": index, "content_block": block})
        documents += [
            {"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas
        ]
        documents.append({"type": "content_block_stop", "index": index})
    ending = {"stop_reason": "end_turn", "stop_sequence": None}
    documents.append({"type": "message_delta", "delta": ending, "usage": {"output_tokens": 9}})
    documents.append({"type": "message_stop"})
    return b"".join(event(each, named=True) for each in documents)


def response(texts: list[str]) -> bytes:
    """Responses: text, and two calls whose arguments the engine says at once and once more."""
    arguments = json.dumps({"city": "".join(texts)}, ensure_ascii=False)
    documents: list[dict[str, Any]] = [
        {"type": f"response.{kind}", "response": {"id": "r"}} for kind in ("created", "in_progress")
    ]
    documents += [{"type": "response.output_text.delta", "delta": text} for text in texts]
    output: list[dict[str, Any]] = []
    for name in ("first", "second"):
        item = {"type": "function_call", "id": name, "name": "weather", "arguments": arguments}
        output.append(item)
        documents += [
            {"type": "response.output_item.added", "item": item},
            {"type": "response.function_call_arguments.delta", "item_id": name, "delta": arguments},
            {"type": "response.output_item.done", "item": item},
        ]
    ended = {"id": "r", "status": "incomplete", "output": output}
    documents.append({"type": "response.completed", "response": ended})
    numbered = ({**each, "sequence_number": at} for at, each in enumerate(documents))
    return b"".join(event(each, named=True) for each in numbered)


KINDS: dict[str, tuple[Api, Engine, dict[str, Any]]] = {
    "chat": (
        ChatCompletions(),
        chat,
        {"messages": HELLO, "tools": [{"type": "function", "function": FUNCTION}]},
    ),
    "completions": (Completions(), completion, {"prompt": "hello"}),
    "messages": (MessagesByChat(), message, MESSAGE),
    "messages by chat": (MessagesByChat(), chat, MESSAGE),
    "responses": (
        ResponsesByChat(),
        response,
        {"input": "hello", "tools": [{"type": "function", **FUNCTION}]},
    ),
    "a response's own tools": (
        ResponsesByChat(), response, {"input": "hello", "tools": [CUSTOM]}
    ),
    "responses by chat": (
        ResponsesByChat(),
        chat,
        {"input": "hello", "tools": [{"type": "function", **FUNCTION}]},
    ),
    "a response with a form": (
        ResponsesByChat(), chat, {"input": "hello", "text": {"format": FORM}}
    ),
    "ollama's chat": (OllamaChat(), chat, {"messages": HELLO}),
    "ollama's text": (OllamaGenerate(), completion, {"prompt": "hello", "raw": True}),
}  # fmt: skip
_STOPS: dict[str, Callable[[str], dict[str, Any]]] = {
    "chat": lambda stop: {"stop": [stop]},
    "completions": lambda stop: {"stop": stop},
    "messages": lambda stop: {"stop_sequences": [stop]},
    "messages by chat": lambda stop: {"stop_sequences": [stop]},
    "ollama's chat": lambda stop: {"options": {"stop": [stop]}},
    "ollama's text": lambda stop: {"options": {"stop": [stop]}},
}
_ONE_CALL: dict[str, dict[str, Any]] = {
    "chat": {"parallel_tool_calls": False, "stream_options": {"include_usage": True}},
    "messages": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "messages by chat": {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
    "responses": {"parallel_tool_calls": False},
    "responses by chat": {"parallel_tool_calls": False},
    "a response's own tools": {"parallel_tool_calls": False},
}
_texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("äé日🎉\n"), max_size=8),
    max_size=5,
)


def relayed(api: Api, asked: dict[str, Any], pieces: Iterable[bytes], *, only_chats: bool) -> bytes:
    """What a client gets of an answer that comes in these pieces."""
    fields = read_fields(json.dumps({"model": "m", "stream": True, **asked}).encode())
    call = api.read(fields, sees_images=None)
    if only_chats:
        call = api.by_chat(call, fields, sees_images=None)
    stream = api.stream(call.counted(7))
    said = b""
    for piece in pieces:
        said += stream.feed(piece)
        if stream.is_over:  # as the relay does: the rest is not read
            said += stream.ending(stream.usage)
            break
    return MADE_UP.sub(b"", stream.opening + said)


@pytest.mark.parametrize("kind", KINDS)
@given(
    texts=_texts,
    cuts=st.lists(st.integers(0, 20_000), max_size=12) | st.none(),
    variant=st.sampled_from(["plain", "stop", "one call"]),
)
@example(texts=["Grüße", " 日本", "🎉"], cuts=None, variant="plain")
@example(texts=["one t", "wo ", "🎉 three"], cuts=None, variant="stop")
@example(texts=["Grüße", "🎉"], cuts=None, variant="one call")
def test_a_client_gets_the_same_wherever_the_engines_stream_is_split(
    kind: str, texts: list[str], cuts: list[int] | None, variant: str
) -> None:
    api, engine, asked = KINDS[kind]
    if variant == "stop" and kind in _STOPS:
        asked = asked | _STOPS[kind]("".join(texts)[3:6] or "x")
    elif variant == "one call":
        asked = asked | _ONE_CALL.get(kind, {})
    data = engine(texts)
    places = sorted({0, len(data), *(cut % len(data) for cut in cuts or ())})
    if cuts is None:
        places = range(len(data) + 1)  # byte by byte

    only_chats = kind.endswith("by chat")
    pieces = (data[a:b] for a, b in pairwise(places))
    split = relayed(api, asked, pieces, only_chats=only_chats)

    assert split == relayed(api, asked, [data], only_chats=only_chats)
