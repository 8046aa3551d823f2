"""Anthropic's Messages: what vllm-mlx 0.6 gets wrong in it."""

import hashlib
import re
from http import HTTPStatus
from typing import Any, cast, override

import msgspec

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import Fields, decode, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, read_usage
from mlx_gateway.protocols.events import (
    EventStream,
    StopCutter,
    Usage,
    document_of,
    event_of,
    stop_sequences,
)
from mlx_gateway.protocols.openai_chat import positive

_LONGEST_TOOL_NAME = 64
_LONGEST_TOOL_NAME_OF_CLIENTS = 128
_ROLES = frozenset({"user", "assistant", "system"})


class Messages(Api):
    """`/v1/messages`."""

    counts_first = True

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        messages = _messages(fields, sees_images=sees_images)
        max_tokens = positive(fields, "max_tokens")
        if max_tokens is None:
            raise invalid("max_tokens: Field required", param="max_tokens")
        stops = stop_sequences(fields.get("stop_sequences"), "stop_sequences")
        renamed = _long_names(fields)
        if _put_results_first(messages) | _drop_signatures(messages) | _rename(messages, renamed):
            fields = fields.with_values(messages=messages)
        tools = _function_tools(fields, renamed)
        if tools is not None:
            fields = fields.with_values(tools=tools)
        choice = object_in(fields.get("tool_choice"))
        if choice.get("name") in renamed:
            fields = fields.with_values(tool_choice={**choice, "name": renamed[choice["name"]]})
        return Call(
            fields,
            streams=fields.flag("stream"),
            stops=stops,
            max_tokens=max_tokens,
            renamed=tuple((short, given) for given, short in renamed.items()),
        )

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        """The answer with every field that Anthropic's has, cut at stop sequences."""
        document = object_in(decode(body))
        usage = read_usage(object_in(document.get("usage")))
        document.setdefault("stop_sequence", None)
        content = [object_in(block) for block in list_in(document.get("content"))]
        for block in content:
            _restore(block, dict(call.renamed))
        cutter = StopCutter(call.stops)
        for position, block in enumerate(content):
            if block.get("type") == "text" and isinstance(block.get("text"), str):
                text = cutter.feed(block["text"])
                if cutter.found is not None:
                    block["text"] = text
                    content = content[: position + 1]
                    document["stop_reason"] = "stop_sequence"
                    document["stop_sequence"] = cutter.found
                    break
                cutter = StopCutter(call.stops)
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
    def sign_of_life(self) -> bytes:
        return b'event: ping\ndata: {"type":"ping"}\n\n'

    @override
    def countable(self, fields: Fields) -> dict[str, Any]:
        return {
            name: value
            for name in ("messages", "system", "tools")
            if (value := fields.get(name)) is not None
        }


class CountTokens(Messages):
    """`/v1/messages/count_tokens`."""

    counts_first = False

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        _messages(fields, sees_images=None)
        return Call(fields)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        return body, Usage()


class MessageStream(EventStream):
    """The events of an answer.

    vllm-mlx says 0 input tokens in `message_start` and never again, so that Claude Code counts
    nothing and never compacts; it calls an answer that was cut off `end_turn`; its thinking blocks
    lack a signature; and it doesn't look at `stop_sequences`.
    """

    mark = re.compile(
        rb'(?m:^):|"type"\s*:\s*"(message_start|message_delta|message_stop|thinking|tool_use|error)"'
    )
    end_mark = b"message_stop"
    _mark_with_text = re.compile(rb"(?m:^).")

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._cutter = StopCutter(call.stops)
        self._names = dict(call.renamed)
        self._open: int | None = None
        if call.stops:
            self.mark = self._mark_with_text

    @override
    def repair(self, event: bytes) -> bytes:
        document = document_of(event)
        kind = document.get("type") if document is not None else None
        if document is None or not isinstance(kind, str):
            return event
        match kind:
            case "error":
                self.has_failed = True
            case "message_start":
                self._say_input_tokens(document)
            case "message_delta":
                self._say_how_it_ended(document)
            case "content_block_start":
                self._open = document.get("index")
                _restore(object_in(document.get("content_block")), self._names)
            case "content_block_stop" if self._call.stops:
                return self._release() + event
            case "content_block_delta" if self._call.stops:
                return self._cut(document, event)
            case _:
                return event
        return event_of(document, kind)

    def _say_input_tokens(self, document: dict[str, Any]) -> None:
        counted = self._call.prompt_tokens
        message = object_in(document.get("message"))
        if counted is not None:
            message.setdefault("usage", {})["input_tokens"] = counted
            self.usage.prompt_tokens = counted

    def _say_how_it_ended(self, document: dict[str, Any]) -> None:
        usage, delta = document.setdefault("usage", {}), document.setdefault("delta", {})
        written = usage.get("output_tokens")
        if isinstance(written, int):
            self.usage.completion_tokens = written
            limit = self._call.max_tokens
            if limit is not None and written >= limit and delta.get("stop_reason") == "end_turn":
                delta["stop_reason"] = "max_tokens"
        if self._call.prompt_tokens is not None:
            usage.setdefault("input_tokens", self._call.prompt_tokens)

    def _cut(self, document: dict[str, Any], event: bytes) -> bytes:
        delta = object_in(document.get("delta"))
        if delta.get("type") != "text_delta":
            return event
        delta["text"] = self._cutter.feed(delta.get("text") or "")
        text = event_of(document, "content_block_delta") if delta["text"] else b""
        return text if self._cutter.found is None else text + self._stopped(document.get("index"))

    def _release(self) -> bytes:
        """What was held back in a block that ends without a stop sequence."""
        held = self._cutter.rest()
        if not held:
            return b""
        delta = {"type": "text_delta", "text": held}
        document = {"type": "content_block_delta", "index": self._open, "delta": delta}
        return event_of(document, "content_block_delta")

    def _stopped(self, index: object) -> bytes:
        """The end of an answer that met a stop sequence."""
        self.is_over = self.has_ended = True
        delta = {"stop_reason": "stop_sequence", "stop_sequence": self._cutter.found}
        ends = (
            {"type": "content_block_stop", "index": index},
            {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 0}},
            {"type": "message_stop"},
        )
        return b"".join(event_of(each, str(each["type"])) for each in ends)


