"""Prompts of an exact token count with a fresh prefix, without a tokenizer.

Every word of the list below is one token, with its leading space, in the byte-level and
SentencePiece vocabularies of the common model families. That is not believed but checked: two
short requests, one with few and one with all words, whose `usage.prompt_tokens` must differ by
exactly the number of words between them. Words that fail are searched for and dropped. A prompt of
n tokens then has n minus the template's overhead words, drawn for each run, so that no prefix
cache has seen it (decision 0062).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from mlx_bench.errors import ParametersError

_WORDS = """
time year people way day man thing woman life child world school state family student group
country problem hand part place case week company system program question work government
number night point home water room mother area money story fact month lot right study book eye
job word business issue side kind head house service friend father power hour game line end
member law car city community name president team minute idea kid body information back parent
face others level office door health person art war history party result change morning reason
research girl guy moment air teacher force education foot boy age policy music market sense
nation plan college interest death experience effect use class control field development role
"""

WORDS: tuple[str, ...] = tuple(_WORDS.split())
"""Common English words."""

_LEAD = "Words:"
_TAIL = "\n\nTell a very long story with these words."
_FIRST_PROBE_WORDS = 16
_LEAST_WORDS = 16
_MAX_SEARCH_PROBES = 24


def new_seed() -> int:
    """A seed that no benchmark has used before, as good as surely."""
    return random.SystemRandom().randrange(2**31)


class Cache(StrEnum):
    """How the workload treats the server's prefix cache."""

    FRESH = "fresh"
    """Every prompt begins differently: the cache never answers."""
    PRIMED = "primed"
    """Each measured prompt repeats one that was just sent: what the cache can save."""


class Exactness(StrEnum):
    """How well the prompt length is known."""

    EXACT = "exact"
    """The server's own count was solved for."""
    PROPORTIONAL = "proportional"
    """The server counts, but not one token a word: lengths are near, not exact."""
    ASSUMED = "assumed"
    """The server counts nothing: one token per word is assumed."""


MOST_TOKENS = 10_000_000
"""The longest text that is made: as long as the longest context of any model."""


def require_length(*tokens: int) -> None:
    """Refuse texts that no model can read, which would only fill this machine's memory.

    Raises:
        ParametersError: One is longer than `MOST_TOKENS`.
    """
    if max(tokens) > MOST_TOKENS:
        raise ParametersError(f"No text is made longer than {MOST_TOKENS:,} tokens.")


class Parameters(msgspec.Struct, frozen=True):
    """What is to be measured.

    Attributes:
        iterations: Waves of requests at each point; with `precision`, the least.
        warm_up: Waves before them, kept apart from the summary.
        prompt_tokens: Prompt lengths, one point each; what is given twice is measured once.
        concurrency: Streams at once, one point each.
        cache: How the prefix cache is treated.
        seed: Of prompts and of the bootstrap; a new one unless given, since the same seed makes
            the same prompts, which a server's prefix cache may remember from last time.
        precision: Go on until the 95 % intervals of TTFT and decode rate are within this share of
            the median on either side, or None to stop after `iterations`.
        max_iterations: Where `precision` gives up.
    """

    iterations: int = 3
    warm_up: int = 1
    prompt_tokens: tuple[int, ...] = (1024,)
    generation_tokens: int = 100
    concurrency: tuple[int, ...] = (1,)
    cache: Cache = Cache.FRESH
    seed: int = msgspec.field(default_factory=new_seed)
    precision: float | None = None
    max_iterations: int = 30

    def __post_init__(self) -> None:
        """Refuse what makes no sense, and measure nothing twice.

        Raises:
            ParametersError: A number is out of range or a list empty.
        """
        if not self.prompt_tokens or not self.concurrency:
            raise ParametersError("At least one prompt length and one concurrency are needed.")
        if min(*self.prompt_tokens, *self.concurrency, self.iterations, self.generation_tokens) < 1:
            raise ParametersError(
                "Iterations, prompt and generation tokens and concurrency must be at least 1."
            )
        require_length(*self.prompt_tokens)
        if self.warm_up < 0:
            raise ParametersError("Warm-up can't be negative.")
        if self.precision is not None and not 0 < self.precision < 1:
            raise ParametersError("The precision is a share between 0 and 1, e.g. 0.02.")
        for name in ("prompt_tokens", "concurrency"):
            once = tuple(dict.fromkeys(getattr(self, name)))
            msgspec.structs.force_setattr(self, name, once)


