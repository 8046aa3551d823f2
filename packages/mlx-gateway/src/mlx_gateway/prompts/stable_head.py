"""Prompts whose head stays the same from turn to turn, though their client writes a clock into it.

An engine reuses what it has read only up to the first token that differs, so that one line in a
system prompt that changes costs the whole conversation again. Only lines of a client's exact words
are touched, and only in system prompts; every other byte of the request stays (decision 0093).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from mlx_gateway.fields import Fields, object_of

_TIME = r"\d{1,2}:\d{2}:\d{2}"
_DAY = r"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_DATE = r"\d{4}-\d{2}-\d{2}"


@dataclass(frozen=True, slots=True)
class Shape:
    """Words that a client writes into its system prompt, different ones each turn.

    Attributes:
        client: Who writes them.
        mark: Bytes without which they aren't there.
        pattern: The words, and no more.
        moves: Whether they say something to the model, and so go to the end of the last message of
            the user; else they are taken out.
    """

    client: str
    mark: bytes
    pattern: re.Pattern[str]
    moves: bool = False


SHAPES = (
    Shape(  # from 2.1.29 on; `cch` is a hash of the request, the version ends in one of the chat
        "Claude Code's billing header",
        b"x-anthropic-billing-header: cc_version=",
        re.compile(
            r"\Ax-anthropic-billing-header: cc_version=[\w.+-]{1,64};"
            r"(?: cc_[a-z_]{1,32}=[\w.-]{1,64};| cch=[0-9a-f]{5};){0,8} ?(?:\n|\Z)"
        ),
    ),
    Shape(  # from 2.1.220 on, as a system message after each result of a tool
        "Claude Code's countdown of tokens",
        b"total_tokens",
        re.compile(
            r"(?:\A|\n{1,2})<total_tokens>(?:\d{1,15}|Infinite) tokens left</total_tokens>(?=\n|\Z)"
        ),
    ),
    Shape(
        "pi's clock",
        b"Current date and time: ",
        re.compile(
            rf"(?:\A|\n)Current date and time: {_DAY}, [A-Z][a-z]{{2,8}} \d{{1,2}}, \d{{4}} at "
            rf"{_TIME}[ \u202f][AP]M [A-Z]{{2,5}}(?:[+-]\d{{1,2}}(?::\d{{2}})?)?(?=\n|\Z)"
        ),
        moves=True,
    ),
    Shape(
        "Home Assistant's clock",
        b"Current time is ",
        re.compile(
            rf"(?:\A|\n)Current time is {_TIME}\. Today's date is {_DATE}\.(?=\n|\Z)",
        ),
        moves=True,
    ),
    Shape(
        "opencode-agent-memory's clock",
        b"- The current system date is: ",
        re.compile(rf"(?:\A|\n)- The current system date is: {_DATE}T{_TIME}\.\d{{3}}Z(?=\n|\Z)"),
        moves=True,
    ),
)
"""Every shape that is known to change with each turn."""

_TEXTS = ("system", "instructions")
"""The fields that are a system prompt."""
_LISTS = ("messages", "input")
"""The fields that hold one among other messages."""
_PROMPTS = ("input", "prompt")
"""The fields that are the user's only message, as text."""
_SYSTEM = frozenset({b'"system"', b'"developer"'})
_USER = b'"user"'

_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_text = msgspec.json.Decoder(str).decode

type _Change = Callable[[str], str]


def with_stable_head(fields: Fields) -> Fields:
    """The request without what changes each turn in its head: taken out, or behind its last words.

    The cost is a search through the prompt's bytes; only messages of the system that hold such
    words are decoded.
    """
    found = [shape for shape in SHAPES if _holds(fields, shape.mark)]
    if not found:
        return fields
    carrier = _find_carrier(fields)
    moved: list[str] = []

    def clean(text: str) -> str:
        for shape in found:
            if shape.moves and carrier is None:
                continue
            if shape.moves:
                moved.extend(match.strip("\n") for match in shape.pattern.findall(text))
            text = shape.pattern.sub("", text)
        return text

    try:
        cleaned = _cleaned(fields, [shape.mark for shape in found], clean)
    except msgspec.DecodeError:
        return fields  # whoever reads the request says what is wrong with it
    return carrier(cleaned, "\n".join(moved)) if moved and carrier is not None else cleaned


def _holds(fields: Fields, mark: bytes) -> bool:
    return any(mark in fields.raw(name) for name in (*_TEXTS, *_LISTS))


def _cleaned(fields: Fields, marks: list[bytes], clean: _Change) -> Fields:
    for name in _TEXTS:
        if name in fields:
            fields = _with(fields, name, _cleaned_text(fields.raw(name), clean))
    for name in _LISTS:
        if fields.raw(name).startswith(b"["):
            fields = _with(fields, name, _cleaned_messages(fields.raw(name), marks, clean))
    return fields


