"""Messages that are asked of the engine as Chat Completions, where it has no other API. Pure.

What the chat says becomes the events that an engine's own Messages would have, so that the repairs
of these (names of tools, stop sequences, one call at a time, input tokens) are the same for both.
No engine has a budget for thoughts: a `thinking` that has one lets the model think, as the template
has it.

(decision 0105)
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, override
from uuid import uuid4

import msgspec

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.anthropic_messages import CountTokens, Messages, MessageStream
from mlx_gateway.protocols.api import Call
from mlx_gateway.protocols.by_chat import CHAT, CHAT_PATH, ChatFailure, TranslatedChat, whole_answer
from mlx_gateway.protocols.events import EventStream, Usage, event_of
from mlx_gateway.protocols.openai_chat import text_of_parts

_SAME = ("stream", "max_tokens", "temperature", "top_p", "top_k", "response_format")
_READ = ("messages", "tools", "tool_choice", "chat_template_kwargs")
"""The fields that a prompt is made of."""
_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_THINKS = {"enabled": True, "disabled": False}
_CUT = {"length": "max_tokens", "content_filter": "refusal"}
_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}}


class MessagesByChat(Messages):
    """`/v1/messages`, by way of `/v1/chat/completions` where the engine only has that."""

    @override
    def by_chat(self, call: Call, fields: Fields, *, sees_images: bool | None) -> Call:
        chat = _chat_call(call, sees_images=sees_images)
        return replace(call, fields=chat.fields, path=CHAT_PATH, asked=fields)

    @override
    def counted(self, call: Call) -> dict[str, Any]:
        if call.asked is None:
            return super().counted(call)
        return {name: call.fields.get(name) for name in _READ if name in call.fields}

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        if call.asked is None:
            return super().whole(body, call)
        answer, usage = whole_answer(body, _uncut(call), _Answer)
        message, _ = super().whole(answer, call)
        return message, usage

    @override
    def stream(self, call: Call) -> EventStream:
        return super().stream(call) if call.asked is None else _ChatAsMessage(call)


class CountTokensByChat(CountTokens):
    """`/v1/messages/count_tokens`, of the chat that `/v1/messages` would send."""

    @override
    def by_chat(self, call: Call, fields: Fields, *, sees_images: bool | None) -> Call:
        chat = _chat_call(call, sees_images=sees_images)
        return replace(call, fields=chat.fields.only(*_READ), asked=fields)


def _chat_call(call: Call, *, sees_images: bool | None) -> Call:
    """The call as one of Chat Completions."""
    return CHAT.read(_chat_fields(call.fields, sees_images=sees_images), sees_images=sees_images)


def _uncut(call: Call) -> Call:
    """The call without what is cut from messages once they are some."""
    return replace(call, stops=(), one_tool_call=False)


class _ChatAsMessage(MessageStream):
    """The chunks of a chat as the events that the engine's own Messages would have."""

    def __init__(self, call: Call) -> None:
        super().__init__(call)
        self._translated = TranslatedChat(_uncut(call), _Answer)

    @override
    def _needs_look(self, data: bytes) -> bool:
        return True

    @override
    def _looked_at(self, event: bytes) -> bytes:
        if self.is_over:
            return b""
        events, chat = self._translated.take(event), self._translated.chat
        if chat.has_ended and chat.usage.prompt_tokens is not None:
            self.usage: Usage = chat.usage
        said = b"".join(map(super()._looked_at, events))
        if chat.failure is not None:
            self.failure: ChatFailure | None = chat.failure
        return said


