"""What an API is to the gateway: how requests, answers, streams and errors of its kind look."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import Fields, list_in, object_in
from mlx_gateway.protocols.events import EventStream, Usage
from mlx_gateway.protocols.texts import Texts
from mlx_gateway.protocols.tool_names import ClientTools
from mlx_gateway.settings import ModelSettings, Role


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as its API understood it.

    Attributes:
        fields: What the engine is to get, but for the model's name.
        stops: The sequences before which the answer ends.
        prompt_tokens: The prompt's length, where it was counted before.
        tools: The tools whose names had to be changed.
        form_param: The field that prescribes the answer's form; "" where none does.
        one_tool_call: Whether the answer may call no more than one tool.
        path: Where the engine is asked; "" for the path that the client asked.
        asked: The client's own fields, where the engine is asked in another API; else None.
        ready_answer: The answer to a request for nothing but a model that is ready, or ended; else
            empty.
        unloads: Whether it is one for a model that is ended.
        keep_s: For how long the client wants the model kept after this; None as it is set up.
        began: When the client asked, by the monotonic clock, where the answer must say it.
        texts: What the engine gets in pieces; None where it gets `fields` alone.
    """

    fields: Fields
    streams: bool = False
    stops: tuple[str, ...] = ()
    max_tokens: int | None = None
    wants_usage: bool = False
    prompt_tokens: int | None = None
    tools: ClientTools = field(default_factory=dict[str, Any])
    form_param: str = ""
    one_tool_call: bool = False
    path: str = ""
    asked: Fields | None = None
    ready_answer: bytes = b""
    unloads: bool = False
    keep_s: float | None = None
    began: float = 0.0
    texts: Texts[Any] | None = None

    def counted(self, prompt_tokens: int | None) -> "Call":
        """The same call, its prompt counted."""
        return replace(self, prompt_tokens=prompt_tokens)


class Api:
    """An API whose engines need no repair: what comes goes.

    Attributes:
        counts_first: Whether the stream's first event must say how long the prompt is.
        signs_open: Whether the first sign of life opens the answer, which then goes on.
        content_type: What a stream is, as its head says.
        takes_form: Whether it is asked in a multipart form with a file, rather than in JSON.
        roles: What a model must be for.
    """

    counts_first = False
    signs_open = False
    content_type = b"text/event-stream; charset=utf-8"
    takes_form = False
    roles: frozenset[Role] = frozenset({Role.CHAT, Role.VISION})

    def streams(self, fields: Fields) -> bool:
        """Whether the client wants the answer piece by piece.

        Raises:
            ApiError: When it doesn't say so in a way that can be understood.
        """
        return fields.flag("stream")

    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:  # noqa: ARG002
        """The call that a request's fields mean to an engine.

        Args:
            fields: The fields of the request, none of them null.
            sees_images: Whether the model reads images; None where nobody knows.

        Raises:
            ApiError: When the request breaks the API's rules, or asks for what no engine does.
        """
        return self.as_sent(fields)

    def as_sent(self, fields: Fields) -> Call:
        """The call for an upstream that speaks the API without faults: nothing is changed."""
        options = object_in(fields.get("stream_options"))
        return Call(
            fields, streams=fields.flag("stream"), wants_usage=bool(options.get("include_usage"))
        )

    def by_chat(self, call: Call, fields: Fields, *, sees_images: bool | None) -> Call:  # noqa: ARG002
        """The call for an engine that only has OpenAI's Chat Completions and Completions.

        Args:
            call: What `read` made of the fields.

        Raises:
            ApiError: When nothing translates it.
        """
        return call

    def counted(self, call: Call) -> dict[str, Any]:
        """What an engine's `count_tokens` is asked, to say how long the prompt is."""
        return countable(prompt_text(call.fields))

    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:  # noqa: ARG002
        """An engine's whole answer as the client gets it, and what it used.

        Raises:
            UpstreamFailedError: When it is no answer but a failure.
        """
        return body, usage_of(body)

    def answer_type(self, call: Call) -> bytes:  # noqa: ARG002
        """The content type of what `whole` gives."""
        return b"application/json"

    def require(self, fields: Fields, model: ModelSettings) -> None:
        """Return if `model` can do what is asked, as far as its settings say.

        Raises:
            ApiError: When it can't.
        """

    def stream(self, call: Call) -> EventStream:  # noqa: ARG002
        """What passes an answer's events on."""
        return EventStream()

    def error(self, problem: ApiError) -> bytes:
        """An error as a JSON document: OpenAI's shape."""
        error = {
            "message": problem.message,
            "type": _openai_type(problem.status),
            "param": problem.param,
            "code": problem.code or _OPENAI_CODES.get(problem.status),
        }
        return msgspec.json.encode({"error": error})

    def error_event(self, problem: ApiError) -> bytes:
        """An error in the middle of a stream."""
        return b"data: " + self.error(problem) + b"\n\ndata: [DONE]\n\n"

    def sign_of_life(self, model: str) -> bytes:  # noqa: ARG002
        """Events that say nothing, for clients that give up on a silent stream.

        The last of them is sent again and again. `model` is the name that the client asked for.
        """
        return b": waiting\n\n"

    def late_headers(self, headers: list[tuple[bytes, bytes]], model: str) -> bytes:  # noqa: ARG002
        """Headers that were known only after a sign of life had gone out, in the stream itself."""
        lines = (b": " + name + b": " + value for name, value in headers)
        return b"\n".join(lines) + b"\n\n"


