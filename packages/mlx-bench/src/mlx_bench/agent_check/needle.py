"""Whether a fact is found again in a context as long as is promised, within a time."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlx_bench.agent_check.ask import CHAT_WHOLE, Request, ask
from mlx_bench.conformance.server import Server
from mlx_bench.workload import WORDS

FIRST_TOKENS = 1024
_GROWTH = 4
_MARGIN_TOKENS = 256
"""For the template, the question and the answer, and for words that are two tokens."""
_WORDS_A_SENTENCE = 12
_SLOWER_WITH_LENGTH = 1.5
"""Reading n times as long a prompt takes at the most n to this power as long: attention grows with
the square, the rest with the length."""


@dataclass(frozen=True, slots=True)
class Needle:
    """How far a fact was found.

    Attributes:
        promised_tokens: The context's length; None where nothing says so.
        tried_tokens: The longest prompt that was tried; 0 if none.
        found_tokens: The longest in which it was found.
        next_takes_s: How long the promised length would take, where that was too long to try.
    """

    promised_tokens: int | None
    tried_tokens: int
    found_tokens: int
    next_takes_s: float | None = None

    @property
    def is_right(self) -> bool | None:
        """Whether it was found each time; None where the promised length was not tried."""
        if self.found_tokens < self.tried_tokens:
            return False
        return None if self.promised_tokens is None or self.next_takes_s is not None else True

    @property
    def words(self) -> str:
        """What was found, and why no more was tried."""
        if self.promised_tokens is None:
            return "the context length is unknown"
        if self.found_tokens < self.tried_tokens:
            return f"not found in {self.tried_tokens:,} tokens"
        if self.next_takes_s is None:
            return f"found in {self.tried_tokens:,} tokens"
        return (
            f"found in {self.tried_tokens:,} tokens; "
            f"{self.promised_tokens:,} would take about {self.next_takes_s:.0f} s"
        )


def lengths(promised_tokens: int) -> Iterator[int]:
    """The prompt lengths to try: short ones first, which tell how long the next one takes."""
    whole = max(promised_tokens - _MARGIN_TOKENS, 1)
    length = FIRST_TOKENS
    while length < whole:
        yield length
        length *= _GROWTH
    yield whole


def predict_s(took_s: float, tokens: int, next_tokens: int) -> float:
    """How long a prompt of `next_tokens` takes at the most, after one that took `took_s`."""
    return took_s * (next_tokens / tokens) ** _SLOWER_WITH_LENGTH


def find_needle(
    server: Server,
    promised_tokens: int | None,
    *,
    thinks: bool | None,
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
) -> Needle:
    """Hide a number in ever longer prompts, up to the promised length or the time's end."""
    if promised_tokens is None:
        return Needle(None, 0, 0)
    ends = clock() + seconds
    tokens_per_word, tried, took_s = 1.0, 0, 0.0
    for length in lengths(promised_tokens):
        left_s = ends - clock()
        if tried and predict_s(took_s, tried, length) > left_s:
            whole_s = predict_s(took_s, tried, promised_tokens)
            return Needle(promised_tokens, tried, tried, max(whole_s, left_s))
        secret = random.SystemRandom().randrange(10_000, 100_000)
        text = haystack(max(1, int(length / tokens_per_word)), secret)
        began = clock()
        off = False if thinks else None
        answer = ask(server, CHAT_WHOLE, Request(text, max_tokens=24, thinks=off))
        took_s, before = clock() - began, tried
        read = answer.usage.get("prompt_tokens")
        if isinstance(read, int) and read > 0:
            tokens_per_word *= read / length
        tried = length
        if str(secret) not in answer.said.replace(",", ""):
            return Needle(promised_tokens, tried, before)
    return Needle(promised_tokens, tried, tried)


def haystack(words: int, secret: int) -> str:
    """About so many words that mean nothing, with a number to be found two thirds into them.

    It begins with a number of its own, so that no prefix cache knows it.
    """
    draw = random.Random(secret)  # noqa: S311 - a text, no secret
    sentences = [
        " ".join(draw.choices(WORDS, k=_WORDS_A_SENTENCE)).capitalize() + "."
        for _ in range(max(1, words // (_WORDS_A_SENTENCE + 1)))
    ]
    sentences.insert(len(sentences) * 2 // 3, f"The number of the lighthouse is {secret}.")
    question = "What is the number of the lighthouse? Answer with the number only."
    return f"Text {secret * 3}:\n{' '.join(sentences)}\n\n{question}"
