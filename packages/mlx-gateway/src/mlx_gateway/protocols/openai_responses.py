"""OpenAI's Responses: what vllm-mlx 0.6 gets wrong in it, and what Codex CLI needs of it."""

import time
from typing import Any, Literal, cast, override
from uuid import uuid4

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import (
    Api,
    Call,
    allows_one_call,
    answer_in,
    read_usage,
    without_later_calls,
)
from mlx_gateway.protocols.checks import Part, checked, positive
from mlx_gateway.protocols.events import (
    ANY_EVENT,
    EventStream,
    Usage,
    document_of,
    event_of,
    failure_in,
)
from mlx_gateway.protocols.openai_chat import text_of_parts
from mlx_gateway.protocols.tool_names import ClientTool, ClientTools, engine_name

OPENING = ("response.created", "response.in_progress")
"""The events that open a response and say nothing of it."""
_SAYING = ("message", "function_call", "function_call_output", "custom_tool_call",
           "custom_tool_call_output")  # fmt: skip
_PARTS = ("text", "input_text", "output_text", "input_image")
_CUSTOM_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
}


class _Item(msgspec.Struct):
    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | None = None


class _Tool(msgspec.Struct):
    type: str
    name: str | None = None


class _ResponseRequest(msgspec.Struct):
    input: str | list[_Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[_Tool] | None = None


class Responses(Api):
    """`/v1/responses`."""

    signs_open = True

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        request = checked(fields, _ResponseRequest)
        max_tokens = positive(fields, "max_output_tokens")
        tools, renamed = _function_tools(fields)
        if renamed:
            fields = fields.with_values(tools=tools)
        if not isinstance(request.input, str):
            if not any(item.type in _SAYING for item in request.input):
                raise invalid("`input` contains no message.", param="input")
            if request.previous_response_id is None:
                _check_outputs(request.input)
            items = [
                _item(kind, item, sees_images=sees_images)
                for kind, item in zip(request.input, fields.get("input"), strict=True)
            ]
            fields = fields.with_values(input=items)
        choice = object_in(fields.get("tool_choice"))
        if choice.get("name"):
            name = engine_name(str(choice["name"]), str(choice.get("namespace") or ""))
            fields = fields.with_values(tool_choice={"type": "function", "name": name})
        return Call(
            _known_effort(fields),
            streams=fields.flag("stream"),
            max_tokens=max_tokens,
            tools=renamed,
            one_tool_call=allows_one_call(fields),
        )

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        document = answer_in(body)
        if document.get("status") == "failed":
            raise UpstreamFailedError("it failed", str(failure_in(document)))
        usage = read_usage(object_in(document.get("usage")))
        if not call.tools and not call.one_tool_call:
            return body, usage
        _finish(document, call)
        return msgspec.json.encode(document), usage

    @override
    def stream(self, call: Call) -> EventStream:
        return ResponseStream(call)

    @override
    def error_event(self, problem: ApiError) -> bytes:
        """The event that ends a response that failed; Codex and the SDKs go by it."""
        error = {"code": problem.code or "server_error", "message": problem.message}
        response = new_response("failed", "", error=error)
        return event_of({"type": "response.failed", "response": response}, "response.failed")

    @override
    def sign_of_life(self, model: str) -> bytes:
        """What opens a response; the SDK refuses whatever comes before."""
        response = new_response("in_progress", model)
        return b"".join(
            event_of({"type": kind, "sequence_number": number, "response": response}, kind)
            for number, kind in enumerate(OPENING, start=1)
        )


class ResponseStream(EventStream):
    """The events of a response.

    vllm-mlx puts a call's whole arguments into `output_item.added` and sends them again as a delta,
    without the event that says they are done; and it calls the event `completed` that ends an
    answer which was cut off.
    """

    marks = (
        b"function_call", b"response.completed", b"response.failed", b"response.incomplete",
        b'"type":"error"', b'"type": "error"',
    )  # fmt: skip

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.has_ended = False
        self._call = call
        self._called: object = None
        self._added = 0
        self._id: str | None = None
        self._custom: set[object] = set()
        self._done: set[object] = set()

    @override
    def resume(self, opening: bytes) -> None:
        """Keep the id that the response was opened with; the SDK refuses a change of it."""
        created = document_of(opening.partition(b"\n\n")[0]) or {}
        self._id = object_in(created.get("response")).get("id")

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        self.is_opened: bool = document.get("type") == OPENING[-1]
        return document.get("type") in OPENING

    @override
    def repair(self, event: bytes) -> bytes:
        document = document_of(event)
        if document is None:
            return event
        if isinstance(document.get("sequence_number"), int):
            document["sequence_number"] += self._added
        kind, before = str(document.get("type")), b""
        if self._call.one_tool_call and self._is_later_call(document):
            self._added -= 1
            self.marks = ANY_EVENT
            return b""
        match kind:
            case "response.output_item.added" | "response.output_item.done":
                before = self._repair_item(kind, document, object_in(document.get("item")))
            case "response.function_call_arguments.delta":
                if document.get("item_id") in self._custom:
                    return b""  # these arguments are JSON, and the tool takes text
            case "response.function_call_arguments.done":
                self._done.add(document.get("item_id"))
            case "response.completed" | "response.incomplete":
                self.has_ended = True
                kind = self._finished(document)
            case "response.failed" | "error":
                self.has_ended: bool = True
                self.failure: ApiError | UpstreamFailedError | None = failure_in(document)
            case _:
                pass
        return before + event_of(document, kind)

    def _is_later_call(self, document: dict[str, Any]) -> bool:
        """Whether an event is of another call than the answer's first."""
        item = object_in(document.get("item"))
        if item.get("type") == "function_call" and self._called is None:
            self._called = item.get("id")
        is_of_call = item.get("type") == "function_call" or "arguments" in str(document.get("type"))
        return is_of_call and document.get("item_id", item.get("id")) != self._called

    def _repair_item(self, kind: str, document: dict[str, Any], item: dict[str, Any]) -> bytes:
        """Repair a call that begins or ends; what is to be sent before it."""
        if item.get("type") != "function_call":
            return b""
        arguments = item.get("arguments", "")
        if kind.endswith("added"):
            item["arguments"] = ""
        is_custom = _restore(item, self._call.tools)
        if is_custom:
            self._custom.add(item.get("id"))
            self.marks = ANY_EVENT
        elif kind.endswith("done") and item.get("id") not in self._done:
            return self._arguments_done(document, arguments)
        return b""

    def _finished(self, document: dict[str, Any]) -> str:
        response = object_in(document.get("response"))
        self.usage: Usage = read_usage(object_in(response.get("usage")))
        _finish(response, self._call)
        if self._id is not None:
            response["id"] = self._id
        if response.get("status") == "incomplete":
            document["type"] = "response.incomplete"
        return str(document["type"])

    def _arguments_done(self, document: dict[str, Any], arguments: object) -> bytes:
        """The event that says that a call's arguments are whole; later events move up by one."""
        kind = "response.function_call_arguments.done"
        done = {
            "type": kind,
            "item_id": object_in(document.get("item")).get("id"),
            "output_index": document.get("output_index"),
            "arguments": arguments,
            "sequence_number": document.get("sequence_number"),
        }
        if isinstance(document.get("sequence_number"), int):
            document["sequence_number"] += 1
        self._added += 1
        self.marks: tuple[bytes, ...] = ANY_EVENT
        return event_of(done, kind)


def new_response(status: str, model: str, **more: object) -> dict[str, Any]:
    """A response that the gateway makes up, with what the SDKs look for."""
    return {
        "id": f"resp_{uuid4().hex}",
        "object": "response",
        "created_at": int(time.time()),
        "status": status,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **more,
    }


def _function_tools(fields: Fields) -> tuple[list[dict[str, Any]], dict[str, ClientTool]]:
    """The tools as plain functions, and those among them that are something else to the client.

    vllm-mlx drops tools of the kinds `namespace` (Codex's MCP servers) and `custom` (its
    `apply_patch`) without a word. A tool of a namespace is called `namespace__name`, a custom tool
    takes its text in a field `input`.
    """
    tools = [object_in(tool) for tool in list_in(fields.get("tools"))]
    flat: list[dict[str, Any]] = []
    renamed: dict[str, ClientTool] = {}
    for tool in tools:
        is_space = tool.get("type") == "namespace"
        space = str(tool.get("name", "")) if is_space else ""
        for each in map(object_in, list_in(tool.get("tools"))) if is_space else (tool,):
            known = ClientTool(str(each.get("name") or ""), space, each.get("type") == "custom")
            if each.get("type") not in ("function", "custom"):
                flat.append(each)
                continue
            if not known.name:
                raise invalid("Each tool needs a `name`.", param="tools")
            name = engine_name(known.name, space)
            if name != known.name or known.is_custom:
                renamed[name] = known
            flat.append(_as_function(each, known, name))
    return flat, renamed


def _as_function(tool: dict[str, Any], known: ClientTool, name: str) -> dict[str, Any]:
    if not known.is_custom:
        return {**tool, "name": name}
    description = tool.get("description") or ""
    parameters = _CUSTOM_INPUT
    return {
        "type": "function", "name": name, "description": description, "parameters": parameters
    }  # fmt: skip


def _check_outputs(items: list[_Item]) -> None:
    """Raise an ApiError for a tool's output whose call isn't there."""
    called: set[str | None] = set()
    for item in items:
        if not item.type.endswith("_output"):
            called.add(item.call_id)
        elif item.call_id not in called:
            raise invalid(
                f"No tool call found for function call output with call_id {item.call_id}.",
                param="input",
            )


def _item(known: _Item, item: dict[str, Any], *, sees_images: bool | None) -> dict[str, Any]:
    """An item of the input as the engine understands it."""
    match known.type:
        case "function_call_output" | "custom_tool_call_output":
            return {**item, "type": "function_call_output", "output": _text(item.get("output"))}
        case "custom_tool_call" | "function_call":
            arguments = known.arguments or ""
            if known.type == "custom_tool_call":
                arguments = msgspec.json.encode({"input": item.get("input") or ""}).decode()
            name = engine_name(known.name or "", known.namespace or "")
            call_id = known.call_id or ""
            return {
                "type": "function_call", "call_id": call_id, "name": name, "arguments": arguments
            }  # fmt: skip
        case "reasoning":
            # the engine answers 500 where these are null
            return {**item, **{key: list_in(item.get(key)) for key in ("summary", "content")}}
        case _:
            _refuse_parts(known, sees_images=sees_images)
            return {"type": known.type} | {k: v for k, v in item.items() if v is not None}


def _text(output: object) -> str:
    """What a tool has put out; of a list of texts the engine prints Python's repr."""
    if isinstance(output, list):
        return text_of_parts(list_in(cast("object", output)))
    return output if isinstance(output, str) else msgspec.json.encode(output).decode()


def _refuse_parts(item: _Item, *, sees_images: bool | None) -> None:
    """Raise an ApiError for parts that vllm-mlx answers 500 to, or drops without a word."""
    for part in item.content if isinstance(item.content, list) else ():
        kind = part.type
        is_known = item.role == "assistant" or kind in _PARTS
        if not is_known or (kind == "input_image" and sees_images is not True):
            raise invalid(f"This model can't read parts of type {kind!r} here.", param="input")


def _known_effort(fields: Fields) -> Fields:
    """The fields with an effort that the engine knows: it refuses `max`."""
    reasoning = object_in(fields.get("reasoning"))
    if reasoning.get("effort") == "max":
        return fields.with_values(reasoning={**reasoning, "effort": "xhigh"})
    return fields


def _finish(response: dict[str, Any], call: Call) -> None:
    """Give a whole response no more calls than are allowed, each by its tool's own name."""
    output = list_in(response.get("output"))
    if call.one_tool_call:
        response["output"] = output = without_later_calls(output, "function_call")
    for item in output:
        _restore(object_in(item), call.tools)


def _restore(item: dict[str, Any], tools: ClientTools) -> bool:
    """Give a call the name and the form of the client's tool; whether it is a custom one."""
    tool = tools.get(str(item.get("name")))
    if item.get("type") != "function_call" or tool is None:
        return False
    item["name"] = tool.name
    if tool.namespace:
        item["namespace"] = tool.namespace
    if not tool.is_custom:
        return False
    item["type"] = "custom_tool_call"
    arguments = item.pop("arguments", "")
    try:
        item["input"] = object_in(msgspec.json.decode(arguments)).get("input", "")
    except (msgspec.DecodeError, TypeError):
        item["input"] = arguments
    return True
