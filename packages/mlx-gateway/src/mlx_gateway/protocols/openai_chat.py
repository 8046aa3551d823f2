"""OpenAI's Chat Completions and Completions: what vllm-mlx 0.6 gets wrong in them."""

import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Any, Literal, override
from uuid import uuid4

import msgspec
from msgspec import Meta

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, allows_one_call, answer_in, read_usage
from mlx_gateway.protocols.checks import Part, checked, positive
from mlx_gateway.protocols.events import (
    ANY_EVENT,
    EventStream,
    StopCutter,
    Usage,
    document_of,
    event_of,
    failure_in,
    stop_sequences,
)

type PlaceOfText = Callable[[dict[str, Any]], tuple[dict[str, Any], str]]

_MEDIA = ("image_url", "input_image", "image")
_ASKS = ("system", "developer", "user")
_UNSERVED_PARTS = ("file", "input_file", "input_audio")


class _Function(msgspec.Struct):
    name: str


class _ToolCall(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[_ToolCall] | None = None


class _ChatRequest(msgspec.Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)]


class _CompletionRequest(msgspec.Struct):
    prompt: Annotated[str, Meta(min_length=1)] | list[Annotated[str, Meta(min_length=1)]]


class ChatCompletions(Api):
    """`/v1/chat/completions`."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        checked(fields, _ChatRequest)
        messages = list_in(fields.get("messages"))
        _refuse_unserved(fields)
        _refuse_media(messages, sees_images=sees_images)
        _check_tools(fields)
        _check_results(messages)
        joined = _joined_texts(messages)
        if joined is not None:
            fields = fields.with_values(messages=joined)
        return _read_common(fields)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        return _whole(body, call, lambda choice: (object_in(choice.get("message")), "content"))

    @override
    def stream(self, call: Call) -> EventStream:
        return CompletionStream(call, lambda choice: (object_in(choice.get("delta")), "content"))

    @override
    def sign_of_life(self, model: str) -> bytes:
        """A chunk without content: Codex and others count events, not comments."""
        return _chunk({"delta": {}}, "chat.completion.chunk", model)


class Completions(Api):
    """`/v1/completions`."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        checked(fields, _CompletionRequest)
        _refuse_unserved(fields)
        for name in ("echo", "suffix"):
            if fields.get(name):
                raise invalid(f"`{name}` is not supported by this model's engine.", param=name)
        return _read_common(fields)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        return _whole(body, call, lambda choice: (choice, "text"))

    @override
    def stream(self, call: Call) -> EventStream:
        return CompletionStream(call, lambda choice: (choice, "text"))

    @override
    def sign_of_life(self, model: str) -> bytes:
        return _chunk({"text": ""}, "text_completion", model)