def _with(fields: Fields, name: str, raw: bytes) -> Fields:
    if raw == fields.raw(name):
        return fields
    return fields.with_raw(name, raw) if raw else fields.without(name)


def _cleaned_text(raw: bytes, clean: _Change) -> bytes:
    """A text, or a list of parts with texts, cleaned; empty where nothing is left.

    What doesn't change keeps its bytes.
    """
    if raw.startswith(b'"'):
        text = _decode_text(raw)
        cleaned = clean(text)
        if cleaned == text:
            return raw
        return msgspec.json.encode(cleaned) if cleaned.strip() else b""
    if not raw.startswith(b"["):
        return raw
    parts = list(map(bytes, _decode_list(raw)))
    cleaned_parts = [_cleaned_part(part, clean) for part in parts]
    if cleaned_parts == parts:
        return raw
    kept = [part for part in cleaned_parts if part]
    return _list_of(kept) if kept else b""


def _cleaned_part(raw: bytes, clean: _Change) -> bytes:
    if not raw.startswith(b"{"):
        return raw
    part = _decode_object(raw)
    text = bytes(part.get("text", b""))
    if not text.startswith(b'"'):
        return raw
    cleaned = _cleaned_text(text, clean)
    if cleaned == text:
        return raw
    return _replaced(part, "text", cleaned) if cleaned else b""


def _cleaned_messages(raw: bytes, marks: list[bytes], clean: _Change) -> bytes:
    """The messages, those of the system cleaned, and left out where nothing is left of them."""
    messages = list(map(bytes, _decode_list(raw)))
    cleaned = [
        _cleaned_message(each, clean) if any(mark in each for mark in marks) else each
        for each in messages
    ]
    if cleaned == messages:
        return raw
    kept = [each for each in cleaned if each]
    return _list_of(kept) if kept else raw


def _cleaned_message(raw: bytes, clean: _Change) -> bytes:
    if not raw.startswith(b"{"):
        return raw
    message = _decode_object(raw)
    if bytes(message.get("role", b"")) not in _SYSTEM or "content" not in message:
        return raw
    content = bytes(message["content"])
    cleaned = _cleaned_text(content, clean)
    if cleaned == content:
        return raw
    return _replaced(message, "content", cleaned) if cleaned else b""


def _find_carrier(fields: Fields) -> Callable[[Fields, str], Fields] | None:
    """What adds words to the end of the user's last message; None where there is none."""
    for name in _LISTS:
        if not fields.raw(name).startswith(b"["):
            continue
        try:
            messages = list(map(bytes, _decode_list(fields.raw(name))))
        except msgspec.DecodeError:
            return None
        for raw in reversed(messages):
            if _USER in raw and _with_words(raw, "") is not None:
                return _carrier_in(name, raw)
    for name in _PROMPTS:
        if fields.raw(name).startswith(b'"'):
            return lambda given, words: given.with_values(
                **{name: f"{_decode_text(given.raw(name))}\n\n{words}"}
            )
    return None


def _carrier_in(name: str, message: bytes) -> Callable[[Fields, str], Fields]:
    def carry(fields: Fields, words: str) -> Fields:
        messages = list(map(bytes, _decode_list(fields.raw(name))))
        last = len(messages) - 1 - messages[::-1].index(message)
        messages[last] = _with_words(message, words) or message
        return fields.with_raw(name, _list_of(messages))

    return carry


def _with_words(raw: bytes, words: str) -> bytes | None:
    """A message of the user with more words at its end; None for any other message.

    One that holds nothing but the results of tools is not the user's.
    """
    try:
        message = _decode_object(raw)
        if bytes(message.get("role", b"")) != _USER:
            return None
        content = bytes(message.get("content", b""))
        if content.startswith(b'"'):
            return _replaced(
                message, "content", msgspec.json.encode(f"{_decode_text(content)}\n\n{words}")
            )
        if not content.startswith(b"["):
            return None
        parts = list(map(bytes, _decode_list(content)))
        kinds = [bytes(_decode_object(part).get("type", b"")) for part in parts]
    except msgspec.DecodeError:
        return None
    kind = next((kind for kind in reversed(kinds) if kind in (b'"text"', b'"input_text"')), None)
    if kind is None:
        return None
    more = object_of({"type": kind, "text": msgspec.json.encode(words)})
    return _replaced(message, "content", _list_of([*parts, more]))


def _replaced(raw: Mapping[str, bytes | msgspec.Raw], name: str, value: bytes) -> bytes:
    return object_of({**{key: bytes(each) for key, each in raw.items()}, name: value})


def _list_of(parts: list[bytes]) -> bytes:
    return b"[" + b",".join(parts) + b"]"
