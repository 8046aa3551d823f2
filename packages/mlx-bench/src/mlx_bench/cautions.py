"""What a reader should know before trusting a figure; pure decisions over measured runs."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_bench.completion import CountedBy
from mlx_bench.metrics import Point, Run
from mlx_bench.stats import outliers, trend
from mlx_bench.workload import Cache, Exactness, Parameters, PromptMaker

FEW_TOKENS = 20
"""Below so many generated tokens a decode rate rests on too short a time."""

_COLD_FACTOR = 1.3
_MATERIAL_SHARE = 0.02
_DRIFT_SHARE = 0.03
_DRIFT_P_VALUE = 0.05
_CLOCK_SHARE = 0.01
_CLOCK_SLACK_S = 0.05
_CLIENT_CPU_SHARE = 0.7
_CACHED_SHARE = 0.1
_OVERRUN_SHARE = 0.1


class CautionCode(StrEnum):
    """Why a figure may mislead."""

    COLD_FIRST_RUN = "cold-first-run"
    OUTLIERS = "outliers"
    THERMAL_DRIFT = "thermal-drift"
    EARLY_STOP = "early-stop"
    LIMIT_IGNORED = "limit-ignored"
    FEW_TOKENS = "few-tokens"
    CACHE_HIT = "cache-hit"
    CLOCK = "clock"
    EVENTS_COUNTED = "events-counted"
    GROUPED_TOKENS = "grouped-tokens"
    PROMPT_LENGTH = "prompt-length"
    FAILED_RUNS = "failed-runs"
    CLIENT_BUSY = "client-busy"


@dataclass(frozen=True, slots=True)
class Caution:
    """One reason for care.

    Attributes:
        code: Which.
        message: One sentence with the figures.
        point: The load it concerns, or None for the whole report.
    """

    code: CautionCode
    message: str
    point: Point | None = None


@dataclass(frozen=True, slots=True)
class WaveTiming:
    """How one wave of simultaneous requests went, seen by three clocks.

    Attributes:
        point: Its load.
        iteration: Which iteration.
        duration_s: Its length, from the first request sent to the last end.
        clock_drift_s: By how much the wall clock moved further than the monotonic one.
        client_cpu_s: CPU time that this process used meanwhile.
        peak_memory_bytes: The serving process's highest memory meanwhile, or None.
        energy_j: Energy that the machine used meanwhile, or None.
    """

    point: Point
    iteration: int
    duration_s: float
    clock_drift_s: float
    client_cpu_s: float
    peak_memory_bytes: int | None = None
    energy_j: float | None = None


def find_cautions(
    runs: Sequence[Run],
    waves: Sequence[WaveTiming],
    parameters: Parameters,
    prompts: dict[Point, PromptMaker],
) -> tuple[Caution, ...]:
    """Every caution that the measured runs call for, point by point."""
    found: list[Caution] = []
    for point in dict.fromkeys(run.point for run in runs):
        mine = [run for run in runs if run.point == point]
        good = [run for run in mine if run.error is None]
        found += _failures(point, mine)
        found += _tokens(point, good)
        found += _prompt_length(point, good, prompts.get(point))
        found += _cache_hits(point, good, parameters.cache)
        found += _time_course(point, good)
    found += _clocks(waves)
    return tuple(found)


def _failures(point: Point, runs: Sequence[Run]) -> Iterator[Caution]:
    failed = [run for run in runs if run.error is not None]
    if failed:
        yield Caution(
            CautionCode.FAILED_RUNS,
            f"{len(failed)} of {len(runs)} runs failed and don't count: {failed[0].error}.",
            point,
        )


def _tokens(point: Point, runs: Sequence[Run]) -> Iterator[Caution]:
    short = [run for run in runs if run.completion_tokens < run.requested_tokens]
    if short:
        least = min(run.completion_tokens for run in short)
        yield Caution(
            CautionCode.EARLY_STOP,
            f"{len(short)} of {len(runs)} runs stopped before {short[0].requested_tokens} tokens, "
            f"the shortest after {least}.",
            point,
        )
    over = [
        run.completion_tokens
        for run in runs
        if run.completion_tokens > (1 + _OVERRUN_SHARE) * run.requested_tokens
    ]
    if over:
        yield Caution(
            CautionCode.LIMIT_IGNORED,
            f"{len(over)} of {len(runs)} runs went beyond the {runs[0].requested_tokens} tokens "
            f"asked for, up to {max(over)}: end-to-end times are of longer answers.",
            point,
        )
    few = [run.completion_tokens for run in runs if run.completion_tokens < FEW_TOKENS]
    if few:
        yield Caution(
            CautionCode.FEW_TOKENS,
            f"A run of {min(few)} tokens says little about the decode rate; "
            f"at least {FEW_TOKENS} are needed.",
            point,
        )
    counted = sum(run.counted_by is CountedBy.EVENTS for run in runs)
    if counted:
        yield Caution(
            CautionCode.EVENTS_COUNTED,
            f"The server sent no usage in {counted} of {len(runs)} runs: "
            "each non-empty delta was counted as one token.",
            point,
        )
    yield from _grouped(point, runs)


def _grouped(point: Point, runs: Sequence[Run]) -> Iterator[Caution]:
    """Runs with several tokens an event, where the first event's share is unknown."""
    shares = [
        run.completion_tokens / len(run.event_offsets_s)
        for run in runs
        if run.counted_by is CountedBy.USAGE and len(run.event_offsets_s) > 1
    ]
    if shares and statistics.median(shares) > 1.05:
        share = statistics.median(shares)
        tokens = statistics.median(run.completion_tokens for run in runs)
        bias = (share - 1) / max(tokens - share, 1)
        yield Caution(
            CautionCode.GROUPED_TOKENS,
            f"The server sends about {share:.1f} tokens an event: the decode rate may read up to "
            f"{bias:.1%} high, and gaps are between events, not tokens.",
            point,
        )


