"""What one request measured; pure, from stamps to the field's names.

With `sent` the stamp at which the request's last byte was handed to the socket, `first` and `last`
those of the first and the last non-empty content or reasoning delta, and n completion tokens:

    ttft_s          = first - sent
    generation_tps  = (n - 1) / (last - first)
    prompt_tps      = prompt tokens / ttft_s
    end_to_end_s    = end of the stream - sent
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from mlx_bench.client import Exchange, server_message
from mlx_bench.completion import Completion, CountedBy


class Phase(StrEnum):
    """What a run was for."""

    WARM_UP = "warm-up"
    PRIME = "prime"
    """It filled the prefix cache on purpose."""
    MEASURE = "measure"


@dataclass(frozen=True, slots=True)
class Point:
    """The load under which runs are compared.

    Attributes:
        concurrency: Streams at once.
        prompt_tokens: The prompt length asked for.
    """

    concurrency: int
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class Run:
    """One request, measured; None is what it could not tell.

    Attributes:
        point: The load it belongs to.
        phase: What it was for.
        iteration: Which iteration of its point, from 0.
        stream: Which of the streams at once, from 0.
        connect_s: TCP and TLS, outside every other figure.
        ttft_s: Time to first token.
        prompt_tps: Prefill rate.
        generation_tps: Decode rate.
        end_to_end_s: From the request's last byte to the end of the stream.
        requested_tokens: The generation limit that was sent.
        completion_tokens: Tokens generated.
        counted_by: Where that count comes from.
        prompt_tokens: As the server counted them.
        cached_tokens: How many of these came from its prefix cache.
        event_offsets_s: Seconds from `sent` to each non-empty delta: the raw samples.
        finish_reason: As the server gave it.
        error: Why the run does not count, or None.
    """

    point: Point
    phase: Phase
    iteration: int
    stream: int
    connect_s: float
    ttft_s: float | None
    prompt_tps: float | None
    generation_tps: float | None
    end_to_end_s: float | None
    requested_tokens: int
    completion_tokens: int
    counted_by: CountedBy
    prompt_tokens: int | None
    cached_tokens: int | None
    event_offsets_s: tuple[float, ...]
    finish_reason: str | None
    error: str | None

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Inter-token latencies: the time from each non-empty delta to the next."""
        return tuple(after - before for before, after in pairwise(self.event_offsets_s))


def measure_run(
    exchange: Exchange,
    completion: Completion,
    *,
    point: Point,
    requested_tokens: int,
    phase: Phase = Phase.MEASURE,
    iteration: int = 0,
    stream: int = 0,
) -> Run:
    """The figures of one exchange."""
    error = _failure(exchange, completion, requested_tokens)
    sent_ns = exchange.sent_ns if exchange.sent_ns is not None else exchange.started_ns
    offsets = tuple((at_ns - sent_ns) / 1e9 for at_ns in completion.token_times_ns)
    usage = completion.usage
    prompt_tokens = usage.prompt_tokens if usage else None
    ttft_s = offsets[0] if offsets else None
    tokens = completion.completion_tokens
    end_ns = completion.ended_ns
    return Run(
        point=point,
        phase=phase,
        iteration=iteration,
        stream=stream,
        connect_s=exchange.connect_ns / 1e9,
        ttft_s=ttft_s,
        prompt_tps=_prompt_tps(prompt_tokens or point.prompt_tokens, ttft_s),
        generation_tps=generation_tps(tokens, offsets),
        end_to_end_s=(end_ns - sent_ns) / 1e9 if end_ns is not None and not error else None,
        requested_tokens=requested_tokens,
        completion_tokens=tokens,
        counted_by=completion.counted_by,
        prompt_tokens=prompt_tokens,
        cached_tokens=usage.cached_tokens if usage else None,
        event_offsets_s=offsets,
        finish_reason=completion.finish_reason,
        error=error,
    )


def generation_tps(tokens: int, offsets_s: Sequence[float]) -> float | None:
    """Decode rate (n - 1) / (last - first), or None where there is no such interval."""
    if tokens < 2 or len(offsets_s) < 2 or offsets_s[-1] <= offsets_s[0]:
        return None
    return (tokens - 1) / (offsets_s[-1] - offsets_s[0])


def _prompt_tps(prompt_tokens: int, ttft_s: float | None) -> float | None:
    return prompt_tokens / ttft_s if ttft_s is not None and ttft_s > 0 else None


def _failure(exchange: Exchange, completion: Completion, requested_tokens: int) -> str | None:
    """Why an exchange does not count, the first cause first."""
    if exchange.status is None:
        return exchange.failure or "no answer"
    if exchange.status >= 300:
        return f"HTTP {exchange.status}: {server_message(exchange.body_text)}"
    if completion.error is not None:
        return f"the server reported an error in mid-stream: {completion.error}"
    if exchange.failure is not None:
        return f"the stream broke off: {exchange.failure}"
    if completion.ended_ns is None and exchange.reads:
        return f"the server sent no event stream: {server_message(exchange.body_text)}"
    reached_limit = completion.completion_tokens >= requested_tokens
    if not (completion.is_done or exchange.has_marked_end or reached_limit):
        return "the stream ended without [DONE] and without a finish reason"
    if not completion.token_times_ns:
        return "the stream carried no content"
    return None