class _Answer:
    """What a chat says, as a message that grows, and the events that tell of it.

    Thoughts and text are told as they come. Calls are told at the end, one after the other, since
    the pieces of several may come in any order, and text between them.

    Attributes:
        document: The message so far.
    """

    def __init__(self, model: str) -> None:
        self.document: dict[str, Any] = {
            "id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model,
            "content": [], "stop_reason": None, "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }  # fmt: skip
        self._content: list[dict[str, Any]] = self.document["content"]
        self._open = ""
        self._blank = ""
        self._calls: dict[object, dict[str, str]] = {}

    def open(self) -> Iterator[bytes]:
        """The event that says nothing of the answer."""
        yield _event("message_start", message=self.document)

    def take(self, said: dict[str, Any]) -> Iterator[bytes]:
        """The events for a delta, or for a whole message."""
        if isinstance(thoughts := said.get("reasoning_content"), str) and thoughts:
            yield from self._say("thinking", thoughts)
        if isinstance(text := said.get("content"), str) and text:
            self._blank += text
            if self._open == "text" or self._blank.strip():
                yield from self._say("text", self._blank)
                self._blank = ""
        for number, call in enumerate(map(object_in, list_in(said.get("tool_calls")))):
            self._note_call(call.get("index", number), call)

    def end(self, finish_reason: object, usage: Usage) -> Iterator[bytes]:
        """The events of the calls, and those that end the last block and the message."""
        calls, rest = _read_calls(self._calls.values())
        if rest or (self._blank and not calls):  # blanks before a call are no text
            yield from self._say("text", self._blank + rest)
        for block, arguments in calls:
            yield from self._begin({**block, "input": {}})
            self._content[-1] = block
            yield self._delta("input_json_delta", partial_json=arguments)
        if not self._content:
            yield from self._begin({"type": "text", "text": ""})
        yield from self._close()
        reason = _CUT.get(str(finish_reason)) or ("tool_use" if calls else "end_turn")
        used = {"output_tokens": usage.completion_tokens}
        if usage.prompt_tokens is not None:
            used = {"input_tokens": usage.prompt_tokens, **used}
        self.document |= {"stop_reason": reason, "usage": used}
        delta = {"stop_reason": reason, "stop_sequence": None}
        yield _event("message_delta", delta=delta, usage=used)
        yield _event("message_stop")

    def fail(self, failure: ChatFailure, document: dict[str, Any]) -> bytes:
        """The event that says that there is no more of the answer, and why."""
        kind = "invalid_request_error" if isinstance(failure, ApiError) else "api_error"
        reason = object_in(document.get("error")).get("message") or str(failure)
        return _event("error", error={"type": kind, "message": reason})

    def _say(self, kind: str, text: str) -> Iterator[bytes]:
        """The events for a piece of text, or of thoughts."""
        if self._open != kind:
            yield from self._begin({"type": kind, kind: ""})
        self._content[-1][kind] += text
        yield self._delta(f"{kind}_delta", **{kind: text})

    def _begin(self, block: dict[str, Any]) -> Iterator[bytes]:
        yield from self._close()
        self._content.append(block)
        self._open = block["type"]
        index = len(self._content) - 1
        yield _event("content_block_start", index=index, content_block=block)

    def _close(self) -> Iterator[bytes]:
        if self._open:
            self._open = ""
            yield _event("content_block_stop", index=len(self._content) - 1)

    def _delta(self, kind: str, **said: str) -> bytes:
        index = len(self._content) - 1
        return _event("content_block_delta", index=index, delta={"type": kind, **said})

    def _note_call(self, key: object, piece: dict[str, Any]) -> None:
        function = object_in(piece.get("function"))
        call = self._calls.setdefault(key, {"id": "", "name": "", "arguments": ""})
        call["id"] = call["id"] or str(piece.get("id") or "")
        call["name"] = call["name"] or str(function.get("name") or "")
        call["arguments"] += str(function.get("arguments") or "")


def _read_calls(
    calls: Iterable[dict[str, str]],
) -> tuple[list[tuple[dict[str, Any], str]], str]:
    """Calls as blocks, each with its arguments as they came; those of no object as text."""
    found: list[tuple[dict[str, Any], str]] = []
    rest = ""
    for call in calls:
        arguments = call["arguments"] or "{}"
        try:
            given = msgspec.json.decode(arguments, type=dict[str, Any])
        except msgspec.DecodeError:
            rest += f"{call['name']} {arguments}"
            continue
        call_id = call["id"] or f"toolu_{uuid4().hex}"
        block = {"type": "tool_use", "id": call_id, "name": call["name"], "input": given}
        found.append((block, arguments))
    return found, rest


def _event(kind: str, **fields: Any) -> bytes:
    return event_of({"type": kind, **fields}, kind)


def _chat_fields(asked: Fields, *, sees_images: bool | None) -> Fields:
    """A request of Messages, as the engine would get it there, as one of Chat Completions.

    Raises:
        ApiError: When something of it can't be had there.
    """
    values = {
        "messages": _messages(asked, sees_images=sees_images),
        "stop": asked.get("stop_sequences") or None,
        "tools": [_tool(tool) for tool in list_in(asked.get("tools"))] or None,
        "tool_choice": _tool_choice(object_in(asked.get("tool_choice"))),
        "chat_template_kwargs": _template_words(asked) or None,
        "stream_options": {"include_usage": True} if asked.flag("stream") else None,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return asked.only(*_SAME).with_values(**given)


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    function = {
        "name": tool["name"],
        "description": tool.get("description") or "",
        "parameters": tool.get("input_schema") or _NO_PARAMETERS,
    }
    return {"type": "function", "function": function}


def _tool_choice(choice: dict[str, Any]) -> object:
    """The choice of a tool; None where there is none."""
    match kind := choice.get("type"):
        case None:
            return None
        case "tool":
            return {"type": "function", "function": {"name": choice["name"]}}
        case str() if kind in _CHOICES:
            return _CHOICES[kind]
        case _:
            problem = "tool_choice.type: must be `auto`, `any`, `tool` or `none`"
            raise invalid(problem, param="tool_choice")


def _template_words(asked: Fields) -> dict[str, Any]:
    """What the chat template hears: whether to think, unless the request says that itself."""
    thinks = _THINKS.get(str(object_in(asked.get("thinking")).get("type")))
    words = {} if thinks is None else {"enable_thinking": thinks}
    return words | object_in(asked.get("chat_template_kwargs"))


def _messages(asked: Fields, *, sees_images: bool | None) -> list[dict[str, Any]]:
    """The messages of a chat; whatever speaks for the system comes first, as templates need it."""
    systems = [_text(asked.get("system"))]
    rows: list[dict[str, Any]] = []
    for message in list_in(asked.get("messages")):
        content = message["content"]
        match message["role"]:
            case "system":
                systems.append(_text(content))
            case "assistant":
                rows.append(_of_assistant(content))
            case _:
                rows += _of_user(content, sees_images=sees_images)
    system = "\n\n".join(filter(None, systems))
    return [{"role": "system", "content": system}, *rows] if system else rows


def _text(content: object) -> str:
    """The texts of a content, a line each."""
    if isinstance(content, str):
        return content
    return text_of_parts([block for block in list_in(content) if block.get("text")])


def _of_assistant(content: object) -> dict[str, Any]:
    """An answer of before, its thoughts where templates look for them."""
    blocks = list_in(content)
    row: dict[str, Any] = {"role": "assistant", "content": _text(content)}
    thoughts = [block["thinking"] for block in blocks if isinstance(block.get("thinking"), str)]
    if any(thoughts):
        row["reasoning_content"] = "\n".join(thoughts)
    calls = [_call(block) for block in blocks if block["type"] == "tool_use"]
    return {**row, "tool_calls": calls} if calls else row


def _call(block: dict[str, Any]) -> dict[str, Any]:
    arguments = msgspec.json.encode(object_in(block.get("input"))).decode()
    function = {"name": block.get("name") or "", "arguments": arguments}
    return {"id": block.get("id") or "", "type": "function", "function": function}


def _of_user(content: object, *, sees_images: bool | None) -> list[dict[str, Any]]:
    """A message of the user, in which results of tools stand alone, as messages of a chat."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    rows: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in list_in(content):
        if block["type"] == "tool_result":
            text, images = _result(block, sees_images=sees_images)
            call_id = block.get("tool_use_id") or ""
            rows.append({"role": "tool", "tool_call_id": call_id, "content": text})
            parts += images
        elif block["type"] != "text" or block["text"]:
            parts.append(_part(block))
    if parts or not rows:
        only_texts = all(part["type"] == "text" for part in parts)
        rows.append({"role": "user", "content": _text(parts) if only_texts else parts})
    return rows


def _result(block: dict[str, Any], *, sees_images: bool | None) -> tuple[str, list[dict[str, Any]]]:
    """The text of a tool's result, and its images for a model that sees.

    What the model can't read is named in the text, so that the model doesn't take it for nothing.
    """
    content = block.get("content")
    texts: list[str] = [content] if isinstance(content, str) else []
    images: list[dict[str, Any]] = []
    for part in list_in(content):
        source = object_in(part.get("source"))
        match kind := part["type"]:
            case "text":
                texts.append(part["text"])
            case "image" if sees_images is not False:
                images.append(_part(part))
            case "document" if isinstance(source.get("data"), str) and source.get("type") == "text":
                texts.append(source["data"])
            case _:
                texts.append(f"[{kind}: can't be read by this model]")
    if block.get("is_error") and not any(texts):
        texts = ["The tool failed."]
    return "\n".join(texts), images


def _part(block: dict[str, Any]) -> dict[str, Any]:
    """A block of text or an image, as a part of a chat's message.

    Raises:
        ApiError: When the image isn't there.
    """
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    source = object_in(block.get("source"))
    match source:
        case {"type": "base64", "media_type": str(kind), "data": str(data)}:
            url = f"data:{kind};base64,{data}"
        case {"type": "url", "url": str(url)}:
            pass
        case _:
            problem = "messages: an image needs a `source` of the type `base64` or `url`"
            raise invalid(problem, param="messages")
    return {"type": "image_url", "image_url": {"url": url}}
