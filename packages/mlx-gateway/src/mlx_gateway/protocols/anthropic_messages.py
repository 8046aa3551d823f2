"""Anthropic's Messages: what vllm-mlx 0.6 gets wrong in it."""

from http import HTTPStatus
from typing import Annotated, Any, Literal, override

import msgspec
from msgspec import Meta

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import (
    Api,
    Call,
    answer_in,
    read_usage,
    without_later_calls,
)
from mlx_gateway.protocols.checks import Part, checked
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
from mlx_gateway.protocols.tool_names import ClientTool, ClientTools, engine_name


class Messages(Api):
    """`/v1/messages`.

    Attributes:
        needs_max_tokens: Whether a request must limit its answer.
    """

    counts_first = True
    needs_max_tokens = True

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        request = checked(fields, _MessagesRequest)
        if request.max_tokens is None and self.needs_max_tokens:
            raise invalid("max_tokens: Field required", param="max_tokens")
        fields = _with_form(fields)
        fields = fields.with_values(messages=_messages(fields, sees_images=sees_images))
        renamed = {
            short: ClientTool(tool.name)
            for tool in request.tools or ()
            if (short := engine_name(tool.name)) != tool.name
        }
        if renamed:
            tools = [
                {**tool, "name": engine_name(tool["name"])} for tool in list_in(fields.get("tools"))
            ]
            fields = fields.with_values(tools=tools)
        choice = object_in(fields.get("tool_choice"))
        stops = stop_sequences(fields.get("stop_sequences"), "stop_sequences")
        fields = fields.with_values(stop_sequences=stops)
        if choice.get("type") == "tool":
            if choice.get("name") not in [tool.name for tool in request.tools or ()]:
                raise invalid("tool_choice.name: there is no such tool", param="tool_choice")
            name = engine_name(choice["name"])
            fields = fields.with_values(tool_choice={**choice, "name": name})
        return Call(
            fields,
            streams=fields.flag("stream"),
            stops=stops,
            max_tokens=request.max_tokens,
            tools=renamed,
            form_param="output_config" if "response_format" in fields else "",
            one_tool_call=choice.get("disable_parallel_tool_use") is True,
        )

    @override
    def counted(self, call: Call) -> dict[str, Any]:
        return {name: call.fields.get(name) for name in _READ if name in call.fields}

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        """The answer with every field that Anthropic's has, cut at stop sequences."""
        document = answer_in(body)
        usage = read_usage(object_in(document.get("usage")))
        document.setdefault("stop_sequence", None)
        content = [object_in(block) for block in list_in(document.get("content"))]
        if call.one_tool_call:
            content = without_later_calls(content, "tool_use")
        for position, block in enumerate(content):
            _restore(block, call.tools)
            text = block.get("text")
            if block.get("type") != "text" or not isinstance(text, str):
                continue
            cutter = StopCutter(call.stops)
            cut = cutter.feed(text)
            if cutter.found is not None:
                block["text"] = cut
                content = content[: position + 1]
                document["stop_reason"] = "stop_sequence"
                document["stop_sequence"] = cutter.found
                break
        document["content"] = content
        return msgspec.json.encode(document), usage

    @override
    def stream(self, call: Call) -> EventStream:
        return MessageStream(call)

    @override
    def error(self, problem: ApiError) -> bytes:
        kind = _ERROR_TYPES.get(problem.status)
        if kind is None:
            kind = "invalid_request_error" if problem.is_clients else "api_error"
        return msgspec.json.encode(
            {"type": "error", "error": {"type": kind, "message": problem.message}}
        )

    @override
    def error_event(self, problem: ApiError) -> bytes:
        return b"event: error\ndata: " + self.error(problem) + b"\n\n"

    @override
    def sign_of_life(self, model: str) -> bytes:
        return b'event: ping\ndata: {"type":"ping"}\n\n'


class CountTokens(Messages):
    """`/v1/messages/count_tokens`: of the request as `/v1/messages` would send it."""

    counts_first = False
    needs_max_tokens = False

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        return body, Usage()


