"""A streamed completion, understood after the fact from time-stamped reads.

While a stream runs, the client only stamps and keeps bytes; all decoding happens here, afterwards,
so that parsing one event never delays the stamp of the next. Everything in this module is pure.
"""

import codecs
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import msgspec

type Read = tuple[int, bytes]
"""One read of the response body: monotonic nanoseconds at which it returned, and its bytes."""


class ServerSentEvent(NamedTuple):
    """One event of a `text/event-stream`, stamped when the read that completed it returned.

    Attributes:
        at_ns: Monotonic nanoseconds.
        data: The joined `data` lines.
    """

    at_ns: int
    event: str
    data: str


class CountedBy(StrEnum):
    """Where a token count comes from."""

    USAGE = "usage"
    """The server's own `usage.completion_tokens`."""
    EVENTS = "events"
    """Non-empty deltas, each taken for one token: the server sent no usage."""


@dataclass(frozen=True, slots=True)
class TokenUsage:
    """Token counts as the server gives them; None for what it left out or gave as zero."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call of an answer.

    Attributes:
        id: The server's name for it, empty if it gave none.
        arguments: JSON, as the server sent it: whole only where the answer was not cut off.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stream answered.

    Attributes:
        text: The content, without the reasoning.
        has_reasoning: Whether there was reasoning, which clients don't send back.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    has_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What a stream said, and when.

    Attributes:
        response_id: The completion's `id`, empty if there was none.
        token_times_ns: One stamp for each non-empty content, reasoning or tool-call delta, in
            order.
        usage: The last usage that the stream carried, or None.
        finish_reason: `stop`, `length`, …, or None where the stream never said.
        ended_ns: The stamp of `[DONE]`, else of the last event, else None.
        is_done: Whether the stream said that it is whole: by `[DONE]`, a finish reason, or the
            frame with nothing but `usage` that comes last.
    """

    response_id: str
    token_times_ns: tuple[int, ...]
    usage: TokenUsage | None
    finish_reason: str | None
    ended_ns: int | None
    is_done: bool
    error: str | None
    answer: Answer = Answer()

    @property
    def counted_by(self) -> CountedBy:
        """Where `completion_tokens` comes from."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return CountedBy.USAGE
        return CountedBy.EVENTS

    @property
    def completion_tokens(self) -> int:
        """Tokens generated: the server's count, else the number of non-empty deltas."""
        if self.usage is not None and self.usage.completion_tokens is not None:
            return self.usage.completion_tokens
        return len(self.token_times_ns)


def split_events(reads: Iterable[Read]) -> Iterator[ServerSentEvent]:
    """The events in a sequence of reads, however the bytes were cut.

    Follows the WHATWG parsing rules that matter here: lines end in LF, CRLF or CR, a blank line
    dispatches, a line that starts with a colon is a comment, several `data` lines are joined by LF.
    An event without its blank line at the end of the stream is dispatched too, since some servers
    leave the last one out.
    """
    event, data = "", list[str]()
    at_ns = 0
    for at_ns, line in _split_lines(reads):
        if line:
            event, data = _take_field(line, event, data)
            continue
        if data:
            yield ServerSentEvent(at_ns, event, "\n".join(data))
        event, data = "", []
    if data:
        yield ServerSentEvent(at_ns, event, "\n".join(data))


def _split_lines(reads: Iterable[Read]) -> Iterator[Read]:
    """Each line, stamped as the read that completed it; what the stream left incomplete is last."""
    pending = last_byte = b""
    at_ns = 0
    for at_ns, block in reads:
        # A CRLF may be cut in two; its LF then ends no further line.
        text = block.removeprefix(b"\n") if last_byte == b"\r" else block
        last_byte = block[-1:] or last_byte
        pending += text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, pending = pending.split(b"\n")
        for line in lines:
            yield at_ns, line
    if pending:
        yield at_ns, pending


def _take_field(line: bytes, event: str, data: list[str]) -> tuple[str, list[str]]:
    name, _, value = line.removeprefix(codecs.BOM_UTF8).partition(b":")
    text = value.removeprefix(b" ").decode("utf-8", errors="replace")
    if name == b"data":
        return event, [*data, text]
    if name == b"event":
        return text, data
    return event, data