def countable(text: str) -> dict[str, Any]:
    """A text in the form in which an engine's `count_tokens` counts it as it stands.

    The text of a message gets what the chat template puts around it.
    """
    return {"system": text, "messages": []}


def answer_in(body: bytes) -> dict[str, Any]:
    """The JSON object that an engine answered with.

    Raises:
        UpstreamFailedError: When it is none.
    """
    return decoded_answer(body, dict[str, Any], "a JSON object")


def decoded_answer[T](body: bytes, kind: type[T], what: str) -> T:
    """What an engine answered with, as a value of `kind`.

    Args:
        what: Such a value in words, for the error.

    Raises:
        UpstreamFailedError: When it is none.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamFailedError(f"its answer isn't {what}", str(error)) from error


def allows_one_call(fields: Fields) -> bool:
    """Whether `parallel_tool_calls` forbids a second call, of which vllm-mlx takes no notice."""
    return "parallel_tool_calls" in fields and not fields.flag("parallel_tool_calls")


def without_later_calls(items: list[Any], kind: str) -> list[Any]:
    """The items of an answer but for those of this kind after the first."""
    calls = [item for item in items if object_in(item).get("type") == kind]
    return [item for item in items if item not in calls[1:]]


def usage_of(body: bytes) -> Usage:
    """What an answer says that it used, in OpenAI's or Anthropic's words."""
    try:
        usage = msgspec.json.decode(body, type=_HasUsage).usage or {}
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Usage()
    return read_usage(usage)


def read_usage(usage: dict[str, Any]) -> Usage:
    """A usage object in OpenAI's or Anthropic's words; what makes no sense is unknown."""
    details = object_in(usage.get("prompt_tokens_details") or usage.get("input_tokens_details"))
    cached = details.get("cached_tokens", usage.get("cache_read_input_tokens"))
    return Usage(
        prompt_tokens=_count(usage.get("prompt_tokens", usage.get("input_tokens"))),
        cached_tokens=_count(cached),
        completion_tokens=_count(usage.get("completion_tokens", usage.get("output_tokens"))),
    )


def prompt_text(fields: Fields) -> str:
    """Everything in a request that a model reads, as one text, nearly as a chat template has it."""
    tools = [object_in(tool) for tool in list_in(fields.get("tools"))]
    parts = [fields.raw("tools").decode()]
    parts += ['{"type": "function", "function": }' for tool in tools if "function" not in tool]
    names = ("prompt", "input", "messages", "system", "instructions")
    unread: list[object] = [fields.get(name) for name in names]
    while unread:
        value = unread.pop()
        if isinstance(value, str):
            parts.append(value)
        for key, inner in reversed(object_in(value).items()):
            if key == "input" and isinstance(inner, dict):
                inner = msgspec.json.encode(inner).decode()  # noqa: PLW2901 - a call's arguments
            if key not in _NOT_READ:
                unread.append(inner)
        unread += reversed(list_in(value))
    return "\n".join(parts)


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


def _openai_type(status: int) -> str:
    if status in _OPENAI_TYPES:
        return _OPENAI_TYPES[status]
    return "server_error" if status >= 500 else "invalid_request_error"


class _HasUsage(msgspec.Struct):
    usage: dict[str, Any] | None = None


_NOT_READ = frozenset(
    {
        "id",
        "call_id",
        "tool_call_id",
        "tool_use_id",
        "signature",
        "cache_control",
        "data",
        "url",
        "images",
    }
)
_OPENAI_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_OPENAI_CODES = {401: "invalid_api_key", 404: "not_found"}
