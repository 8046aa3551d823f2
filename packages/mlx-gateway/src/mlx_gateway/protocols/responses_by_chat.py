"""Responses that are asked of the engine as Chat Completions: those whose answer must have a form.

And all, of an engine that has no other API.

vllm-mlx 0.6 knows `text.format` of the type `text` alone at `/v1/responses`, and answers 422 or 400
to others; its `/v1/chat/completions` holds a model to JSON and to a schema.

(decision 0082)
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, override
from uuid import uuid4

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.by_chat import CHAT, CHAT_PATH, ChatFailure, TranslatedChat, whole_answer
from mlx_gateway.protocols.events import ANY_EVENT, EventStream, Usage, event_of
from mlx_gateway.protocols.openai_chat import text_of_parts
from mlx_gateway.protocols.openai_responses import OPENING, Responses, ResponseStream, new_response

_FORM = "text.format"
_SAME = ("stream", "temperature", "top_p", "user", "parallel_tool_calls", "chat_template_kwargs")
_ECHOED = ("instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "reasoning",
           "temperature", "text", "tool_choice", "tools", "top_p", "user")  # fmt: skip
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}
_OUTPUTS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "message": ("msg", "output_text", {"role": "assistant"}, {"annotations": [], "logprobs": []}),
    "reasoning": ("rs", "reasoning_text", {"summary": []}, {}),
}
"""Of items with text: how their ids begin, the kind of their part, and what both hold besides."""


class ResponsesByChat(Responses):
    """`/v1/responses`, by way of `/v1/chat/completions` where the answer must have a form."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        call = super().read(fields, sees_images=sees_images)
        form = object_in(object_in(fields.get("text")).get("format"))
        if form.get("type") in (None, "text"):
            return call
        return replace(_by_chat(call, fields, form, sees_images=sees_images), form_param=_FORM)

    @override
    def by_chat(self, call: Call, fields: Fields, *, sees_images: bool | None) -> Call:
        if call.asked is not None:
            return call
        return _by_chat(call, fields, {}, sees_images=sees_images)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        if call.asked is None:
            return super().whole(body, call)
        answer, usage = whole_answer(body, call, partial(_Answer, call.asked))
        response, _ = super().whole(answer, call)
        return response, usage

    @override
    def stream(self, call: Call) -> EventStream:
        return super().stream(call) if call.asked is None else _ChatAsResponse(call, call.asked)


def _by_chat(call: Call, fields: Fields, form: dict[str, Any], *, sees_images: bool | None) -> Call:
    """The call as one of Chat Completions."""
    chat = CHAT.read(_chat_fields(call.fields, form), sees_images=sees_images)
    return replace(call, fields=chat.fields, path=CHAT_PATH, asked=fields)


class _ChatAsResponse(ResponseStream):
    """The chunks of a chat as the events that the engine's own Responses would have."""

    def __init__(self, call: Call, asked: Fields) -> None:
        super().__init__(call)
        self.marks: tuple[bytes, ...] = ANY_EVENT
        self._translated = TranslatedChat(
            call, lambda model: _Answer(asked, model, opened_as=self._id)
        )

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        return self._translated.chat.opens(document)

    @override
    def repair(self, event: bytes) -> bytes:
        said = b"".join(map(super().repair, self._translated.take(event)))
        chat = self._translated.chat
        self.failure: ChatFailure | None = chat.failure
        self.usage: Usage = chat.usage
        return said


class _Answer:
    """What a chat says, as a response that grows, and the events that tell of it.

    Args:
        asked: The client's own request.
        model: The model's name.
        opened_as: The id of a response that the client has seen open already.

    Attributes:
        document: The response so far.
    """

    def __init__(self, asked: Fields, model: str, opened_as: str | None = None) -> None:
        echo = {name: asked.get(name) for name in _ECHOED if name in asked}
        self.document: dict[str, Any] = new_response("in_progress", model, **echo)
        if opened_as is not None:
            self.document["id"] = opened_as
        self._is_open = opened_as is not None
        self._sent = 0
        self._items: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}

    def open(self) -> Iterator[bytes]:
        """The events that say nothing of the answer; later ones count on what the client has."""
        events = [self._event(kind, response=self.document) for kind in OPENING]
        return iter(() if self._is_open else events)

    def take(self, said: dict[str, Any]) -> Iterator[bytes]:
        """The events for a delta, or for a whole message."""
        for name, kind in (("reasoning_content", "reasoning"), ("content", "message")):
            if isinstance(text := said.get(name), str) and text:
                yield from self._take_text(kind, text)
        for call in map(object_in, list_in(said.get("tool_calls"))):
            yield from self._take_call(call)

    def end(self, finish_reason: object, usage: Usage) -> Iterator[bytes]:
        """The events that end each item and the response, which is `completed` even if cut."""
        reason = _CUT.get(str(finish_reason))
        status = "incomplete" if reason else "completed"
        for item, at in self._items.values():
            item["status"] = status
            for part in item.get("content", ()):
                kind = f"response.{part['type']}.done"
                yield self._event(kind, **at, content_index=0, text=part["text"])
                yield self._event("response.content_part.done", **at, content_index=0, part=part)
            index = at["output_index"]
            yield self._event("response.output_item.done", output_index=index, item=item)
        details = {"reason": reason} if reason else None
        self.document |= {"status": status, "incomplete_details": details, "usage": _usage(usage)}
        yield self._event("response.completed", response=self.document)

    def fail(self, failure: ChatFailure, _document: dict[str, Any]) -> bytes:
        """The event that ends a response that failed."""
        error = {"code": "server_error", "message": str(failure)}
        self.document |= {"status": "failed", "error": error}
        return self._event("response.failed", response=self.document)

    def _take_text(self, kind: str, text: str) -> Iterator[bytes]:
        prefix, part_kind, of_item, of_part = _OUTPUTS[kind]
        if kind not in self._items:
            part = {"type": part_kind, "text": "", **of_part}
            yield self._add(kind, prefix, {"type": kind, **of_item, "content": []})
            item, at = self._items[kind]
            item["content"].append(part)
            yield self._event("response.content_part.added", **at, content_index=0, part=part)
        item, at = self._items[kind]
        item["content"][0]["text"] += text
        yield self._event(f"response.{part_kind}.delta", **at, content_index=0, delta=text)

    def _take_call(self, call: dict[str, Any]) -> Iterator[bytes]:
        key, function = f"call {call.get('index', call.get('id'))}", object_in(call.get("function"))
        if key not in self._items:
            call_id, name = call.get("id") or f"call_{uuid4().hex}", function.get("name") or ""
            item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
            yield self._add(key, "fc", item)
        item, at = self._items[key]
        if isinstance(arguments := function.get("arguments"), str) and arguments:
            item["arguments"] += arguments
            yield self._event("response.function_call_arguments.delta", **at, delta=arguments)

    def _add(self, key: str, prefix: str, item: dict[str, Any]) -> bytes:
        """The event that a new item of the output begins."""
        item |= {"id": f"{prefix}_{uuid4().hex}", "status": "in_progress"}
        index = len(self._items)
        self._items[key] = item, {"item_id": item["id"], "output_index": index}
        self.document["output"].append(item)
        return self._event("response.output_item.added", output_index=index, item=item)

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sent += 1
        return event_of({"type": kind, "sequence_number": self._sent, **fields}, kind)