class _TokenDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _UsageFields(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _TokenDetails | None = None
    cache_read_input_tokens: int | None = None
    """Anthropic's name for the cached tokens, which some servers keep."""


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(msgspec.Struct):
    index: int | None = None
    id: str | None = None
    function: _FunctionDelta | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    """vLLM's newer name for `reasoning_content`."""
    tool_calls: list[_CallDelta] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether it carries no token."""
        calls = [call.function or _FunctionDelta() for call in self.tool_calls or ()]
        has_call = any(call.name or call.arguments for call in calls)
        return not (self.content or self.reasoning_content or self.reasoning or has_call)


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Frame(msgspec.Struct):
    """What the data of one event holds; some servers send `"error": null` in every one."""

    id: str | int | None = None
    kind: str | None = msgspec.field(default=None, name="object")
    error: object = None
    usage: _UsageFields | None = None
    choices: list[_Choice] | None = None


class _AnswerParts:
    """Puts an answer together from its deltas."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: dict[int, tuple[str, str, str]] = {}
        self._has_reasoning = False

    def add(self, delta: _Delta) -> None:
        """Take one delta; a call without an index is a call of its own."""
        self._text.append(delta.content or "")
        self._has_reasoning |= bool(delta.reasoning_content or delta.reasoning)
        for call in delta.tool_calls or ():
            index = len(self._calls) if call.index is None else call.index
            identifier, name, arguments = self._calls.get(index, ("", "", ""))
            function = call.function or _FunctionDelta()
            self._calls[index] = (
                identifier or call.id or "",
                name or function.name or "",
                arguments + (function.arguments or ""),
            )

    def answer(self) -> Answer:
        """The answer so far."""
        calls = tuple(ToolCall(*self._calls[index]) for index in sorted(self._calls))
        return Answer("".join(self._text), calls, self._has_reasoning)


_decode_frame = msgspec.json.Decoder(_Frame).decode


def parse_stream(reads: Sequence[Read]) -> Completion:
    """What a chat-completions (or completions) stream said, from its stamped reads.

    Role-only and empty deltas carry no token and no stamp, and an event without data is one of the
    ways to keep a connection alive. A frame that is not JSON or of another shape, and an `error`
    frame, end up in `error`.
    """
    response_id, finish_reason, error = "", None, None
    usage: TokenUsage | None = None
    times: list[int] = []
    parts = _AnswerParts()
    ended_ns: int | None = None
    is_done = False
    for event in split_events(reads):
        data = event.data.strip()
        if not data:
            continue
        ended_ns = event.at_ns
        if data == "[DONE]":
            is_done = True
            break
        try:
            frame = _decode_frame(data)
        except msgspec.DecodeError as problem:
            error = f"a frame that is not a completion chunk ({problem}): {data[:200]}"
            continue
        if frame.error or frame.kind == "error" or event.event == "error":
            error = server_message(data)
            continue
        response_id = response_id or str(frame.id or "")
        found = _token_usage(frame.usage)
        usage = found or usage
        choices = frame.choices or []
        is_done = is_done or (found is not None and not choices)
        for choice in choices:
            finish_reason = choice.finish_reason or finish_reason
            delta = choice.delta or _Delta(choice.text)
            parts.add(delta)
            if not delta.is_empty:
                times.append(event.at_ns)
    return Completion(
        response_id=response_id,
        token_times_ns=tuple(times),
        usage=usage,
        finish_reason=finish_reason,
        ended_ns=ended_ns,
        is_done=is_done or finish_reason is not None,
        error=error,
        answer=parts.answer(),
    )


def server_message(body: str) -> str:
    """What a server says in an error's JSON, in its own words."""
    try:
        answer: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return body.strip()[:300] or "(no text)"
    match answer:
        case (
            {"error": {"message": str(text)}}
            | {"error": str(text)}
            | {"detail": str(text)}
            | {"message": str(text)}
        ) if text:
            return text
        case _:
            return body.strip()[:300]


def _token_usage(fields: _UsageFields | None) -> TokenUsage | None:
    if fields is None or fields == _UsageFields():
        return None
    details = fields.prompt_tokens_details or _TokenDetails(fields.cache_read_input_tokens)
    return TokenUsage(
        prompt_tokens=_count(fields.prompt_tokens) or None,
        completion_tokens=_count(fields.completion_tokens) or None,
        cached_tokens=_count(details.cached_tokens),
    )


def _count(value: int | None) -> int | None:
    return value if value is not None and value >= 0 else None
