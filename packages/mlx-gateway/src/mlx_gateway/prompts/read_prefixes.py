"""What each of several upstreams has read already, so that a turn goes to one that knows its past.

Nothing is kept but the hashes of `prompts.segments`, in a bounded number (decision 0111).
"""

from collections import defaultdict
from collections.abc import Iterable

from mlx_gateway.prompts.segments import Prompt, Trace, shared_parts

MOST = 64
"""How many prompts are remembered for each upstream, those that were read last: about as many as an
engine's memory keeps."""
_CHARACTERS_PER_TOKEN = 4
"""Of English and of code, about. Only differences between upstreams count."""


def unseen_tokens(prompt: Prompt, read: Iterable[Trace]) -> int:
    """About how many tokens of a prompt are new to an upstream that has `read` others.

    What counts is the longest beginning that the prompt has in common with any of them.
    """
    known = max((shared_parts(each, prompt.trace) for each in read), default=0)
    return sum(each.size for each in prompt.segments[known:]) // _CHARACTERS_PER_TOKEN


class ReadPrefixes:
    """The prompts that each upstream has read last, by whatever names the upstream."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._read: defaultdict[object, list[Trace]] = defaultdict(list)

    def unseen_tokens(self, place: object, prompt: Prompt) -> int:
        """About how many tokens of `prompt` the upstream has not read."""
        return unseen_tokens(prompt, self._read.get(place, ()))

    def note(self, place: object, trace: Trace) -> None:
        """The upstream reads this prompt now; the earlier turns of the conversation are in it."""
        read = self._read[place]
        read[:] = [each for each in read if not _begins(each, trace)][-(self._most - 1) :]
        read.append(trace)

    def forget(self, place: object) -> None:
        """The upstream may have lost everything that it had read."""
        self._read.pop(place, None)


def _begins(before: Trace, now: Trace) -> bool:
    """Whether a prompt begins with all of an earlier one."""
    return before.head == now.head and now.messages.startswith(before.messages)
