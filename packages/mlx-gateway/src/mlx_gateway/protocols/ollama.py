"""Ollama's API, asked of engines as Chat Completions, Completions and Embeddings. Pure.

Answers come as lines of JSON, which Ollama streams unless it is asked not to.

(decision 0083)
"""

import math
import re
import time
from base64 import b64decode
from binascii import Error as Base64Error
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal, cast, override

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, invalid, list_in, object_in
from mlx_gateway.protocols.api import Api, Call, answer_in
from mlx_gateway.protocols.checks import checked
from mlx_gateway.protocols.embeddings import Embeddings, Vectors, texts_to_embed
from mlx_gateway.protocols.events import (
    ANY_EVENT,
    EventStream,
    Usage,
    document_of,
    split_events,
)
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.tool_names import ClientTool, engine_name
from mlx_gateway.settings import ModelSettings, Role

API_VERSION = "0.12.6"
"""The version of Ollama whose API this is: clients look at it before they use what is new in it."""
_OPTIONS = {
    "repeat_penalty": "repetition_penalty",
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "seed",
                               "presence_penalty", "frequency_penalty", "stop")},
}  # fmt: skip
"""Of Ollama's options those that an engine has, by its name for them."""
_EFFORTS = ("low", "medium", "high")
_IMAGES = {
    b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg", b"RIFF": "image/webp",
    b"GIF8": "image/gif",
}  # fmt: skip
"""How a file begins, and the kind of image that it holds."""
_DURATION = re.compile(r"[+-]?((\d+(\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h))+|[+-]?\d+(\.\d+)?")
_DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h|)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1, "": 1, "m": 60, "h": 3600}


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any] = {}


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[_ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Options(msgspec.Struct):
    num_predict: int | None = None
    num_ctx: int | None = None
    stop: str | list[str] | None = None


class _Common(msgspec.Struct):
    options: _Options | None = None
    format: Literal["", "json"] | dict[str, Any] | None = None
    think: bool | str | None = None
    keep_alive: int | float | str | None = None
    logprobs: bool | None = None


class _ChatRequest(_Common):
    messages: list[_Message] | None = None
    tools: list[dict[str, Any]] | None = None


class _GenerateRequest(_Common):
    prompt: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None


class _EmbedRequest(msgspec.Struct):
    input: str | list[str] | None = None
    dimensions: int | None = None
    keep_alive: int | float | str | None = None


class _Ollama(Api):
    """What Ollama's calls have in common."""

    content_type = b"application/x-ndjson"

    @override
    def streams(self, fields: Fields) -> bool:
        return not self._only_loads(fields) and ("stream" not in fields or fields.flag("stream"))

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        raise NotImplementedError

    @override
    def as_sent(self, fields: Fields) -> Call:
        """The call for an upstream without faults, which speaks OpenAI's API all the same."""
        call = self.read(fields, sees_images=None)
        return replace(call, fields=call.fields.without("enable_thinking"))

    @override
    def error(self, problem: ApiError) -> bytes:
        return msgspec.json.encode({"error": problem.message})

    @override
    def error_event(self, problem: ApiError) -> bytes:
        return self.error(problem) + b"\n"

    @override
    def sign_of_life(self, model: str) -> bytes:
        """A line that adds nothing to the answer."""
        return _line({**_head(model), **self._said("", None), "done": False})

    @override
    def late_headers(self, headers: list[tuple[bytes, bytes]], model: str) -> bytes:
        """The headers in a line that adds nothing to the answer, since lines have no comments."""
        named = {name.decode(): value.decode("latin-1") for name, value in headers}
        return _line({**_head(model), **self._said("", None), "done": False, **named})

    def _only_loads(self, fields: Fields) -> bool:
        """Whether a request asks for nothing but a model that is ready, or unloaded."""
        raise NotImplementedError

    def _said(
        self, text: str, thinking: str | None, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """The fields of an answer that hold what the model says."""
        raise NotImplementedError

    def _loads(self, fields: Fields) -> Call:
        """The call that makes a model ready, or ends it."""
        keep_s = _keep_s(fields.get("keep_alive"))
        reason = "unload" if keep_s == 0 else "load"
        model = fields.text("model") or ""
        answer = {**_head(model), **self._said("", None), "done": True, "done_reason": reason}
        return Call(
            fields,
            ready_answer=msgspec.json.encode(answer),
            unloads=keep_s == 0,
            keep_s=keep_s,
        )

    def _stream_of(self, call: Call, stream: EventStream) -> EventStream:
        """The stream that says in lines what `stream` makes of the engine's events."""
        return _Lines(call, stream, self._said)

    def _whole_of(self, call: Call, usage: Usage, choice: dict[str, Any]) -> tuple[bytes, Usage]:
        """A whole answer, from the one choice of an engine's."""
        message = object_in(choice.get("message"))
        calls, rest = _calls(list_in(message.get("tool_calls")), call)
        text = message.get("content", choice.get("text")) or ""
        document = {
            **_head(_model(call)),
            **self._said(text + rest, message.get("reasoning_content"), calls),
            **_end(choice.get("finish_reason"), usage),
            "total_duration": _ns(time.monotonic() - call.began),
        }
        return msgspec.json.encode(document), usage


class OllamaChat(_Ollama):
    """`/api/chat`."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        request = checked(fields, _ChatRequest)
        if self._only_loads(fields):
            return self._loads(fields)
        names = [object_in(tool.get("function")).get("name") for tool in request.tools or ()]
        renamed = {engine_name(name): name for name in names if isinstance(name, str)}
        values = _common(fields, request)
        if request.tools:
            values["tools"] = [_tool(tool) for tool in request.tools]
        asked = _asked(fields, messages=_messages(request.messages or []), **values)
        call = _CHAT.read(asked, sees_images=sees_images)
        tools = {short: ClientTool(name) for short, name in renamed.items() if short != name}
        return _as_call(call, fields, "/v1/chat/completions", tools=tools)

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        body, usage = _CHAT.whole(body, call)
        return self._whole_of(call, usage, _choice(body))

    @override
    def stream(self, call: Call) -> EventStream:
        return self._stream_of(call, _CHAT.stream(call))

    @override
    def _only_loads(self, fields: Fields) -> bool:
        return not fields.get("messages")

    @override
    def _said(
        self, text: str, thinking: str | None, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": text}
        message |= {"thinking": thinking} if thinking else {}
        return {"message": message | ({"tool_calls": calls} if calls else {})}


class OllamaGenerate(_Ollama):
    """`/api/generate`: one message, or with `raw` a text as it stands."""

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        request = checked(fields, _GenerateRequest)
        for name in ("suffix", "template", "context"):
            if fields.get(name):
                raise invalid(f"`{name}` is not supported by this model's engine.", param=name)
        if self._only_loads(fields):
            return self._loads(fields)
        values = _common(fields, request)
        if request.raw:
            if request.images or "response_format" in values:
                raise invalid("`raw` can't be combined with `images` or `format`.", param="raw")
            asked = _asked(fields, prompt=request.prompt, **values)
            call = _COMPLETIONS.read(asked, sees_images=sees_images)
            return _as_call(call, fields, "/v1/completions")
        messages = [{"role": "system", "content": request.system}] if request.system else []
        user = _Message("user", request.prompt, images=request.images)
        asked = _asked(fields, messages=[*messages, *_messages([user])], **values)
        call = _CHAT.read(asked, sees_images=sees_images)
        return _as_call(call, fields, "/v1/chat/completions")

    @override
    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:
        body, usage = self._engines(call).whole(body, call)
        return self._whole_of(call, usage, _choice(body))

    @override
    def stream(self, call: Call) -> EventStream:
        return self._stream_of(call, self._engines(call).stream(call))

    @staticmethod
    def _engines(call: Call) -> Api:
        return _COMPLETIONS if "prompt" in call.fields else _CHAT

    @override
    def _only_loads(self, fields: Fields) -> bool:
        return not fields.get("prompt")

    @override
    def _said(
        self, text: str, thinking: str | None, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        return {"response": text} | ({"thinking": thinking} if thinking else {})


class OllamaEmbed(_Ollama):
    """`/api/embed`."""

    roles: frozenset[Role] = Embeddings.roles

    @override
    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:
        checked(fields, _EmbedRequest)
        if self._only_loads(fields):
            return self._loads(fields)
        asked = fields.only("model", "input", "dimensions")
        call = _as_call(Call(asked), fields, "/v1/embeddings")

        def joined(vectors: Vectors) -> tuple[bytes, Usage]:
            answer = {
                "model": _model(call),
                "embeddings": vectors.rows,
                "total_duration": _ns(time.monotonic() - call.began),
                "prompt_eval_count": vectors.tokens,
            }
            return msgspec.json.encode(answer), Usage(prompt_tokens=vectors.tokens)

        return replace(call, texts=texts_to_embed(asked, joined))

    @override
    def require(self, fields: Fields, model: ModelSettings) -> None:
        _EMBEDDINGS.require(fields, model)

    @override
    def streams(self, fields: Fields) -> bool:
        return False

    @override
    def _only_loads(self, fields: Fields) -> bool:
        return not fields.get("input")

    @override
    def _said(
        self, text: str, thinking: str | None, calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        return {"embeddings": []}


class _Lines(EventStream):
    """What an engine's stream says, a line a piece; a call of a tool comes in one piece."""

    marks = ANY_EVENT
    counts_at_stop = True

    def __init__(self, call: Call, stream: EventStream, said: Any) -> None:
        super().__init__()
        self.has_ended = False
        self._call = call
        self._stream = stream
        self._said = said
        self._began = time.monotonic()
        self._first_at: float | None = None
        self._calls: dict[object, dict[str, Any]] = {}
        self._finish_reason: object = None

    @override
    def opens(self, document: dict[str, Any]) -> bool:
        return self._stream.opens(document)

    @override
    def repair(self, event: bytes) -> bytes:
        events = split_events(self._stream.repair(event))
        lines = b"".join([self._lines_of(document_of(each) or {}) for each in events])
        self.failure: ApiError | UpstreamFailedError | None = self._stream.failure
        self.usage: Usage = self._stream.usage
        self.text: str = self._stream.text
        self.is_over: bool = self._stream.is_over
        if self._stream.has_ended and not self.has_ended:
            self.has_ended: bool = True
            lines += self._called()
            lines += b"" if self.is_over else self.ending(self.usage)
        return lines

    @override
    def ending(self, used: Usage) -> bytes:
        now = time.monotonic()
        first_at = now if self._first_at is None else self._first_at
        durations = {
            "total_duration": now - self._call.began,
            "prompt_eval_duration": first_at - self._began,
            "eval_duration": now - first_at,
        }
        return self._line(
            self._said("", None),
            **_end(self._finish_reason, used),
            **{name: _ns(seconds) for name, seconds in durations.items()},
        )

    def _lines_of(self, document: dict[str, Any]) -> bytes:
        if error := object_in(document.get("error")):
            return _line({"error": str(error.get("message") or "The engine failed.")})
        lines = b""
        for choice in map(object_in, list_in(document.get("choices"))):
            delta = object_in(choice.get("delta"))
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            for piece in map(object_in, list_in(delta.get("tool_calls"))):
                self._note_call(piece)
            thinking = delta.get("reasoning_content")
            text = delta.get("content", choice.get("text")) or ""
            if text or thinking:
                lines += self._line(self._said(text, thinking), done=False)
        return lines

    def _note_call(self, piece: dict[str, Any]) -> None:
        call = self._calls.setdefault(piece.get("index"), {"name": "", "arguments": ""})
        function = object_in(piece.get("function"))
        call["id"] = piece.get("id") or call.get("id")
        call["name"] = function.get("name") or call["name"]
        call["arguments"] += function.get("arguments") or ""

    def _called(self) -> bytes:
        pieces = [{"id": call.pop("id"), "function": call} for call in self._calls.values()]
        calls, rest = _calls(pieces, self._call)
        return self._line(self._said(rest, None, calls), done=False) if pieces else b""

    def _line(self, said: dict[str, Any], **more: object) -> bytes:
        if self._first_at is None:
            self._first_at = time.monotonic()
        return _line({**_head(_model(self._call)), **said, **more})


def _asked(fields: Fields, **values: object) -> Fields:
    """A request of OpenAI's, for the same model."""
    return fields.only("model").with_values(**values)


def _as_call(call: Call, asked: Fields, path: str, **more: Any) -> Call:
    """What OpenAI's API made of a request, as one of Ollama's."""
    form_param = "format" if call.form_param else ""
    began, keep_s = time.monotonic(), _keep_s(asked.get("keep_alive"))
    return replace(
        call, asked=asked, path=path, form_param=form_param, began=began, keep_s=keep_s, **more
    )


def _common(fields: Fields, request: _Common) -> dict[str, Any]:
    """What `/api/chat` and `/api/generate` share, in OpenAI's words.

    `num_ctx` is not among it: a model has the context that it was given, and a prompt that is
    longer is refused and never cut. Nor is what only Ollama's own engine knows.
    """
    options = object_in(fields.get("options"))
    values: dict[str, Any] = {
        name: options[option]
        for option, name in _OPTIONS.items()
        if options.get(option) is not None
    }
    limit = request.options.num_predict if request.options is not None else None
    if limit is not None and limit > 0:  # others mean no limit
        values["max_tokens"] = limit
    if request.logprobs:
        values["logprobs"] = True
    if request.format:
        values["response_format"] = _response_format(request.format)
    if request.think is not None:
        values |= _thinking(request.think)
    if "stream" not in fields or fields.flag("stream"):
        values |= {"stream": True, "stream_options": {"include_usage": True}}
    return values


def _response_format(form: str | dict[str, Any]) -> dict[str, Any]:
    if isinstance(form, str):
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": form}}


def _thinking(think: bool | str) -> dict[str, Any]:
    if isinstance(think, bool):
        return {"enable_thinking": think}
    if think not in _EFFORTS:
        raise invalid('`think` must be true, false, "low", "medium" or "high".', param="think")
    return {"enable_thinking": True, "reasoning_effort": think}


def _keep_s(keep_alive: float | str | None) -> float | None:
    """The seconds of a `keep_alive`, a number or as Go writes them; less than 0 is for ever.

    Raises:
        ApiError: When it is no duration.
    """
    if keep_alive is None or keep_alive == "":
        return None
    if isinstance(keep_alive, str):
        if not _DURATION.fullmatch(keep_alive):
            said = keep_alive[:40]
            raise invalid(f"`keep_alive` isn't a duration: {said!r}.", param="keep_alive")
        parts = _DURATION_PART.findall(keep_alive)
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in parts)
        keep_alive = -seconds if keep_alive.startswith("-") else seconds
    return math.inf if keep_alive < 0 else keep_alive


def _messages(messages: list[_Message]) -> list[dict[str, Any]]:
    """The messages in OpenAI's form; a result of a tool gets the id of the call that it answers."""
    found: list[dict[str, Any]] = []
    waiting: deque[tuple[str, str]] = deque()
    for position, message in enumerate(messages):
        row: dict[str, Any] = {"role": message.role, "content": _content(message)}
        if message.thinking:
            row["reasoning_content"] = message.thinking
        if message.tool_calls:
            row["tool_calls"] = calls = [
                _openai_call(call, f"call_{position}_{number}")
                for number, call in enumerate(message.tool_calls)
            ]
            waiting.extend((call["id"], call["function"]["name"]) for call in calls)
        if message.role == "tool":
            row["tool_call_id"] = _answered(message, waiting)
        found.append(row)
    return found


def _openai_call(call: _ToolCall, usual_id: str) -> dict[str, Any]:
    arguments = msgspec.json.encode(call.function.arguments).decode()
    function = {"name": engine_name(call.function.name), "arguments": arguments}
    return {"id": call.id or usual_id, "type": "function", "function": function}


def _answered(message: _Message, waiting: deque[tuple[str, str]]) -> str:
    """The id of the call that a result answers: the one it names, or the first without a result."""
    named = (message.tool_call_id, message.tool_name and engine_name(message.tool_name))
    fitting = (call for call in waiting if call[0] == named[0] or call[1] == named[1])
    call = next(fitting, None)
    if call is None and not any(named):
        call = next(iter(waiting), None)
    if call is None:
        return message.tool_call_id or ""
    waiting.remove(call)
    return call[0]


def _content(message: _Message) -> str | list[dict[str, Any]]:
    if not message.images:
        return message.content or ""
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": _image_url(image)}} for image in message.images
    ]
    return [{"type": "text", "text": message.content or ""}, *parts]


