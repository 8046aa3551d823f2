"""OpenAI's Responses: what vllm-mlx 0.6 gets wrong in it, and what Codex CLI needs of it."""

import re
from typing import Any, override

import msgspec

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import Fields, decode, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, read_usage
from mlx_gateway.protocols.events import EventStream, Usage, document_of, event_of
from mlx_gateway.protocols.openai_chat import positive, text_of_parts

_SEPARATOR = "__"
_CUSTOM_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}


class Responses(Api):
    """`/v1/responses`."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        if "input" not in fields:
            raise invalid("`input` is missing.", param="input")
        items = fields.get("input")
        if not isinstance(items, str) and list_in(items) != items:
            raise invalid("`input` must be text or a list of items.", param="input")
        _refuse_unserved(fields)
        max_tokens = positive(fields, "max_output_tokens")
        flat, renamed = _flat_tools(fields)
        if flat is not None:
            fields = fields.with_values(tools=flat)
        if isinstance(items, list):
            fields = fields.with_values(
                input=[_item(object_in(each), sees_images=sees_images) for each in list_in(items)]
            )
        fields = _known_effort(fields)
        return Call(
            fields,
            streams=fields.flag("stream"),
            max_tokens=max_tokens,
            renamed=tuple(renamed.items()),
        )

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        document = object_in(decode(body))
        for item in list_in(document.get("output")):
            _restore(object_in(item), dict(call.renamed))
        _say_incomplete(document, call.max_tokens)
        return msgspec.json.encode(document), read_usage(object_in(document.get("usage")))

    @override
    def stream(self, call: Call) -> EventStream:
        return ResponseStream(call)

    @override
    def error_event(self, problem: ApiError) -> bytes:
        """The event that ends a response that failed; Codex and the SDKs go by it."""
        error = {"code": problem.code or "server_error", "message": problem.message}
        response: dict[str, Any] = {
            "id": "",
            "object": "response",
            "status": "failed",
            "error": error,
            "output": [],
        }
        return event_of({"type": "response.failed", "response": response}, "response.failed")

    @override
    def sign_of_life(self) -> bytes:
        return b'event: keepalive\ndata: {"type":"keepalive"}\n\n'


class ResponseStream(EventStream):
    """The events of a response.

    vllm-mlx puts a call's whole arguments into `output_item.added` and sends them again as a delta,
    without the event that says they are done; and it calls an answer that was cut off completed.
    """

    mark = re.compile(
        rb'(?m:^):|"type"\s*:\s*"(response\.(completed|failed|incomplete)|function_call|error)"'
    )
    end_mark = b"response.completed"

    def __init__(self, call: Call) -> None:
        super().__init__()
        self._call = call
        self._names = dict(call.renamed)

    @override
    def repair(self, event: bytes) -> bytes:
        document = document_of(event)
        kind = document.get("type") if document is not None else None
        if document is None or not isinstance(kind, str):
            return event
        before = b""
        match kind:
            case "response.output_item.added":
                item = object_in(document.get("item"))
                if item.get("type") == "function_call":
                    item["arguments"] = ""
                _restore(item, self._names)
            case "response.output_item.done":
                item = object_in(document.get("item"))
                if item.get("type") == "function_call":
                    before = _arguments_done(document, item)
                _restore(item, self._names)
            case "response.completed" | "response.incomplete":
                self.has_ended = True
                kind = self._finished(document)
            case "response.failed" | "error":
                self.has_ended = self.has_failed = True
            case _:
                return event
        return before + event_of(document, kind)

    def _finished(self, document: dict[str, Any]) -> str:
        response = object_in(document.get("response"))
        self.usage = read_usage(object_in(response.get("usage")))
        for item in list_in(response.get("output")):
            _restore(object_in(item), self._names)
        if _say_incomplete(response, self._call.max_tokens):
            document["type"] = "response.incomplete"
        return str(document["type"])


def _refuse_unserved(fields: Fields) -> None:
    """Raise a ApiError for what vllm-mlx refuses with a status that says nothing."""
    kind = object_in(object_in(fields.get("text")).get("format")).get("type")
    if kind not in (None, "text"):
        raise invalid(
            f"`text.format` {kind!r} is not supported by /v1/responses here; "
            "/v1/chat/completions has `response_format`.",
            param="text.format",
        )


def _flat_tools(fields: Fields) -> tuple[list[dict[str, Any]] | None, dict[str, str]]:
    """Tools as plain functions, and the names that stand for something else.

    vllm-mlx drops tools of the kinds `namespace` (Codex's MCP servers) and `custom` (its
    `apply_patch`) without a word. A tool of a namespace is called `namespace__name`, a custom tool
    takes its text in a field `input`.
    """
    tools = [object_in(tool) for tool in list_in(fields.get("tools"))]
    if not all(tools) or (not tools and fields.get("tools")):
        raise invalid("`tools` must be a list of objects.", param="tools")
    flat: list[dict[str, Any]] = []
    renamed: dict[str, str] = {}
    for tool in tools:
        name = str(tool.get("name", ""))
        match tool.get("type"):
            case "namespace":
                for inner in map(object_in, list_in(tool.get("tools"))):
                    joined = f"{name}{_SEPARATOR}{inner.get('name', '')}"
                    renamed[joined] = f"namespace:{name}"
                    flat.append({**inner, "type": "function", "name": joined})
            case "custom":
                renamed[name] = "custom:"
                flat.append(
                    {
                        "type": "function",
                        "name": name,
                        "description": tool.get("description") or "",
                        "parameters": _CUSTOM_INPUT,
                    }
                )
            case _:
                flat.append(tool)
    return (flat if renamed else None), renamed


def _item(item: dict[str, Any], *, sees_images: bool | None) -> dict[str, Any]:
    """An item of the input as the engine understands it."""
    if not item:
        raise invalid("Each item of `input` must be an object.", param="input")
    match item.get("type"):
        case "function_call_output" | "custom_tool_call_output":
            # the engine prints a list of texts as Python does
            output: object = item.get("output") or ""
            text = text_of_parts(list_in(item.get("output"))) or output
            return {**item, "type": "function_call_output", "output": text}
        case "custom_tool_call":
            arguments = msgspec.json.encode({"input": item.get("input") or ""}).decode()
            return {
                "type": "function_call",
                "call_id": item.get("call_id"),
                "name": item.get("name"),
                "arguments": arguments,
            }
        case "function_call" if item.get("namespace"):
            name = f"{item['namespace']}{_SEPARATOR}{item.get('name')}"
            return {
                key: value for key, value in {**item, "name": name}.items() if key != "namespace"
            }
        case "reasoning":
            # the engine answers 500 where these are null
            return {**item, **{key: list_in(item.get(key)) for key in ("summary", "content")}}
        case _:
            _refuse_images(item, sees_images=sees_images)
            return {key: value for key, value in item.items() if value is not None}


def _refuse_images(item: dict[str, Any], *, sees_images: bool | None) -> None:
    for part in list_in(item.get("content")):
        if object_in(part).get("type") == "input_image" and sees_images is not True:
            raise invalid("This model can't read images here.", param="input")


def _known_effort(fields: Fields) -> Fields:
    """The fields with an effort that the engine knows: it refuses `max`."""
    reasoning = object_in(fields.get("reasoning"))
    if reasoning.get("effort") == "max":
        return fields.with_values(reasoning={**reasoning, "effort": "xhigh"})
    return fields


def _restore(item: dict[str, Any], names: dict[str, str]) -> None:
    """A call under the name, and in the form, that the client's tool has."""
    name = item.get("name")
    if item.get("type") != "function_call" or not isinstance(name, str) or name not in names:
        return
    kind, _, namespace = names[name].partition(":")
    if kind == "namespace":
        item["namespace"] = namespace
        item["name"] = name.removeprefix(f"{namespace}{_SEPARATOR}")
        return
    item["type"] = "custom_tool_call"
    arguments = item.pop("arguments", "")
    try:
        item["input"] = msgspec.json.decode(arguments).get("input", "")
    except (msgspec.DecodeError, AttributeError):
        item["input"] = arguments


def _arguments_done(document: dict[str, Any], item: dict[str, Any]) -> bytes:
    """The event that says that a call's arguments are whole."""
    kind = "response.function_call_arguments.done"
    return event_of(
        {
            "type": kind,
            "item_id": item.get("id"),
            "output_index": document.get("output_index"),
            "arguments": item.get("arguments", ""),
            "sequence_number": document.get("sequence_number"),
        },
        kind,
    )


def _say_incomplete(response: dict[str, Any], max_tokens: int | None) -> bool:
    """Whether a response was cut off at its longest; it is marked so."""
    written = object_in(response.get("usage")).get("output_tokens")
    is_cut = response.get("status") == "incomplete" or (
        max_tokens is not None and isinstance(written, int) and written >= max_tokens
    )
    if is_cut:
        response["status"] = "incomplete"
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    return is_cut