class CompletionStream(EventStream):
    """The events of both APIs.

    vllm-mlx puts `usage` into the last chunk with content, though nobody asked, and a second time
    into a chunk of its own if somebody did, so that clients which add up count double.

    Args:
        place_of_text: Finds what of a choice holds its text, and under which key.
    """

    marks = (
        b"[DONE]", b'"usage":{', b'"usage": {', b'"error":{', b'"error": {',
        b'"finish_reason":"error"', b'"finish_reason": "error"',
    )  # fmt: skip

    def __init__(self, call: Call, place_of_text: PlaceOfText) -> None:
        super().__init__()
        self.has_ended = False
        self.counts_at_stop: bool = call.wants_usage
        self._call = call
        self._place_of_text = place_of_text
        self._cutter = StopCutter(call.stops)
        self._last: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._called: object = None
        if call.stops:
            self.marks: tuple[bytes, ...] = ANY_EVENT
        elif call.one_tool_call:
            self.marks = (*self.marks, b'"tool_calls":[', b'"tool_calls": [')

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        choices = [object_in(choice) for choice in list_in(document.get("choices"))]
        return bool(choices) and not any(map(_says_something, choices))

    @override
    def repair(self, event: bytes) -> bytes:
        document = document_of(event)
        if document is None:
            if b"[DONE]" in event:
                self.has_ended = True
                return self._held_back() + self._usage_chunk() + event
            return event
        if object_in(document.get("error")):
            self.failure = failure_in(document)
            return event
        is_changed = self._take_usage(document)
        choices = list_in(document.get("choices"))
        if not choices:
            return b"" if is_changed else event
        self._last = document
        if object_in(choices[0]).get("finish_reason") == "error":
            self.failure: ApiError | UpstreamFailedError | None = UpstreamFailedError(
                "it gave up in the middle of the answer"
            )
            problem = ApiError(HTTPStatus.BAD_GATEWAY, "The engine gave up.")
            return event + b"data: " + Api().error(problem) + b"\n\n"
        if self._call.one_tool_call:
            is_changed |= self._drop_later_calls(object_in(object_in(choices[0]).get("delta")))
        if self._call.stops:
            return self._cut(document, object_in(choices[0]))
        return event_of(document) if is_changed else event

    @override
    def ending(self, used: Usage) -> bytes:
        if used.prompt_tokens is not None and used.completion_tokens is not None:
            self._usage = {
                "prompt_tokens": used.prompt_tokens,
                "completion_tokens": used.completion_tokens,
                "total_tokens": used.prompt_tokens + used.completion_tokens,
            }
        return self._usage_chunk() + b"data: [DONE]\n\n"

    def _take_usage(self, document: dict[str, Any]) -> bool:
        usage = object_in(document.get("usage"))
        if not usage:
            return False
        del document["usage"]
        self._usage = usage
        self.usage: Usage = read_usage(usage)
        return True

    def _drop_later_calls(self, delta: dict[str, Any]) -> bool:
        """Take every call but the answer's first out of a delta; whether there was another."""
        calls = [object_in(call) for call in list_in(delta.get("tool_calls"))]
        if calls and self._called is None:
            self._called = calls[0].get("index")
        kept = [call for call in calls if call.get("index") == self._called]
        if len(kept) == len(calls):
            return False
        del delta["tool_calls"]
        if kept:
            delta["tool_calls"] = kept
        return True

    def _usage_chunk(self) -> bytes:
        """The one chunk with `usage`, if the client asked for it and the engine said it."""
        if not self._call.wants_usage or self._usage is None:
            return b""
        kept = {key: self._last.get(key) for key in ("id", "object", "created", "model")}
        return event_of({**kept, "choices": [], "usage": self._usage})

    def _cut(self, document: dict[str, Any], choice: dict[str, Any]) -> bytes:
        """The chunk, its text ended before a stop sequence."""
        holder, key = self._place_of_text(choice)
        text = holder.get(key)
        if isinstance(text, str):
            holder[key] = self._cutter.feed(text)
            self.text: str = self.text + holder[key]
        if self._cutter.found is not None:
            self.is_over: bool = True
            self.has_ended: bool = True
            choice["finish_reason"] = "stop"
        elif choice.get("finish_reason") is not None:
            holder[key] = (holder.get(key) or "") + self._cutter.rest()
        return event_of(document)

    def _held_back(self) -> bytes:
        """A text that was held back until the end, which had no chunk of its own."""
        held = self._cutter.rest()
        if not held or not list_in(self._last.get("choices")):
            return b""
        holder, key = self._place_of_text(self._last["choices"][0])
        holder[key] = held
        return event_of(self._last)


def _says_something(choice: dict[str, Any]) -> bool:
    """Whether a choice of a chunk holds more than a role and empty text."""
    delta = object_in(choice.get("delta"))
    said = [value for key, value in delta.items() if key != "role"]
    return any((*said, choice.get("text"), choice.get("finish_reason")))


