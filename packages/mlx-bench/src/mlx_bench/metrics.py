"""What one request measured; pure, from stamps to the field's names (decision 0061).

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
from typing import TYPE_CHECKING, Annotated

import msgspec

from mlx_bench.completion import Completion, CountedBy, server_message

if TYPE_CHECKING:
    from mlx_bench.client import Exchange

type Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""A number of tokens, streams or bytes; a file that holds another integer is refused."""


class Phase(StrEnum):
    """What a run was for."""

    WARM_UP = "warm-up"
    PRIME = "prime"
    """It filled the prefix cache on purpose."""
    MEASURE = "measure"


@dataclass(frozen=True, slots=True)
class Point:
    """The load under which runs are compared."""

    concurrency: int
    prompt_tokens: int

    def __str__(self) -> str:
        """The load in words, as `4 streams, 1024 prompt tokens`."""
        streams = "stream" if self.concurrency == 1 else "streams"
        return f"{self.concurrency} {streams}, {self.prompt_tokens} prompt tokens"


class MeasuredRun(msgspec.Struct, frozen=True, kw_only=True):
    """One request, measured; None is what it could not tell.

    Attributes:
        iteration: Which iteration of its point, from 0.
        connect_s: TCP and TLS, outside every other figure.
        end_to_end_s: From the request's last byte to the end of the stream.
        requested_tokens: The generation limit that was sent.
        counted_by: Where that count comes from.
        prompt_tokens: As the server counted them.
        cached_tokens: How many of these came from its prefix cache.
        event_offsets_s: From `sent` to each non-empty delta, to the microsecond: the raw samples.
        error: Why the run does not count, or None.
    """

    concurrency: Count
    prompt_tokens_asked: Count
    phase: Phase
    iteration: Count
    stream: Count
    connect_s: float
    ttft_s: float | None
    prompt_tps: float | None
    generation_tps: float | None
    end_to_end_s: float | None
    requested_tokens: Count
    completion_tokens: Count
    counted_by: CountedBy
    prompt_tokens: Count | None
    cached_tokens: Count | None
    event_offsets_s: tuple[float, ...]
    finish_reason: str | None
    error: str | None

    @property
    def point(self) -> Point:
        """The load that it belongs to."""
        return Point(self.concurrency, self.prompt_tokens_asked)

    @property
    def gaps_s(self) -> tuple[float, ...]:
        """Inter-token latencies: the time from each non-empty delta to the next."""
        return tuple(after - before for before, after in pairwise(self.event_offsets_s))


class WaveTiming(msgspec.Struct, frozen=True, kw_only=True):
    """How one wave of simultaneous requests went, seen by three clocks.

    Attributes:
        iteration: Which iteration of its load, from 0.
        duration_s: Its length, from the first request sent to the last end.
        clock_drift_s: By how much the wall clock moved further than the monotonic one.
        client_cpu_s: CPU time that this process used meanwhile.
        peak_memory_bytes: The serving process's highest memory meanwhile, or None.
    """

    iteration: Count
    duration_s: float
    clock_drift_s: float
    client_cpu_s: float
    peak_memory_bytes: Count | None = None


class MeasuredWave(WaveTiming, frozen=True, kw_only=True):
    """One wave of chat requests."""

    concurrency: Count
    prompt_tokens: Count

    @property
    def point(self) -> Point:
        """Its load."""
        return Point(self.concurrency, self.prompt_tokens)


def measure_run(
    exchange: "Exchange",
    completion: Completion,
    *,
    point: Point,
    requested_tokens: int,
    phase: Phase = Phase.MEASURE,
    iteration: int = 0,
    stream: int = 0,
) -> MeasuredRun:
    """The figures of one exchange."""
    error = _failure(exchange, completion, requested_tokens)
    sent_ns = exchange.sent_ns if exchange.sent_ns is not None else exchange.started_ns
    offsets = tuple((at_ns - sent_ns) / 1e9 for at_ns in completion.token_times_ns)
    usage = completion.usage
    prompt_tokens = usage.prompt_tokens if usage else None
    ttft_s = offsets[0] if offsets else None
    tokens = completion.completion_tokens
    end_ns = completion.ended_ns
    return MeasuredRun(
        concurrency=point.concurrency,
        prompt_tokens_asked=point.prompt_tokens,
        phase=phase,
        iteration=iteration,
        stream=stream,
        connect_s=exchange.connect_ns / 1e9,
        ttft_s=ttft_s,
        prompt_tps=(prompt_tokens or point.prompt_tokens) / ttft_s if ttft_s else None,
        generation_tps=generation_tps(tokens, offsets),
        end_to_end_s=(end_ns - sent_ns) / 1e9 if end_ns is not None and not error else None,
        requested_tokens=requested_tokens,
        completion_tokens=tokens,
        counted_by=completion.counted_by,
        prompt_tokens=prompt_tokens,
        cached_tokens=usage.cached_tokens if usage else None,
        event_offsets_s=tuple(round(offset, 6) for offset in offsets),
        finish_reason=completion.finish_reason,
        error=error,
    )


def generation_tps(tokens: int, offsets_s: Sequence[float]) -> float | None:
    """Decode rate (n - 1) / (last - first), or None where there is no such interval."""
    if tokens < 2 or len(offsets_s) < 2 or offsets_s[-1] <= offsets_s[0]:
        return None
    return (tokens - 1) / (offsets_s[-1] - offsets_s[0])


def _failure(exchange: "Exchange", completion: Completion, requested_tokens: int) -> str | None:
    """Why an exchange does not count, the first cause first."""
    if exchange.status is None:
        return exchange.failure or "no answer"
    if exchange.status >= 300:
        return f"HTTP {exchange.status}: {server_message(exchange.body_text)}"
    if completion.error is not None:
        return f"the server reported an error mid-stream: {completion.error}"
    if exchange.failure is not None:
        return f"the stream was cut off: {exchange.failure}"
    if completion.ended_ns is None and exchange.reads:
        return f"the server sent no event stream: {server_message(exchange.body_text)}"
    reached_limit = completion.completion_tokens >= requested_tokens
    if not (completion.is_done or exchange.has_marked_end or reached_limit):
        return "the stream ended without [DONE] and without a finish reason"
    if not completion.token_times_ns:
        return "the stream carried no content"
    return None