@dataclass(frozen=True, slots=True)
class PromptMaker:
    """Makes prompts of a token count.

    Attributes:
        words: Words that are one token each.
        overhead: Tokens that the chat template, the lead and the closing line add.
        tokens_per_word: 1, unless the server counts otherwise.
        exactness: How well that is known.
    """

    words: tuple[str, ...] = WORDS
    overhead: float = 0.0
    tokens_per_word: float = 1.0
    exactness: Exactness = Exactness.ASSUMED

    def word_count(self, prompt_tokens: int) -> int:
        """How many words a prompt of so many tokens has; at least one."""
        return max(1, round((prompt_tokens - self.overhead) / self.tokens_per_word))

    def make(self, prompt_tokens: int, *, seed: int, index: int) -> str:
        """A prompt of so many tokens; each index of a seed begins differently."""
        draw = random.Random(f"{seed}/{index}")  # noqa: S311 - reproducible, no secret
        return prompt_text(draw.choices(self.words, k=self.word_count(prompt_tokens)))


def prompt_text(words: Sequence[str]) -> str:
    """The user message that carries these words, each with a space before it."""
    return f"{_LEAD} {' '.join(words)}{_TAIL}"


def calibrate_prompts(
    count_tokens: Callable[[str], int | None], words: tuple[str, ...] = WORDS
) -> PromptMaker:
    """A prompt maker fitted to a server's own token count.

    Args:
        count_tokens: Sends a prompt and gives the server's `usage.prompt_tokens`, or None.
        words: Candidates; most must be single tokens.
    """
    base = words[:_FIRST_PROBE_WORDS]
    few = count_tokens(prompt_text(base))
    if few is None:
        return PromptMaker(words)
    # The first probe's words again, and all others: a word of several tokens shows either way.
    every = count_tokens(prompt_text(base + words))
    if every is None or every <= few:
        return PromptMaker(words)
    if every - few == len(words) and few >= len(base):
        return PromptMaker(words, few - len(base), 1.0, Exactness.EXACT)
    kept = _single_token_words(count_tokens, words, few)
    if len(kept) >= _LEAST_WORDS:
        total = count_tokens(prompt_text(kept))
        if total is not None and total >= len(kept):
            return PromptMaker(kept, total - len(kept), 1.0, Exactness.EXACT)
    per_word = (every - few) / len(words)
    overhead = max(0.0, few - len(base) * per_word)
    return PromptMaker(words, overhead, per_word, Exactness.PROPORTIONAL)


def _single_token_words(
    count_tokens: Callable[[str], int | None], words: tuple[str, ...], few: int
) -> tuple[str, ...]:
    """Words that add one token each, found by halving.

    Each probe repeats the first probe's words, so that only the group's own tokens differ.
    """
    base = words[:_FIRST_PROBE_WORDS]
    middle = len(words) // 2
    groups = [words[:middle], words[middle:]]
    kept: list[str] = []
    for _ in range(_MAX_SEARCH_PROBES):
        if not groups:
            break
        group = groups.pop(0)
        counted = count_tokens(prompt_text(base + group))
        if counted is None:
            break
        if counted - few == len(group):
            kept += group
        elif len(group) > 1:
            middle = len(group) // 2
            groups += [group[:middle], group[middle:]]
    return tuple(kept)