class MessageStream(EventStream):
    """The events of an answer.

    vllm-mlx says 0 input tokens in `message_start` and never again, so that Claude Code counts
    nothing and never compacts; it calls an answer that was cut off `end_turn`; its thinking blocks
    lack a signature; it doesn't look at `stop_sequences`; and it begins a block of text before it
    knows whether the model will say anything but call a tool.
    """

    marks = (
        b"message_start", b"message_delta", b"message_stop", b"content_block_st",
        b'"type":"error"', b'"type": "error"',
    )  # fmt: skip
    counts_at_stop = True

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.has_ended = False
        self._call = call
        self._cutter = StopCutter(call.stops)
        self._open: int | None = None
        self._begun = b""
        self._dropped = 0
        self._called: object = None
        if call.stops:
            self.marks: tuple[bytes, ...] = ANY_EVENT

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        block = object_in(document.get("content_block")).get("type")
        return document.get("type") in ("message_start", "ping") or block in ("text", "thinking")

    @override
    def _needs_look(self, data: bytes) -> bool:
        return bool(self._begun) or super()._needs_look(data)

    @override
    def _looked_at(self, event: bytes) -> bytes:
        """A block of text is begun when there is something in it, or nothing comes after it."""
        begun, self._begun = self._begun, b""
        if b"content_block_stop" in begun and b"content_block_start" in event:
            begun = b""
            self._dropped += 1
            self.marks = ANY_EVENT
        passed = super()._looked_at(event)
        if not passed:
            self._begun = begun or self._begun
            return b""
        if begun and b"content_block_stop" in passed and b"content_block_delta" not in passed:
            self._begun = begun + passed
            return b""
        return begun + passed

    @override
    def repair(self, event: bytes) -> bytes:
        document = self._read(event)
        if document is None:
            return event
        if self._call.one_tool_call and self._is_later_call(document):
            return b""
        match kind := document["type"]:
            case "error":
                self.failure: ApiError | UpstreamFailedError | None = failure_in(document)
            case "message_start":
                self._say_input_tokens(document)
            case "message_delta":
                self._say_how_it_ended(document)
            case "message_stop":
                self.has_ended = True
            case "content_block_start":
                return self._begin(document)
            case "content_block_stop" if self._call.stops:
                return self._release() + event_of(document, kind)
            case "content_block_delta" if self._call.stops:
                return self._cut(document)
            case _:
                return event_of(document, kind) if self._dropped else event
        return event_of(document, kind)

    @override
    def ending(self, used: Usage) -> bytes:
        delta = {"stop_reason": "stop_sequence", "stop_sequence": self._cutter.found}
        usage = {"input_tokens": used.prompt_tokens, "output_tokens": used.completion_tokens}
        ends = (
            {"type": "content_block_stop", "index": self._open},
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        )
        return self._begun + b"".join(event_of(each, str(each["type"])) for each in ends)

    def _read(self, event: bytes) -> dict[str, Any] | None:
        """What an event says, with the number that its block has for the client."""
        document = document_of(event)
        if document is None or not isinstance(document.get("type"), str):
            return None
        if self._dropped and "index" in document:
            document["index"] -= self._dropped
        return document

    def _is_later_call(self, document: dict[str, Any]) -> bool:
        """Whether an event is of another call than the answer's first, which comes last."""
        index = document.get("index")
        if object_in(document.get("content_block")).get("type") == "tool_use":
            if self._called is None:
                self._called = index
            self.marks = ANY_EVENT
        return isinstance(index, int) and isinstance(self._called, int) and index > self._called

    def _say_input_tokens(self, document: dict[str, Any]) -> None:
        usage = object_in(document.get("message")).setdefault("usage", {})
        if not usage.get("input_tokens") and self._call.prompt_tokens is not None:
            usage["input_tokens"] = self._call.prompt_tokens
        self.usage.prompt_tokens = usage.get("input_tokens")

    def _say_how_it_ended(self, document: dict[str, Any]) -> None:
        usage, delta = document.setdefault("usage", {}), document.setdefault("delta", {})
        written = usage.get("output_tokens")
        if isinstance(written, int):
            self.usage.completion_tokens = written
            limit = self._call.max_tokens
            if limit is not None and written >= limit and delta.get("stop_reason") == "end_turn":
                delta["stop_reason"] = "max_tokens"
        usage.setdefault("input_tokens", self.usage.prompt_tokens)

    def _begin(self, document: dict[str, Any]) -> bytes:
        """A block that begins, unless it is one of text, which is set aside."""
        self._open = document.get("index")
        block = object_in(document.get("content_block"))
        _restore(block, self._call.tools)
        begun = event_of(document, "content_block_start")
        if block.get("type") != "text":
            return begun
        self._begun: bytes = begun
        return b""

    def _cut(self, document: dict[str, Any]) -> bytes:
        delta = object_in(document.get("delta"))
        if delta.get("type") != "text_delta":
            return event_of(document, "content_block_delta")
        delta["text"] = self._cutter.feed(str(delta.get("text") or ""))
        self.text: str = self.text + delta["text"]
        if self._cutter.found is not None:
            self.is_over: bool = True
            self.has_ended: bool = True
            self._open = document.get("index")
        return event_of(document, "content_block_delta") if delta["text"] else b""

    def _release(self) -> bytes:
        """What was held back in a block that ends without a stop sequence."""
        held = self._cutter.rest()
        if not held:
            return b""
        delta = {"type": "text_delta", "text": held}
        document = {"type": "content_block_delta", "index": self._open, "delta": delta}
        return event_of(document, "content_block_delta")


