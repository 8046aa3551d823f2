"""A prompt as hashes of its parts, which tell what changed and nothing of what it says. Pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

from mlx_gateway.fields import Fields, list_in, object_in

_DIGEST_BYTES = 8
_MOST = {"system": 2_000, "tools": 500, "message": 4_000}
"""How many parts of each kind are told apart; what follows is one part."""
_SYSTEM = ("system", "developer")
_NOT_READ = frozenset(
    {"cache_control", "id", "call_id", "tool_call_id", "tool_use_id", "signature", "type"}
)
"""What models don't see, or what says the same in a message's short and long form."""
_DATA = frozenset({"input", "arguments"})
"""What a call passes to its tool, whose names a model reads as well."""

type Digest = bytes


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a prompt.

    Attributes:
        kind: `system` (a line of it), `tools` (one of them) or `message`.
        place: Which of its kind, from 1 on.
        size: How much of the prompt it is, in characters.
    """

    kind: str
    place: int
    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Trace:
    """What is remembered of a prompt: the digests of its parts, one after the other.

    Attributes:
        head: Those of the system prompt and the tools.
        lines: How many of these are lines of the system prompt.
        messages: Those of the messages.
    """

    head: bytes
    lines: int
    messages: bytes


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt's parts in the order in which a model reads them."""

    segments: tuple[Segment, ...]
    trace: Trace

    @property
    def size(self) -> int:
        """How long it is, in characters."""
        return sum(each.size for each in self.segments)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first part that is not what it was.

    Attributes:
        kind: As of a segment.
        place: The same.
        index: Where in the prompt's parts it is.
    """

    kind: str
    place: int
    index: int


def read_prompt(fields: Fields, key: bytes) -> Prompt | None:
    """The parts of a request's prompt; None for a request without messages.

    Args:
        fields: What its engine gets.
        key: The secret of the hash, without which nobody can try whether a prompt held some words.
    """
    messages = fields.get("messages")
    if messages is None:
        messages = fields.get("input") if "input" in fields else fields.get("prompt")
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    said = [object_in(each) for each in list_in(messages)]
    if not said:
        return None
    first = next((i for i, each in enumerate(said) if each.get("role") not in _SYSTEM), len(said))
    told = [each.get("content") for each in said[:first]]
    texts = [fields.get("system"), fields.get("instructions"), *told]
    lines = [line for text in texts for part in _texts(text) for line in part.splitlines()]
    tools = ["\0".join(_texts(tool, is_data=True)) for tool in list_in(fields.get("tools"))]
    rest = ["\0".join(_texts(each)) for each in said[first:]]
    system = tuple(_segments("system", lines, key))
    head = (*system, *_segments("tools", tools, key))
    messages = tuple(_segments("message", rest, key))
    return Prompt(head + messages, Trace(_joined(head), len(system), _joined(messages)))


def first_difference(before: Trace, now: Prompt) -> Difference | None:
    """The first part that is not what it was; None where the prompt only grew at its end."""
    head = len(now.trace.head) // _DIGEST_BYTES
    same = _common(before.head, now.trace.head)
    if before.head != now.trace.head:
        if same < max(before.lines, now.trace.lines):
            return Difference("system", same + 1, same)
        return Difference("tools", same + 1 - now.trace.lines, same)
    same = _common(before.messages, now.trace.messages)
    if same in (len(before.messages) // _DIGEST_BYTES, len(now.segments) - head):
        return None
    return Difference("message", same + 1, head + same)


def read_again(before: Trace, now: Prompt, difference: Difference) -> int:
    """How many characters from a difference on were in the earlier prompt as well."""
    known = Counter(_digests(before.head))
    known.update(_digests(before.messages))
    known.subtract(each.digest for each in now.segments[: difference.index])
    again = 0
    for each in now.segments[difference.index :]:
        if known[each.digest] > 0:
            known[each.digest] -= 1
            again += each.size
    return again


def is_related(before: Trace, now: Trace) -> bool:
    """Whether a prompt goes on with a conversation, though some of it may be another."""
    shared = shared_messages(before, now)
    count = len(before.messages) // _DIGEST_BYTES
    if shared == count >= 2:
        return True
    if not _is_alike(before.head, now.head):
        return False
    return shared >= 1 or _overlap(before.messages, now.messages) >= max(2, count / 2)


def shared_messages(before: Trace, now: Trace) -> int:
    """How many of the same messages both begin with."""
    return _common(before.messages, now.messages)


def shared_parts(before: Trace, now: Trace) -> int:
    """How many parts from the beginning on two prompts have in common."""
    same = _common(before.head, now.head)
    if before.head != now.head:
        return same
    return same + _common(before.messages, now.messages)


def is_shortened(before: Trace, now: Prompt, difference: Difference) -> bool:
    """Whether messages are gone at a difference, rather than others than they were."""
    if difference.kind != "message":
        return False
    later = before.messages[difference.place * _DIGEST_BYTES :]
    is_later = now.segments[difference.index].digest in _digests(later)
    return is_later or len(now.trace.messages) < len(before.messages)


def _is_alike(before: bytes, now: bytes) -> bool:
    """Whether two heads have at least half of their parts in common."""
    longest = max(len(before), len(now)) // _DIGEST_BYTES
    return before == now or _overlap(before, now) * 2 >= longest


def _overlap(before: bytes, now: bytes) -> int:
    return (Counter(_digests(before)) & Counter(_digests(now))).total()


def _common(before: bytes, now: bytes) -> int:
    """How many digests two traces begin with in common."""
    low, high = 0, min(len(before), len(now)) // _DIGEST_BYTES
    while low < high:
        middle = (low + high + 1) // 2
        end = middle * _DIGEST_BYTES
        low, high = (middle, high) if before[:end] == now[:end] else (low, middle - 1)
    return low


def _digests(trace: bytes) -> Iterator[Digest]:
    return (trace[at : at + _DIGEST_BYTES] for at in range(0, len(trace), _DIGEST_BYTES))


def _joined(segments: Iterable[Segment]) -> bytes:
    return b"".join(each.digest for each in segments)


def _segments(kind: str, texts: list[str], key: bytes) -> Iterator[Segment]:
    most = _MOST[kind]
    if len(texts) > most:
        texts = [*texts[: most - 1], "\0".join(texts[most - 1 :])]
    for place, text in enumerate(texts, start=1):
        data = f"{kind}\0{text}".encode("utf-8", "surrogatepass")
        digest = blake2b(data, digest_size=_DIGEST_BYTES, key=key).digest()
        yield Segment(kind, place, digest, len(text) + 1)


def _texts(value: object, *, is_data: bool = False) -> Iterator[str]:
    """Everything in a value that a model reads, in order.

    Args:
        is_data: Whether it is passed on whole, as a tool is, so that the names in it are read too.
    """
    unread: list[tuple[object, bool]] = [(value, is_data)]
    while unread:
        value, is_data = unread.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, int | float):
            yield str(value)
        elif inner := object_in(value):
            for name in reversed(inner):
                if is_data and name != "cache_control":
                    unread += [(inner[name], True), (name, False)]
                elif not is_data and name not in _NOT_READ:
                    unread.append((inner[name], name in _DATA))
        else:
            unread += [(each, is_data) for each in reversed(list_in(value))]