def _joined_texts(messages: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The messages with the text parts of tool results joined; None where there are none.

    vllm-mlx leaves the list of a tool message as it is, and the model reads Python's repr of it, or
    with most chat templates nothing at all.
    """
    is_changed = False
    for message in messages:
        content = list_in(message.get("content"))
        if message["role"] in ("tool", "function") and content:
            message["content"] = text_of_parts(content)
            is_changed = True
    return messages if is_changed else None


def text_of_parts(parts: list[Any]) -> str:
    """The texts of a list of content parts, a line each."""
    texts = [part if isinstance(part, str) else object_in(part).get("text") for part in parts]
    return "\n".join(text for text in texts if isinstance(text, str))


def _refuse_unserved(fields: Fields) -> None:
    """Raise an ApiError for what vllm-mlx would silently leave out."""
    count = fields.get("n")
    if count not in (None, 1):
        raise invalid("`n` must be 1: this model's engine gives one answer.", param="n")
    if fields.get("logprobs") or fields.get("top_logprobs"):
        raise invalid("`logprobs` are not supported by this model's engine.", param="logprobs")
    for name in ("functions", "function_call"):
        if name in fields:
            raise invalid(f"`{name}` is the old form of `tools`; send `tools`.", param=name)


def _refuse_media(messages: list[dict[str, Any]], *, sees_images: bool | None) -> None:
    """Raise an ApiError for parts that vllm-mlx would drop without a word."""
    for message in messages:
        for part in list_in(message.get("content")):
            kind = object_in(part).get("type")
            if kind in _UNSERVED_PARTS:
                raise invalid(f"This model can't read parts of type {kind!r}.", param="messages")
            if kind in _MEDIA and sees_images is False:
                raise invalid("This model can't read images.", param="messages")
            if message["role"] in _ASKS and kind not in ("text", *_MEDIA):
                raise invalid(f"Parts of type {kind!r} are not supported.", param="messages")


def _check_tools(fields: Fields) -> None:
    """Raise an ApiError where a tool is called that isn't there: vllm-mlx answers 500."""
    tools = list_in(fields.get("tools"))
    if not tools and fields.get("tools"):
        raise invalid("`tools` must be a list.", param="tools")
    names: list[str] = []
    for tool in tools:
        name = object_in(object_in(tool).get("function")).get("name")
        if not isinstance(name, str):
            kind = object_in(tool).get("type")
            raise invalid(
                f"Each tool must be a function with a name; {kind!r} is not supported.",
                param="tools",
            )
        names.append(name)
    choice = object_in(fields.get("tool_choice"))
    if tools and choice.get("type") == "function":
        name = object_in(choice.get("function")).get("name")
        if name not in names:
            raise invalid(f"`tool_choice` names a tool that doesn't exist: {name!r}.",
                          param="tool_choice")  # fmt: skip


def _check_results(messages: list[dict[str, Any]]) -> None:
    """Raise an ApiError for a tool's result whose call isn't there, which no template expects."""
    called: set[object] = set()
    for message in messages:
        called |= {object_in(call).get("id") for call in list_in(message.get("tool_calls"))}
        answered = message.get("tool_call_id")
        is_known = answered in called or (None in called or (answered is None and called))
        if message["role"] == "tool" and not is_known:
            raise invalid(
                f"A message of the role 'tool' must answer a call before it; there is no call "
                f"{answered!r}.",
                param="messages",
            )


def _read_common(fields: Fields) -> Call:
    """What both APIs share: lengths, stop sequences, streams."""
    stops = stop_sequences(fields.get("stop"), "stop")
    fields = fields.without("stop")
    if stops:
        fields = fields.with_values(stop=list(stops))  # the engine takes a list alone
    limits = [
        limit
        for name in ("max_tokens", "max_completion_tokens")
        if (limit := positive(fields, name)) is not None
    ]
    fields = fields.without("max_completion_tokens")  # the engine would ignore it
    if limits:
        fields = fields.with_values(max_tokens=min(limits))
    streams = fields.flag("stream")
    options = object_in(fields.get("stream_options"))
    wants_usage = bool(options.get("include_usage"))
    fields = fields.without("stream_options")
    if streams and wants_usage:
        fields = fields.with_values(stream_options={"include_usage": True})
    form = object_in(fields.get("response_format")).get("type")
    return Call(
        fields,
        streams=streams,
        stops=stops,
        max_tokens=min(limits, default=None),
        wants_usage=wants_usage,
        form_param="" if form in (None, "text") else "response_format",
        one_tool_call=allows_one_call(fields),
    )


def _whole(body: bytes, call: Call, place_of_text: PlaceOfText) -> tuple[bytes, Usage]:
    """A whole answer, cut before a stop sequence, with no more calls than are allowed."""
    document = answer_in(body)
    usage = read_usage(object_in(document.get("usage")))
    choices = [object_in(choice) for choice in list_in(document.get("choices"))]
    if any(choice.get("finish_reason") == "error" for choice in choices):
        raise UpstreamFailedError("it gave up in the middle of the answer")
    if not (call.stops or call.one_tool_call) or not choices:
        return body, usage
    for choice in choices:
        message = object_in(choice.get("message"))
        if call.one_tool_call and list_in(message.get("tool_calls")):
            del message["tool_calls"][1:]
        cutter = StopCutter(call.stops)
        holder, key = place_of_text(choice)
        if isinstance(holder.get(key), str):
            cut = cutter.feed(holder[key])
            if cutter.found is not None:
                holder[key] = cut
                choice["finish_reason"] = "stop"
    return msgspec.json.encode(document), usage


def _chunk(choice: dict[str, Any], kind: str, model: str) -> bytes:
    return event_of(
        {
            "id": f"chatcmpl-{uuid4().hex}" if kind.startswith("chat") else f"cmpl-{uuid4().hex}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
            "choices": [{"index": 0, **choice, "finish_reason": None}],
        }
    )
