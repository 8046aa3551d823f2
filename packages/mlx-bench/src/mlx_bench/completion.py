"""A streamed completion, understood after the fact from time-stamped reads.

While a stream runs, the client only stamps and keeps bytes; all decoding happens here, afterwards,
so that parsing one event never delays the stamp of the next. Everything in this module is pure.
"""

import codecs
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_bench._json_values import as_count, as_list, as_object, as_text, object_or_none

type Read = tuple[int, bytes]
"""One read of the response body: monotonic nanoseconds at which it returned, and its bytes."""


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event of a `text/event-stream`, stamped when the read that completed it returned.

    Attributes:
        at_ns: Monotonic nanoseconds.
        event: The event's name, empty for the default.
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
class Usage:
    """Token counts as the server gives them; None for what it left out or gave as zero."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class Completion:
    """What a stream said, and when.

    Attributes:
        response_id: The completion's `id`, empty if there was none.
        token_times_ns: One stamp for each non-empty content or reasoning delta, in order.
        reasoning_events: How many of these were reasoning.
        text_chars: Characters of content and reasoning together.
        usage: The last usage that the stream carried, or None.
        finish_reason: `stop`, `length`, …, or None where the stream never said.
        ended_ns: The stamp of `[DONE]`, else of the last event, else None.
        is_done: Whether the stream said that it is whole: by `[DONE]`, a finish reason, or the
            frame with nothing but `usage` that comes last.
        error: What the server reported inside the stream, or None.
    """

    response_id: str
    token_times_ns: tuple[int, ...]
    reasoning_events: int
    text_chars: int
    usage: Usage | None
    finish_reason: str | None
    ended_ns: int | None
    is_done: bool
    error: str | None

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
        # A CRLF may be cut in two; its LF then ends no line of its own.
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


def understand_stream(reads: Sequence[Read]) -> Completion:
    """What a chat-completions (or completions) stream said, from its stamped reads.

    Role-only and empty deltas carry no token and no stamp, and an event without data is one of the
    ways to keep a connection alive. A frame that is no JSON, and an `error` frame, end up in
    `error`.
    """
    response_id, finish_reason, error = "", None, None
    usage: Usage | None = None
    times: list[int] = []
    reasoning_events = text_chars = 0
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
        frame = _decode_frame(event.data)
        if frame is None or _is_error(event, frame):
            error = _error_text(frame, event.data)
            continue
        response_id = response_id or as_text(frame.get("id"))
        found = _read_usage(frame)
        usage = found or usage
        choices = as_list(frame.get("choices"))
        is_done = is_done or (found is not None and not choices)
        for choice in choices:
            content, reasoning = _delta_text(as_object(choice))
            finish_reason = as_text(as_object(choice).get("finish_reason")) or finish_reason
            if content or reasoning:
                times.append(event.at_ns)
                reasoning_events += bool(reasoning and not content)
                text_chars += len(content) + len(reasoning)
    return Completion(
        response_id=response_id,
        token_times_ns=tuple(times),
        reasoning_events=reasoning_events,
        text_chars=text_chars,
        usage=usage,
        finish_reason=finish_reason,
        ended_ns=ended_ns,
        is_done=is_done or finish_reason is not None,
        error=error,
    )


def _decode_frame(data: str) -> dict[str, object] | None:
    try:
        value: object = json.loads(data)
    except ValueError:
        return None
    return object_or_none(value)


def _is_error(event: ServerSentEvent, frame: dict[str, object]) -> bool:
    """Whether a frame reports an error; some servers send `"error": null` in every one."""
    return bool(frame.get("error")) or frame.get("object") == "error" or event.event == "error"


def _error_text(frame: dict[str, object] | None, data: str) -> str:
    if frame is None:
        return f"a frame that is no JSON object: {data[:200]}"
    error = frame.get("error") or frame
    message = as_text(as_object(error).get("message")) or as_text(error)
    return message or json.dumps(error)[:200]


def _read_usage(frame: dict[str, object]) -> Usage | None:
    fields = as_object(frame.get("usage"))
    if not fields:
        return None
    details = as_object(fields.get("prompt_tokens_details"))
    return Usage(
        prompt_tokens=as_count(fields.get("prompt_tokens")) or None,
        completion_tokens=as_count(fields.get("completion_tokens")) or None,
        cached_tokens=as_count(details.get("cached_tokens")),
    )


def _delta_text(choice: dict[str, object]) -> tuple[str, str]:
    """Content and reasoning of one choice; `reasoning` is vLLM's newer name for the latter."""
    delta = as_object(choice.get("delta"))
    content = as_text(delta.get("content")) or as_text(choice.get("text"))
    reasoning = as_text(delta.get("reasoning_content")) or as_text(delta.get("reasoning"))
    return content, reasoning