def _chat_fields(asked: Fields, form: dict[str, Any]) -> Fields:
    """A request of Responses, as the engine would get it there, as one of Chat Completions.

    Raises:
        ApiError: When something of it can't be had there.
    """
    if "previous_response_id" in asked:
        raise _unserved("previous_response_id", "send the conversation in `input`")
    choice = asked.get("tool_choice")
    if object_in(choice).get("type") == "function":
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    tools = map(object_in, list_in(asked.get("tools")))
    if not form:  # as the engines that have Responses do, which leave out what they can't call
        tools = (tool for tool in tools if tool.get("type") == "function")
    values = {
        "messages": _one_system_message(_messages(asked)),
        "response_format": _response_format(form) if form else None,
        "max_tokens": asked.get("max_output_tokens"),
        "reasoning_effort": object_in(asked.get("reasoning")).get("effort"),
        "tools": [_tool(tool) for tool in tools] or None,
        "tool_choice": choice,
        "stream_options": {"include_usage": True} if asked.flag("stream") else None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return asked.only(*_SAME).with_values(**given)


def _response_format(form: dict[str, Any]) -> dict[str, Any]:
    kind = form.get("type")
    if kind == "json_object":
        return {"type": kind}
    if kind != "json_schema":
        raise invalid("`text.format` is `text`, `json_object` or `json_schema`.", param=_FORM)
    if not isinstance(form.get("name"), str) or not isinstance(form.get("schema"), dict):
        raise invalid("`text.format` needs a `name` and a `schema`.", param=_FORM)
    named = ("name", "description", "schema", "strict")
    schema = {name: form[name] for name in named if form.get(name) is not None}
    return {"type": kind, "json_schema": schema}


def _messages(asked: Fields) -> list[dict[str, Any]]:
    """The instructions and the input as messages; a model's earlier thoughts are left out."""
    given, instructions = asked.get("input"), asked.get("instructions")
    messages: list[dict[str, Any]] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    for item in map(object_in, given):
        match item.get("type"):
            case "message":
                role = item.get("role") or "user"
                role = "system" if role == "developer" else role
                messages.append({"role": role, "content": _content(item.get("content"))})
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": ""})
                calls = messages[-1].setdefault("tool_calls", [])
                calls.append({"id": item["call_id"], "type": "function", "function": function})
            case "function_call_output":
                call_id = item.get("call_id") or ""
                messages.append(
                    {"role": "tool", "tool_call_id": call_id, "content": item["output"]}
                )
            case "reasoning":
                pass
            case kind:
                raise _unserved("input", f"leave items of type {kind!r} out")
    return messages


def _one_system_message(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages, what the system says first and as one, as many templates demand.

    vllm-mlx does so with its own Responses.
    """
    said = [message["content"] for message in messages if message["role"] == "system"]
    if not said or not all(isinstance(each, str) for each in said):
        return messages
    others = [message for message in messages if message["role"] != "system"]
    return [{"role": "system", "content": "\n\n".join(filter(None, said))}, *others]


def _content(content: object) -> str | list[dict[str, Any]]:
    parts = [object_in(part) for part in list_in(content)]
    if all("text" in part for part in parts):
        return content if isinstance(content, str) else text_of_parts(parts)
    return [_part(part) for part in parts]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if "text" in part:
        return {"type": "text", "text": part["text"]}
    if part.get("type") == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    raise _unserved("input", f"leave parts of type {part.get('type')!r} out")


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise _unserved("tools", f"leave tools of type {tool.get('type')!r} out")
    named = ("name", "description", "parameters")
    function = {name: tool[name] for name in named if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _unserved(param: str, advice: str) -> ApiError:
    message = f"`{param}` isn't supported in this form: {advice}."
    return invalid(message, param=param)


def _usage(usage: Usage) -> dict[str, Any] | None:
    """What a response says that it used; None where the engine did not say."""
    read, written = usage.prompt_tokens, usage.completion_tokens
    if read is None or written is None:
        return None
    return {
        "input_tokens": read, "input_tokens_details": {"cached_tokens": usage.cached_tokens or 0},
        "output_tokens": written, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }  # fmt: skip