def _messages(fields: Fields, *, sees_images: bool | None) -> list[dict[str, Any]]:
    """The messages of a conversation; vllm-mlx answers 500 to what Anthropic answers 400."""
    messages = list_in(fields.get("messages"))
    if not messages:
        raise invalid("messages: at least one message is required", param="messages")
    for position, message in enumerate(messages):
        where = f"messages.{position}"
        if object_in(message).get("role") not in _ROLES:
            raise invalid(f"{where}.role: must be user or assistant", param="messages")
        content: object = message.get("content")
        if not isinstance(content, str | list):
            raise invalid(f"{where}.content: must be text or a list of blocks", param="messages")
        for block in list_in(cast("object", content)):
            _check_block(object_in(block), where, sees_images=sees_images)
    return messages


def _check_block(block: dict[str, Any], where: str, *, sees_images: bool | None) -> None:
    """Raise a ApiError for blocks that vllm-mlx would drop without a word."""
    if not isinstance(block.get("type"), str):
        raise invalid(f"{where}.content: each block needs a `type`", param="messages")
    if block["type"] == "document":
        raise invalid(f"{where}.content: documents are not supported", param="messages")
    if block["type"] == "image" and sees_images is False:
        raise invalid(f"{where}.content: this model can't read images", param="messages")


def _put_results_first(messages: list[dict[str, Any]]) -> bool:
    """Whether tool results had to be moved before the text of the same message.

    vllm-mlx puts the text first, so that the result no longer follows its call.
    """
    is_changed = False
    for position in range(len(messages) - 1, -1, -1):
        content = list_in(messages[position]["content"])
        if messages[position]["role"] != "user":
            continue
        results = [block for block in content if block["type"] == "tool_result"]
        others = [block for block in content if block["type"] != "tool_result"]
        if results and others:
            halves = ({"role": "user", "content": half} for half in (results, others))
            messages[position : position + 1] = halves
            is_changed = True
    return is_changed


def _drop_signatures(messages: list[dict[str, Any]]) -> bool:
    """Whether empty assistant turns had to be filled; replayed thinking alone makes one."""
    is_changed = False
    for message in messages:
        if message["content"] == [] and message["role"] == "assistant":
            message["content"] = ""
            is_changed = True
    return is_changed


def _long_names(fields: Fields) -> dict[str, str]:
    """Tool names that are too long for the engine, with shorter ones that are as unique."""
    names: dict[str, str] = {}
    for tool in _tools(fields):
        name = tool.get("name")
        if not isinstance(name, str) or not name:
            raise invalid("tools: each tool needs a `name`", param="tools")
        if len(name) > _LONGEST_TOOL_NAME_OF_CLIENTS:
            raise invalid(f"tools: the name {name[:40]!r}… is too long", param="tools")
        if len(name) > _LONGEST_TOOL_NAME:
            digest = hashlib.sha256(name.encode()).hexdigest()[:12]
            names[name] = f"{name[: _LONGEST_TOOL_NAME - 13]}_{digest}"
    return names


def _function_tools(fields: Fields, renamed: dict[str, str]) -> list[dict[str, Any]] | None:
    """The tools under their shorter names; None where nothing had to change."""
    if not renamed:
        return None
    return [{**tool, "name": renamed.get(tool["name"], tool["name"])} for tool in _tools(fields)]


def _tools(fields: Fields) -> list[dict[str, Any]]:
    tools = [object_in(tool) for tool in list_in(fields.get("tools"))]
    if not all(tools) or (not tools and fields.get("tools")):
        raise invalid("tools: must be a list of objects", param="tools")
    return tools


def _rename(messages: list[dict[str, Any]], renamed: dict[str, str]) -> bool:
    """Whether earlier calls of renamed tools had to be renamed as well."""
    is_changed = False
    for message in messages if renamed else ():
        for block in list_in(message["content"]):
            if block["type"] == "tool_use" and block.get("name") in renamed:
                block["name"] = renamed[block["name"]]
                is_changed = True
    return is_changed


def _restore(block: dict[str, Any], names: dict[str, str]) -> None:
    """Give a block what clients expect: a thinking block its signature, a tool its own name."""
    if block.get("type") == "thinking":
        block.setdefault("signature", "")
    elif block.get("type") == "tool_use" and block.get("name") in names:
        block["name"] = names[block["name"]]


_ERROR_TYPES: dict[int, str] = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.NOT_FOUND: "not_found_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}