def _prompt_length(
    point: Point, runs: Sequence[Run], prompts: PromptMaker | None
) -> Iterator[Caution]:
    counts = [run.prompt_tokens for run in runs if run.prompt_tokens is not None]
    wrong = [count for count in counts if count != point.prompt_tokens]
    if wrong:
        yield Caution(
            CautionCode.PROMPT_LENGTH,
            f"Asked for prompts of {point.prompt_tokens} tokens; by the server's count they had "
            f"{min(wrong)} to {max(wrong)}.",
            point,
        )
    elif not counts and prompts is not None and prompts.exactness is Exactness.ASSUMED:
        yield Caution(
            CautionCode.PROMPT_LENGTH,
            f"The server doesn't say how long prompts are: {point.prompt_tokens} tokens "
            "is an assumption of one token a word.",
            point,
        )


def _cache_hits(point: Point, runs: Sequence[Run], cache: Cache) -> Iterator[Caution]:
    hits = [
        run.cached_tokens
        for run in runs
        if run.cached_tokens and run.cached_tokens > _CACHED_SHARE * (run.prompt_tokens or 1)
    ]
    if hits and cache is Cache.FRESH:
        yield Caution(
            CautionCode.CACHE_HIT,
            f"In {len(hits)} of {len(runs)} runs a cache answered up to {max(hits)} prompt tokens: "
            "TTFT and prefill rate are too good.",
            point,
        )


def _time_course(point: Point, runs: Sequence[Run]) -> Iterator[Caution]:
    ttfts = _by_iteration([(run.iteration, run.ttft_s) for run in runs])
    rates = _by_iteration([(run.iteration, run.generation_tps) for run in runs])
    if len(ttfts) >= 3 and ttfts[0] > _COLD_FACTOR * max(ttfts[1:]):
        yield Caution(
            CautionCode.COLD_FIRST_RUN,
            f"The first iteration's TTFT was {ttfts[0] / statistics.median(ttfts[1:]):.1f} times "
            "that of the others: warm up longer.",
            point,
        )
    for name, samples in (("TTFT", ttfts), ("decode rate", rates)):
        far = _material_outliers(samples)
        if far:
            yield Caution(
                CautionCode.OUTLIERS,
                f"{len(far)} of {len(samples)} iterations are outliers by {name} "
                "(modified z-score above 3.5): something else was using the machine?",
                point,
            )
    drift = trend(rates)
    if drift and drift.relative_change < -_DRIFT_SHARE and drift.p_value < _DRIFT_P_VALUE:
        yield Caution(
            CautionCode.THERMAL_DRIFT,
            f"The decode rate fell by {-drift.relative_change:.0%} over the iterations "
            f"(Mann-Kendall p = {drift.p_value:.3f}): the machine gets hot, or slower.",
            point,
        )


def _by_iteration(samples: Sequence[tuple[int, float | None]]) -> list[float]:
    """One figure an iteration, the median of its streams, in the order of time."""
    groups: dict[int, list[float]] = {}
    for iteration, value in samples:
        if value is not None:
            groups.setdefault(iteration, []).append(value)
    return [statistics.median(groups[iteration]) for iteration in sorted(groups)]


def _material_outliers(samples: Sequence[float]) -> list[int]:
    """Outliers that are also far enough from the median to matter."""
    if not samples:
        return []
    middle = statistics.median(samples)
    return [
        position
        for position in outliers(samples)
        if abs(samples[position] - middle) > _MATERIAL_SHARE * middle
    ]


def _clocks(waves: Sequence[WaveTiming]) -> Iterator[Caution]:
    for wave in waves:
        if abs(wave.clock_drift_s) > _CLOCK_SLACK_S + _CLOCK_SHARE * wave.duration_s:
            yield Caution(
                CautionCode.CLOCK,
                f"In iteration {wave.iteration + 1} of {wave.duration_s:.1f} s the wall clock and "
                f"the monotonic clock drifted apart by {wave.clock_drift_s:+.2f} s: the machine "
                "slept, or the time was set.",
                wave.point,
            )
            break
    busy = [wave for wave in waves if wave.client_cpu_s > _CLIENT_CPU_SHARE * wave.duration_s]
    if busy:
        share = max(wave.client_cpu_s / wave.duration_s for wave in busy)
        yield Caution(
            CautionCode.CLIENT_BUSY,
            f"The client itself used {share:.0%} of a core: its stamps may be late.",
            busy[0].point,
        )
