"""What requests add up to: tokens, failures, and how fast they were. Pure."""

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from mlx_gateway.errors import CLIENT_LEFT

_STEP = math.log(1.02)


class Sums(msgspec.Struct, array_like=True):
    """What some requests add up to.

    Attributes:
        requests: How many.
        failed: Those that were answered with an error.
        prompt_tokens: Tokens of prompts.
        cached_tokens: Those of them that were not read again.
        completion_tokens: Tokens of answers.
        ttft_us: Times to the first token in microseconds, with how often each occurred.
        centi_tps: Tokens that came in 100 seconds after that, the same.
    """

    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    ttft_us: dict[int, int] = msgspec.field(default_factory=dict[int, int])
    centi_tps: dict[int, int] = msgspec.field(default_factory=dict[int, int])

    @classmethod
    def of(cls, parts: Iterable["Sums"]) -> "Sums":
        """All of them together."""
        whole = cls()
        for part in parts:
            whole.join(part)
        return whole

    def add(self, row: Sequence[int | None], *, in_steps: bool = False) -> None:
        """Add a request.

        Args:
            row: Its status, its tokens as above, its TTFT and speed as above.
            in_steps: Whether steps of 2 % are enough for these, so that a day's take little room.
        """
        status, prompt, cached, completion, ttft_us, centi_tps = row
        self.requests += 1
        self.failed += is_failure(status or 0)
        self.prompt_tokens += prompt or 0
        self.cached_tokens += cached or 0
        self.completion_tokens += completion or 0
        for counts, value in ((self.ttft_us, ttft_us), (self.centi_tps, centi_tps)):
            if value is not None:
                near = _in_steps(value) if in_steps else value
                counts[near] = counts.get(near, 0) + 1

    def join(self, other: "Sums") -> None:
        """Add other requests."""
        self.requests += other.requests
        self.failed += other.failed
        self.prompt_tokens += other.prompt_tokens
        self.cached_tokens += other.cached_tokens
        self.completion_tokens += other.completion_tokens
        for mine, theirs in (
            (self.ttft_us, other.ttft_us),
            (self.centi_tps, other.centi_tps),
        ):
            for value, count in theirs.items():
                mine[value] = mine.get(value, 0) + count

    def ttft_s(self, share: float) -> float | None:
        """A percentile of the time to the first token; None where nobody streamed."""
        value = percentile(self.ttft_us, share)
        return None if value is None else value / 1e6

    def generation_tps(self, share: float) -> float | None:
        """A percentile of the decode speed; None where nobody streamed."""
        value = percentile(self.centi_tps, share)
        return None if value is None else value / 100

    def to_document(self) -> dict[str, object]:
        """The figures as JSON."""
        return {
            "requests": self.requests,
            "failed": self.failed,
            "prompt_tokens": self.prompt_tokens,
            "cached_tokens": self.cached_tokens,
            "completion_tokens": self.completion_tokens,
            "ttft_s": {"p50": self.ttft_s(0.5), "p95": self.ttft_s(0.95)},
            "generation_tps": {"p50": self.generation_tps(0.5)},
        }


def percentile(counts: Mapping[int, int], share: float) -> int | None:
    """The smallest of the values that so large a share of them does not exceed; None of nothing."""
    wanted, seen = share * sum(counts.values()), 0
    for value in sorted(counts):
        seen += counts[value]
        if seen >= wanted:
            return value
    return None


def is_failure(status: int) -> bool:
    """Whether a request with this status failed; that its client left is no failure."""
    return status >= 400 and status != CLIENT_LEFT


def _in_steps(value: int) -> int:
    return round(math.exp(round(math.log(value) / _STEP) * _STEP)) if value > 0 else 0