def _image_url(image: str) -> str:
    """An image in base64 as a URL.

    Raises:
        ApiError: When it is something else.
    """
    try:
        begin = b64decode(image[:16], validate=True)
    except Base64Error:
        begin = b""
    kind = next((kind for head, kind in _IMAGES.items() if begin.startswith(head)), None)
    if kind is None:
        raise invalid("`images` must be PNG, JPEG, WebP or GIF files in base64.", param="images")
    return f"data:{kind};base64,{image}"


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """A tool under the name that the engine takes."""
    function = object_in(tool.get("function"))
    name = function.get("name")
    if not isinstance(name, str):
        return tool  # Chat Completions says what is wrong with it
    return {"type": "function", "function": {**function, "name": engine_name(name)}}


def _calls(calls: list[Any], call: Call) -> tuple[list[dict[str, Any]], str]:
    """Calls of tools in Ollama's form; those whose arguments are no object, as text."""
    found: list[dict[str, Any]] = []
    rest = ""
    for number, each in enumerate(map(object_in, calls)):
        function = object_in(each.get("function"))
        name = str(function.get("name") or "")
        known = call.tools.get(name)
        name = name if known is None else known.name
        arguments: object = function.get("arguments") or "{}"
        try:
            read: object = msgspec.json.decode(str(arguments))
        except msgspec.DecodeError:
            read = None
        if not isinstance(read, dict):
            rest += f"{name} {arguments}"
            continue
        said = {"index": number, "name": name, "arguments": object_in(cast("object", read))}
        found.append({"id": each.get("id") or f"call_{number}", "function": said})
    return found, rest


def _choice(body: bytes) -> dict[str, Any]:
    return object_in(next(iter(list_in(answer_in(body).get("choices"))), None))


def _model(call: Call) -> str:
    return "" if call.asked is None else call.asked.text("model") or ""


def _head(model: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return {"model": model, "created_at": now}


def _end(finish_reason: object, usage: Usage) -> dict[str, Any]:
    """What the last line says besides."""
    counts = {"prompt_eval_count": usage.prompt_tokens, "eval_count": usage.completion_tokens}
    reason = "length" if finish_reason == "length" else "stop"
    known = {name: count for name, count in counts.items() if count is not None}
    return {"done": True, "done_reason": reason, **known}


def _line(document: dict[str, Any]) -> bytes:
    return msgspec.json.encode(document) + b"\n"


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


_CHAT, _COMPLETIONS, _EMBEDDINGS = ChatCompletions(), Completions(), Embeddings()
