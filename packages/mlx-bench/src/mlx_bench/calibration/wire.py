"""The bytes that a calibration server sends; pure."""

import json
from collections.abc import Sequence

import msgspec

from mlx_bench.calibration.schedule import Schedule

HEADERS = (
    b"HTTP/1.1 200 OK\r\nServer: mlx-bench-calibration\r\nContent-Type: text/event-stream\r\n"
    b"Transfer-Encoding: chunked\r\nCache-Control: no-store\r\n\r\n"
)
"""What precedes every stream."""

LAST_CHUNK = b"0\r\n\r\n"
"""What ends every stream."""


def http_response(status: int, body: object) -> bytes:
    """A whole JSON response."""
    payload = msgspec.json.encode(body)
    head = (
        f"HTTP/1.1 {status} Calibration\r\nServer: mlx-bench-calibration\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


def http_chunk(payload: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def answer_words(tokens: range) -> list[str]:
    """The words of these tokens of an answer."""
    # A character of three bytes: cutting a read inside it must do no harm.
    return [f"⟨{k}⟩" for k in tokens]


class StreamWriter:
    """Makes the frames of one stream as chunked bytes."""

    def __init__(self, schedule: Schedule, response_id: str, model: str) -> None:
        self._schedule = schedule
        self._id = response_id
        self._model = model
        self._before = (
            f'{{"id":{json.dumps(response_id)},"object":"chat.completion.chunk",'
            f'"model":{json.dumps(model)},"choices":[{{"index":0,"delta":{{"'
        )
        self._after = '"},"finish_reason":null}]}'

    def _frame(self, choices: list[object], **extra: object) -> bytes:
        body = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "model": self._model,
            "choices": choices,
            **extra,
        }
        return self._event(json.dumps(body, ensure_ascii=False))

    def _event(self, data: str) -> bytes:
        end = "\r\n" if self._schedule.crlf else "\n"
        payload = f"data: {data}{end}{end}".encode()
        if self._schedule.split:
            middle = len(payload) // 2
            return http_chunk(payload[:middle]) + http_chunk(payload[middle:])
        return http_chunk(payload)

    def role(self) -> bytes:
        """The role-only delta and an empty one, as most servers send them first."""
        role = self._frame([{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}])
        return role + self._frame([{"index": 0, "delta": {"content": ""}, "finish_reason": None}])

    def tokens(self, first: int, count: int) -> bytes:
        """One event that carries so many tokens, the first of them being token `first`."""
        text = "".join(f" {word}" for word in answer_words(range(first, first + count)))
        key = "reasoning_content" if first < self._schedule.reasoning else "content"
        comment = http_chunk(b": still here\n\n") if self._schedule.comments else b""
        # Spliced, not encoded: thousands of these are made a second, between deadlines.
        return comment + self._event(self._before + key + '":"' + text + self._after)

    def tool_call(self, index: int, name: str, arguments: str) -> bytes:
        """A whole tool call, as engines send it that parse calls out of the text."""
        call = {
            "index": index,
            "id": f"{self._id}-{index}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        return self._frame([{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}])

    def end(self, finish_reason: str, usage: dict[str, object] | None) -> bytes:
        """The finish reason, the usage if any, `[DONE]` and the end of the body."""
        choice = {"index": 0, "delta": dict[str, str](), "finish_reason": finish_reason}
        last = self._frame([choice])
        if usage is not None:
            last += self._frame([], usage=usage)
        return last + self._event("[DONE]") + LAST_CHUNK

    def error(self) -> bytes:
        """An error in mid-stream, as vLLM words it."""
        body = {"error": {"message": "The engine died.", "type": "InternalServerError"}}
        return self._event(json.dumps(body)) + LAST_CHUNK


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class CalledTool(msgspec.Struct):
    """A tool call that an assistant's message carries."""

    function: _Function


class WireMessage(msgspec.Struct):
    """One message of a request."""

    role: str = "user"
    content: str | None = ""
    tool_calls: list[CalledTool] = []


class RequestBody(msgspec.Struct):
    """What this server reads of a chat request."""

    model: str = ""
    messages: list[WireMessage] = []
    tools: list[dict[str, object]] = []
    max_tokens: int = 0
    max_completion_tokens: int = 0
    stream_options: dict[str, object] | None = None

    @property
    def limit(self) -> int:
        """The generation limit."""
        return self.max_tokens or self.max_completion_tokens or 16

    @property
    def first_tool(self) -> str:
        """The name of the first tool offered, or ""."""
        function = self.tools[0].get("function") if self.tools else None
        match function:
            case {"name": str(name)}:
                return name
            case _:
                return ""


def call_words(name: str, arguments: str) -> list[str]:
    """The tokens of a tool call, the same where it is generated and where it is read."""
    return ["<call>", name, *arguments.split()]


def prompt_words(request: RequestBody, schedule: Schedule) -> list[str]:
    """The prompt's tokens, as this server counts them.

    The template puts its tokens around the tools and the first message, one before each further
    message, and the assistant's at the end, where an answer goes on: so a conversation that has
    grown begins with the prompt and the answer before it.
    """
    if schedule.chars_per_token:
        joined = " ".join(message.content or "" for message in request.messages)
        size = max(1, round(schedule.chars_per_token))
        template = ["<template>"] * schedule.overhead
        return template + [joined[i : i + size] for i in range(0, len(joined), size)]
    before, after = max(schedule.overhead - 1, 0), min(schedule.overhead, 1)
    words = ["<template>"] * before
    if request.tools:
        words += json.dumps(request.tools).split()
    for position, message in enumerate(request.messages):
        words += [f"<{message.role}>"] if position else []
        words += (message.content or "").split()
        for call in message.tool_calls:
            words += call_words(call.function.name, call.function.arguments)
    return words + ["<assistant>"] * after


def shared_words(one: str, other: str) -> int:
    """How many whole words two texts that end in a line break share at their beginnings.

    The words are one a line; comparing slices of text is quick even for long prompts.
    """
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return one.count("\n", 0, low)


def as_lines(words: Sequence[str]) -> str:
    """The words as text for `shared_words`."""
    return "".join(f"{word}\n" for word in words)
