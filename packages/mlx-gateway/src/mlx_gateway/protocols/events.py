"""Server-sent events as bytes: whole events pass untouched unless one of them needs a look."""

from http import HTTPStatus
from typing import Any

import msgspec

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.fields import invalid, list_in, object_in

ANY_EVENT = (b"\n",)
"""The marks of a stream that looks at every event."""
_LONGEST_EVENT_BYTES = 16 * 2**20


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

    Events that open an answer without saying anything of it are set aside, since another model can
    still give the answer as long as nothing of it has gone out.

    Subclasses set `marks` and define `repair`, `opens` and `ending`. A mark is a piece of JSON, as
    it stands with and without a space after each colon.

    Attributes:
        opening: The events set aside: they belong before the first ones that `feed` returns.
        usage: What the stream said of tokens so far.
        text: What the answer has said, where that is looked at for stop sequences.
        is_over: Whether a stop sequence has ended the answer, so that the engine can stop.
        has_ended: Whether the engine's own last event has passed.
        failure: What an error event said, or None.
        is_opened: Whether the events set aside may go out at once, as a sign of life might.
    """

    marks: tuple[bytes, ...] = ()
    counts_at_stop: bool = False
    """Whether `ending` must be told how long prompt and answer are."""

    def __init__(self) -> None:
        self.opening: bytes = b""
        self.usage: Usage = Usage()
        self.text: str = ""
        self.is_over: bool = False
        self.has_ended: bool = True
        self.failure: ApiError | UpstreamFailedError | None = None
        self.is_opened: bool = False
        self._is_opening = True
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """The events that `chunk` completes, repaired where they have to be.

        Raises:
            UpstreamFailedError: When an event has no end.
        """
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r", b"")
        seen = len(self._rest)
        self._rest += chunk
        end = self._rest.rfind(b"\n\n", max(seen - 1, 0)) + 2
        if end == 1:
            if len(self._rest) > _LONGEST_EVENT_BYTES:
                raise UpstreamFailedError("its stream contains an unterminated event")
            return b""
        whole = bytes(self._rest[:end])
        del self._rest[:end]
        if not self._is_opening and not self._needs_look(whole):
            return whole
        return b"".join([self._looked_at(event) for event in split_events(whole)])

    def resume(self, opening: bytes) -> None:
        """Go on with an answer that was opened before, with these events."""

    def opens(self, document: dict[str, Any]) -> bool:  # noqa: ARG002
        """Whether an event opens an answer, and says nothing of it."""
        return False

    def repair(self, event: bytes) -> bytes:
        """What becomes of an event that bears the mark; each ends with an empty line."""
        return event

    def ending(self, used: Usage) -> bytes:  # noqa: ARG002
        """What follows an answer that a stop sequence has ended."""
        return b""

    def _needs_look(self, data: bytes) -> bool:
        """Whether there is a comment, or an event that bears a mark."""
        return data.startswith(b":") or b"\n:" in data or self._is_marked(data)

    def _is_marked(self, data: bytes) -> bool:
        # a regular expression of them all takes longer than one search after the other
        return any(mark in data for mark in self.marks)

    def _looked_at(self, event: bytes) -> bytes:
        if self.is_over or all(line.startswith(b":") for line in event.splitlines() if line):
            return b""
        opens = self._is_opening and self.opens(document_of(event) or {})
        if self._is_marked(event):
            event = self.repair(event)
        if opens:
            self.opening += event
            return b""
        self._is_opening = False
        return event


def document_of(event: bytes) -> dict[str, Any] | None:
    """The JSON object in an event's data; None where it holds none."""
    lines = event.split(b"\n")
    data = b"\n".join(line[5:].lstrip(b" ") for line in lines if line.startswith(b"data:"))
    if not data.startswith(b"{"):
        return None
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def event_of(document: dict[str, Any], name: str | None = None) -> bytes:
    """An event with this JSON document; Anthropic's and Responses' events carry a name as well."""
    data = b"data: " + msgspec.json.encode(document) + b"\n\n"
    return data if name is None else b"event: " + name.encode() + b"\n" + data


def failure_in(document: dict[str, Any]) -> ApiError | UpstreamFailedError:
    """What an error event says: that the request is at fault, or that the engine failed."""
    error = object_in(document.get("error", object_in(document.get("response")).get("error")))
    reason = str(error.get("message") or "")
    code = error.get("code")
    if error.get("type") == "invalid_request_error":
        code = HTTPStatus.BAD_REQUEST
    if isinstance(code, int) and HTTPStatus.BAD_REQUEST <= code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApiError(code, reason or "its stream contains an error")
    return UpstreamFailedError("its stream contains an error", reason)


class StopCutter:
    """Cuts a text that comes in pieces before the first of some sequences that is complete.

    The engine knows `stop` and never looks at it when it batches; in its simple mode it stops, but
    has sent the sequence already.

    Attributes:
        found: The sequence that ended the text, or None.
    """

    def __init__(self, sequences: tuple[str, ...]) -> None:
        self.found: str | None = None
        self._sequences = tuple(each for each in sequences if each)
        self._held = ""

    def feed(self, text: str) -> str:
        """What of the text so far is certain to come before any sequence."""
        if self.found is not None:
            return ""
        held = self._held + text
        hits = [
            (at + len(each), at, each) for each in self._sequences if (at := held.find(each)) >= 0
        ]
        if hits:
            _, at, self.found = min(hits)
            self._held = ""
            return held[:at]
        begun = min((_begun_at(held, each) for each in self._sequences), default=len(held))
        self._held = held[begun:]
        return held[:begun]

    def rest(self) -> str:
        """What was held back, since it might have begun a sequence, and did not."""
        held, self._held = self._held, ""
        return held


def _begun_at(text: str, sequence: str) -> int:
    """Where the end of a text may have begun a sequence; the text's length where it has not."""
    for at in range(max(len(text) - len(sequence) + 1, 0), len(text)):
        if sequence.startswith(text[at:]):
            return at
    return len(text)


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


def split_events(whole: bytes) -> list[bytes]:
    """The events in `whole`, each with the empty line that ends it."""
    return [event + b"\n\n" for event in whole.split(b"\n\n") if event]
