"""What an API is to the gateway: how requests, answers, streams and errors of its kind look."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec

from mlx_gateway.errors import ApiError
from mlx_gateway.fields import Fields, list_in, object_in
from mlx_gateway.protocols.events import EventStream, Usage


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as its API understood it.

    Attributes:
        fields: What the engine is to get, but for the model's name.
        streams: Whether the answer comes as events.
        stops: The sequences before which the answer ends.
        max_tokens: The longest answer that the client takes, or None.
        wants_usage: Whether a stream is to end with what it used.
        prompt_tokens: The prompt's length, where it was counted before.
        renamed: Names of tools as the engine gets them, with those that the client gave.
    """

    fields: Fields
    streams: bool = False
    stops: tuple[str, ...] = ()
    max_tokens: int | None = None
    wants_usage: bool = False
    prompt_tokens: int | None = None
    renamed: tuple[tuple[str, str], ...] = ()

    def counted(self, prompt_tokens: int | None) -> "Call":
        """The same call, its prompt counted."""
        return replace(self, prompt_tokens=prompt_tokens)


class Api:
    """An API whose engines need no repair: what comes goes.

    Attributes:
        counts_first: Whether the stream's first event must say how long the prompt is.
    """

    counts_first = False

    def read(self, fields: Fields, *, sees_images: bool | None) -> Call:  # noqa: ARG002
        """The call that a request's fields mean.

        Args:
            fields: The fields of the request, none of them null.
            sees_images: Whether the model reads images; None where nobody knows.

        Raises:
            ApiError: When the request breaks the API's rules, or asks for what no engine does.
        """
        return Call(fields, streams=fields.flag("stream"))

    def whole(self, body: bytes, call: Call) -> tuple[bytes, Usage]:  # noqa: ARG002
        """An engine's whole answer as the client gets it, and what it used."""
        return body, usage_of(body)

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

    def sign_of_life(self) -> bytes:
        """An event that says nothing, for clients that give up on a silent stream."""
        return b": waiting\n\n"

    def countable(self, fields: Fields) -> dict[str, Any]:
        """The prompt in the form that the engine's `count_tokens` takes."""
        return {"messages": [{"role": "user", "content": prompt_text(fields)}]}


def usage_of(body: bytes) -> Usage:
    """What an answer says that it used, in OpenAI's or Anthropic's words."""
    try:
        usage = msgspec.json.decode(body, type=_HasUsage).usage or {}
    except msgspec.DecodeError:
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
    """Everything in a request that a model reads, as one text."""
    parts: list[str] = []
    for name in ("instructions", "system", "messages", "input", "prompt", "tools"):
        _collect(fields.get(name), parts)
    return "\n".join(parts)


def _collect(value: object, parts: list[str]) -> None:
    if isinstance(value, str):
        if not value.startswith("data:"):
            parts.append(value)
        return
    for each in (*object_in(value).values(), *list_in(value)):
        _collect(each, parts)


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _openai_type(status: int) -> str:
    if status in _OPENAI_TYPES:
        return _OPENAI_TYPES[status]
    return "server_error" if status >= 500 else "invalid_request_error"


class _HasUsage(msgspec.Struct):
    usage: dict[str, Any] | None = None


_OPENAI_TYPES = {403: "permission_error", 429: "rate_limit_error"}
_OPENAI_CODES = {401: "invalid_api_key", 404: "not_found"}
