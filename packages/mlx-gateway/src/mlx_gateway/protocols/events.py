"""Server-sent events as bytes: whole events pass untouched unless one of them needs a look."""

import re
from http import HTTPStatus
from typing import Any

import msgspec

from mlx_gateway.errors import UpstreamFailedError
from mlx_gateway.fields import invalid, list_in

_LONGEST_EVENT_BYTES = 16 * 2**20
_HEARTBEAT = rb"(?m:^):"


class Usage(msgspec.Struct):
    """What a request used, as far as its engine says.

    Attributes:
        prompt_tokens: Tokens of the prompt; None where nobody said.
        cached_tokens: Those of them that were not read again; None where nobody said.
        completion_tokens: Tokens of the answer; None where nobody said.
    """

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


class EventStream:
    """Passes a stream of events on, and hands those that bear a mark to `repair`.

    Subclasses set `mark` and `end_mark` and define `repair`.

    Attributes:
        usage: What the stream said of tokens so far.
        is_over: Whether the client needs nothing more, so that the engine can stop.
        has_ended: Whether the engine's own last event has passed.
        has_failed: Whether an error event has passed.
    """

    mark: re.Pattern[bytes] = re.compile(_HEARTBEAT)
    end_mark = b"[DONE]"

    def __init__(self) -> None:
        self.usage = Usage()
        self.is_over = False
        self.has_ended = False
        self.has_failed = False
        self._rest = b""

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes, repaired where they have to be.

        Raises:
            UpstreamFailedError: When an event has no end.
        """
        data = self._rest + chunk if self._rest else chunk
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n") + 2
        if end == 1:
            if len(data) > _LONGEST_EVENT_BYTES:
                raise UpstreamFailedError("its stream holds an event without an end")
            self._rest = data
            return b""
        whole, self._rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if self.mark.search(whole) is None:
            return whole
        return b"".join(self._looked_at(event) for event in _split(whole))

    def repair(self, event: bytes) -> bytes:
        """What becomes of an event that bears the mark; each ends with an empty line."""
        return event

    def close(self) -> bytes:
        """What is still to be sent after the engine's last byte."""
        return b""

    def _looked_at(self, event: bytes) -> bytes:
        if self.is_over or event.startswith(b":"):
            return b""
        if self.end_mark in event:
            self.has_ended = True
        return self.repair(event) if self.mark.search(event) else event


def document_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object in an event's data; None where it holds none."""
    data = b"\n".join(
        line[5:].lstrip(b" ") for line in event.split(b"\n") if line.startswith(b"data:")
    )
    if not data.startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None


def event_of(document: dict[str, Any], name: str | None = None) -> bytes:
    """An event with this JSON document; Anthropic's and Responses' events carry a name as well."""
    data = b"data: " + msgspec.json.encode(document) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


class StopCutter:
    """Cuts a text that comes in pieces before the first of some sequences.

    The engine knows `stop` and never looks at it when it batches; in its simple mode it stops, but
    has sent the sequence already.

    Attributes:
        found: The sequence that ended the text, or None.
    """

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self.found: str | None = None
        self._sequences = tuple(each for each in sequences if each)
        self._longest = max(map(len, self._sequences), default=0)
        self._held = ""

    def feed(self, text: str) -> str:
        """What of the text so far is certain to come before any sequence."""
        if not self._sequences:
            return text
        if self.found is not None:
            return ""
        held = self._held + text
        hits = [(at, each) for each in self._sequences if (at := held.find(each)) >= 0]
        if hits:
            at, self.found = min(hits, key=lambda hit: (hit[0], -len(hit[1])))
            self._held = ""
            return held[:at]
        keep = self._begun(held)
        self._held = held[len(held) - keep :] if keep else ""
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back, since it might have begun a sequence, and did not."""
        held, self._held = self._held, ""
        return held

    def _begun(self, text: str) -> int:
        """How many of the last characters may begin a sequence."""
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-length:]
            if any(each.startswith(tail) for each in self._sequences):
                return length
        return 0


def stop_sequences(value: object, param: str) -> tuple[str, ...]:
    """The stop sequences that a request names: one text, or a list of them.

    Raises:
        ApiError: When they are something else.
    """
    if isinstance(value, str):
        return (value,) if value else ()
    listed = list_in(value)
    if value is not None and (listed != value or not all(isinstance(each, str) for each in listed)):
        raise invalid(f"`{param}` must be a string or a list of strings.", param=param)
    return tuple(each for each in listed if each)


def status_reason(status: int) -> str:
    """A status and what it is called."""
    try:
        return f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"HTTP {status}"


def _split(whole: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in whole.split(b"\n\n") if event]
