"""Which conversation a prompt goes on with, and why of its beginning something is read again.

Nothing is kept but keyed hashes, in a bounded number (decision 0094).
"""

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum

from mlx_gateway.fields import Fields
from mlx_gateway.prompts.segments import (
    Prompt,
    Trace,
    first_difference,
    is_related,
    is_shortened,
    read_again,
    read_prompt,
    shared_messages,
)

MOST = 128
"""How many conversations are remembered, those that went on last."""
_ROUNDED = 0.05
"""Engines keep prompts in blocks, so that a little is always read again."""


class Prefix(StrEnum):
    """What became of what an engine had read of a conversation."""

    NEW = "new"
    """There was no earlier turn of it."""
    GROWN = "grown"
    """The prompt is the earlier one with something behind it."""
    SYSTEM = "system"
    """A line of the system prompt is another."""
    TOOLS = "tools"
    MESSAGE = "message"
    """An earlier message is another."""
    SHORTENED = "shortened"
    """Earlier messages are gone: compacted, or taken back."""
    DROPPED = "dropped"
    """The prompt only grew, and its engine read of the old part again."""


@dataclass(frozen=True, slots=True)
class TurnChange:
    """A prompt next to the turn before it.

    Attributes:
        place: Which line, tool or message is the first that changed, from 1 on; 0 where none did.
        again_share: How much of the prompt was read before and stands behind the change, 0 to 1.
        earlier_tokens: The length of the turn before; None where there is none, or nobody knows.
    """

    prefix: Prefix
    place: int = 0
    again_share: float = 0.0
    earlier_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Reread:
    """What a turn cost that its conversation had paid for.

    Attributes:
        tokens: Read again; None where nobody knows the prompt's length.
        seconds: The time for it; None where it isn't known what was read.
    """

    prefix: Prefix
    place: int
    tokens: int | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class _Turn:
    whose: tuple[str, ...]
    trace: Trace
    tokens: int | None


class Conversations:
    """The last turns of the conversations that go on."""

    def __init__(self, most: int = MOST) -> None:
        self._key = secrets.token_bytes(32)
        self._most = most
        self._turns: OrderedDict[int, _Turn] = OrderedDict()
        self._next = 0

    def __len__(self) -> int:
        return len(self._turns)

    def read(self, fields: Fields) -> Prompt | None:
        """The parts of a request's prompt, to be compared; None for what is no conversation.

        Args:
            fields: The request as its engine gets it.
        """
        return read_prompt(fields, self._key)

    def compare(
        self, whose: tuple[str, ...], prompt: Prompt, prompt_tokens: int | None
    ) -> TurnChange:
        """Compare a turn with the one before, which it replaces.

        Args:
            whose: What conversations never leave: the model, the client's key, its program.
            prompt: Its prompt, as `read` gave it.
            prompt_tokens: How long its prompt is; None where nobody knows.
        """
        number, found = self._find(whose, prompt)
        if number is not None:
            del self._turns[number]
        self._turns[self._next] = _Turn(whose, prompt.trace, prompt_tokens)
        self._next += 1
        while len(self._turns) > self._most:
            self._turns.popitem(last=False)
        return found

    def _find(self, whose: tuple[str, ...], prompt: Prompt) -> tuple[int | None, TurnChange]:
        """The conversation that a prompt goes on with, and how it compares."""
        best: tuple[bool, int, int] | None = None
        for number, turn in self._turns.items():
            if turn.whose == whose and is_related(turn.trace, prompt.trace):
                is_grown = first_difference(turn.trace, prompt) is None
                score = (is_grown, shared_messages(turn.trace, prompt.trace), number)
                best = score if best is None else max(best, score)
        if best is None:
            return None, TurnChange(Prefix.NEW)
        turn = self._turns[best[2]]
        if _is_beginning(prompt.trace, turn.trace):
            return None, TurnChange(Prefix.NEW)  # another that began with the same words
        return best[2], compare(turn.trace, prompt, turn.tokens)


def compare(before: Trace, now: Prompt, earlier_tokens: int | None = None) -> TurnChange:
    """A prompt next to the earlier one of its conversation."""
    difference = first_difference(before, now)
    if difference is None:
        return TurnChange(Prefix.GROWN, earlier_tokens=earlier_tokens)
    kind = Prefix(difference.kind)
    if is_shortened(before, now, difference):
        kind = Prefix.SHORTENED
    share = read_again(before, now, difference) / max(now.size, 1)
    return TurnChange(kind, difference.place, share, earlier_tokens)


def reread(
    found: TurnChange,
    *,
    prompt_tokens: int | None,
    cached_tokens: int | None,
    reading_s: float | None,
) -> Reread:
    """What a turn read again, as far as it is known.

    Args:
        prompt_tokens: The length of its prompt.
        cached_tokens: What its engine says that it did not read.
        reading_s: How long it read.
    """
    if prompt_tokens is None:
        return Reread(found.prefix, found.place, None, None)
    again = round(found.again_share * prompt_tokens)
    if cached_tokens is None:
        return Reread(found.prefix, found.place, again, None)
    read, prefix = max(prompt_tokens - cached_tokens, 0), found.prefix
    if prefix is Prefix.GROWN and found.earlier_tokens is not None:
        expected = min(found.earlier_tokens, prompt_tokens)
        missing = max(expected - cached_tokens, 0)
        if missing > _ROUNDED * expected + 256:
            prefix, again = Prefix.DROPPED, missing
    again = min(again, read)
    seconds = None if reading_s is None or not read else reading_s * again / read
    return Reread(prefix, found.place, again, seconds)


def in_words(prefix: str, place: int | None, program: str, *, each_turn: bool = False) -> str:
    """Why something was read again, in a sentence without its end.

    Args:
        place: None or 0 for several.
        each_turn: Whether it happens all the time, rather than once.
    """
    whose, changed = program or "the client", "changes each turn" if each_turn else "changed"
    match prefix:
        case Prefix.SYSTEM:
            return f"{f'line {place}' if place else 'a line'} of {whose}'s system prompt {changed}"
        case Prefix.TOOLS:
            return f"{f'tool {place}' if place else 'a tool'} in {whose}'s list {changed}"
        case Prefix.MESSAGE:
            which = f"message {place}" if place else "an earlier message"
            return f"{which} in {whose}'s history {changed}"
        case Prefix.SHORTENED:
            how = "shortens its history each turn" if each_turn else "shortened its history"
            return f"{whose} {how}{f' from message {place} on' if place else ''}"
        case Prefix.DROPPED:
            return f"nothing in {whose}'s prompt changed, but the engine had not kept it"
        case Prefix.NEW:
            return f"the first turn of a conversation of {whose}"
        case _:
            return f"nothing before the end of {whose}'s prompt changed"


def _is_beginning(now: Trace, before: Trace) -> bool:
    """Whether a prompt is no more than the beginning of an earlier one."""
    is_shorter = len(now.messages) < len(before.messages)
    return now.head == before.head and is_shorter and before.messages.startswith(now.messages)