class _Block(Part):
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: "str | list[_Block] | None" = None
    is_error: bool | None = None
    source: dict[str, Any] | None = None


class _Message(msgspec.Struct):
    role: Literal["user", "assistant", "system"]
    content: str | list[_Block]


class _Tool(msgspec.Struct):
    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str | None = None
    input_schema: dict[str, Any] | None = None


class _MessagesRequest(msgspec.Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    system: str | list[_Block] | None = None
    tools: list[_Tool] | None = None
    tool_choice: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    top_k: int | None = None
    response_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


def _messages(fields: Fields, *, sees_images: bool | None) -> list[dict[str, Any]]:
    """The messages as vllm-mlx needs them, so that nothing of them is lost on the way to the model.

    It puts the text of a message before the tool results in it, so that they no longer follow
    their call; and it drops documents, and images for models that read none, without a word.
    """
    messages: list[dict[str, Any]] = []
    called: set[object] = set()
    for message in list_in(fields.get("messages")):
        if isinstance(message["content"], str):
            messages.append(message)
            continue
        _refuse_unknown(message)
        blocks = [_block(block, sees_images=sees_images) for block in message["content"]]
        called |= {block.get("id") for block in blocks if block["type"] == "tool_use"}
        results = [block for block in blocks if block["type"] == "tool_result"]
        if lost := [block for block in results if block.get("tool_use_id") not in called]:
            raise invalid(
                "messages: a `tool_result` block must answer a `tool_use` block before it; there "
                f"is no call {lost[0].get('tool_use_id')!r}",
                param="messages",
            )
        others = [block for block in blocks if block["type"] != "tool_result"]
        halves = (results, others) if results and others else (blocks,)
        messages += [{**message, "content": half} for half in halves]
    return messages


def _refuse_unknown(message: dict[str, Any]) -> None:
    """Raise an ApiError for blocks of a user that vllm-mlx would drop without a word."""
    for block in message["content"]:
        if message["role"] == "user" and block["type"] not in _OF_A_USER:
            kind = block["type"]
            raise invalid(f"messages: blocks of type {kind!r} are not supported", param="messages")


def _with_form(fields: Fields) -> Fields:
    """The fields with the answer's form where the engine looks for it, which knows no other place.

    Anthropic's clients put it into `output_config`, and in the beta into `output_format`.
    """
    config = object_in(fields.get("output_config"))
    form = object_in(config.get("format") or fields.get("output_format"))
    fields = fields.without("output_config", "output_format")
    if not form:
        return fields
    if form.get("type") != "json_schema" or not isinstance(form.get("schema"), dict):
        raise invalid(
            "output_config.format: must be of the type `json_schema`, with a `schema`",
            param="output_config",
        )
    schema = {"name": "answer", "schema": form["schema"], "strict": True}
    return fields.with_values(response_format={"type": "json_schema", "json_schema": schema})


def _block(block: dict[str, Any], *, sees_images: bool | None) -> dict[str, Any]:
    """A block of a message as the engine understands it."""
    match block["type"]:
        case "document":
            source = object_in(block.get("source"))
            if source.get("type") != "text" or not isinstance(source.get("data"), str):
                raise invalid("messages: only plain-text documents are supported", param="messages")
            return {"type": "text", "text": source["data"]}
        case "image" if sees_images is False:
            raise invalid("messages: this model can't read images", param="messages")
        case "tool_use" if isinstance(block.get("name"), str):
            return {**block, "name": engine_name(block["name"])}
        case _:
            return block


def _restore(block: dict[str, Any], tools: ClientTools) -> None:
    """Give a block what clients expect: a thinking block its signature, a tool its own name."""
    if block.get("type") == "thinking":
        block.setdefault("signature", "")
    elif block.get("type") == "tool_use" and (tool := tools.get(str(block.get("name")))):
        block["name"] = tool.name


_OF_A_USER = ("text", "image", "document", "tool_result")
_READ = ("messages", "system", "tools", "tool_choice", "response_format", "chat_template_kwargs")
"""The fields that a prompt is made of."""
_ERROR_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}
