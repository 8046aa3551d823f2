"""What a reader should know before trusting a figure; pure decisions over measured runs."""

import statistics
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from mlx_bench.completion import CountedBy
from mlx_bench.metrics import Count, MeasuredRun, MeasuredWave, Point, WaveTiming
from mlx_bench.stats import outliers, trend
from mlx_bench.workload import Cache, Exactness, Parameters

FEW_TOKENS = 20
"""Below so many generated tokens a decode rate rests on too short a time."""

CLIENT_CPU_SHARE = 0.7
"""Above this share of a core the client's own work may make its stamps late."""

COLD_FACTOR = 1.3
"""A first iteration that took so many times as long as the others was not warm."""

_MATERIAL_SHARE = 0.02
_DRIFT_SHARE = 0.03
_DRIFT_P_VALUE = 0.05
_CLOCK_SHARE = 0.01
_CLOCK_SLACK_S = 0.05
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
    AGENTS_QUEUE = "agents-queue"
    NO_TOOL_CALLS = "no-tool-calls"
    READS_UNKNOWN = "reads-unknown"


class Caution(msgspec.Struct, frozen=True, omit_defaults=True):
    """One reason for care.

    Attributes:
        concurrency: The load it concerns, or None for the whole report.
        prompt_tokens: The prompt length of that load.
    """

    code: CautionCode
    message: str
    concurrency: Count | None = None
    prompt_tokens: Count | None = None


class _Reason(NamedTuple):
    """A caution without its load."""

    code: CautionCode
    message: str


def find_cautions(
    runs: Sequence[MeasuredRun],
    waves: Sequence[MeasuredWave],
    parameters: Parameters,
    exactness: Exactness,
) -> tuple[Caution, ...]:
    """Every caution that the measured runs call for, point by point."""
    found: list[Caution] = []
    for point in dict.fromkeys(run.point for run in runs):
        mine = [run for run in runs if run.point == point]
        good = [run for run in mine if run.error is None]
        reasons = (
            *_failures(mine),
            *_tokens(good),
            *_prompt_length(point, good, exactness),
            *_cache_hits(good, parameters.cache),
            *_time_course(good),
        )
        found += [_at(point, reason) for reason in reasons]
    return (*found, *_clocks(waves))


def _at(point: Point, reason: _Reason) -> Caution:
    return Caution(*reason, point.concurrency, point.prompt_tokens)


def _failures(runs: Sequence[MeasuredRun]) -> Iterator[_Reason]:
    if failed := failed_runs([run.error for run in runs]):
        yield _Reason(CautionCode.FAILED_RUNS, failed)


def failed_runs(errors: Sequence[str | None]) -> str:
    """What to say of runs that failed, by each one's error; "" where none did."""
    failed = [error for error in errors if error is not None]
    if not failed:
        return ""
    return f"{len(failed)} of {len(errors)} runs failed and don't count: {failed[0]}."


def _tokens(runs: Sequence[MeasuredRun]) -> Iterator[_Reason]:
    short = [run for run in runs if run.completion_tokens < run.requested_tokens]
    if short:
        least = min(run.completion_tokens for run in short)
        yield _Reason(
            CautionCode.EARLY_STOP,
            f"{len(short)} of {len(runs)} runs stopped before {short[0].requested_tokens} tokens, "
            f"the shortest after {least}.",
        )
    over = [
        run.completion_tokens
        for run in runs
        if run.completion_tokens > (1 + _OVERRUN_SHARE) * run.requested_tokens
    ]
    if over:
        yield _Reason(
            CautionCode.LIMIT_IGNORED,
            f"{len(over)} of {len(runs)} runs went beyond the {runs[0].requested_tokens} tokens "
            f"asked for, up to {max(over)}: end-to-end times are of longer answers.",
        )
    few = [run.completion_tokens for run in runs if run.completion_tokens < FEW_TOKENS]
    if few:
        yield _Reason(
            CautionCode.FEW_TOKENS,
            f"A run of {min(few)} tokens says little about the decode rate; "
            f"at least {FEW_TOKENS} are needed.",
        )
    counted = sum(run.counted_by is CountedBy.EVENTS for run in runs)
    if counted:
        yield _Reason(
            CautionCode.EVENTS_COUNTED,
            events_counted(f"{counted} of {len(runs)} runs"),
        )
    yield from _grouped(runs)


def events_counted(where: str) -> str:
    """What to say of tokens that a server didn't count, such as in `3 of 8 runs`."""
    return f"The server sent no usage in {where}: each non-empty delta was counted as one token."


def _grouped(runs: Sequence[MeasuredRun]) -> Iterator[_Reason]:
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
        yield _Reason(
            CautionCode.GROUPED_TOKENS,
            f"The server sends about {share:.1f} tokens per event: the decode rate may read up to "
            f"{bias:.1%} high, and gaps are between events, not tokens.",
        )


def _prompt_length(
    point: Point, runs: Sequence[MeasuredRun], exactness: Exactness
) -> Iterator[_Reason]:
    counts = [run.prompt_tokens for run in runs if run.prompt_tokens is not None]
    wrong = [count for count in counts if count != point.prompt_tokens]
    if wrong:
        yield _Reason(
            CautionCode.PROMPT_LENGTH,
            f"Asked for prompts of {point.prompt_tokens} tokens; by the server's count they had "
            f"{min(wrong)} to {max(wrong)}.",
        )
    elif not counts and exactness is Exactness.ASSUMED:
        yield _Reason(
            CautionCode.PROMPT_LENGTH,
            f"The server doesn't say how long prompts are: {point.prompt_tokens} tokens "
            "is an assumption of one token per word.",
        )


def _cache_hits(runs: Sequence[MeasuredRun], cache: Cache) -> Iterator[_Reason]:
    hits = [
        run.cached_tokens
        for run in runs
        if run.cached_tokens and run.cached_tokens > _CACHED_SHARE * (run.prompt_tokens or 1)
    ]
    if hits and cache is Cache.FRESH:
        yield _Reason(
            CautionCode.CACHE_HIT,
            f"In {len(hits)} of {len(runs)} runs a cache answered up to {max(hits)} prompt tokens: "
            "TTFT and prefill rate are too good.",
        )


def _time_course(runs: Sequence[MeasuredRun]) -> Iterator[_Reason]:
    ttfts = by_iteration([(run.iteration, run.ttft_s) for run in runs])
    rates = by_iteration([(run.iteration, run.generation_tps) for run in runs])
    if len(ttfts) >= 3 and ttfts[0] > COLD_FACTOR * max(ttfts[1:]):
        yield _Reason(
            CautionCode.COLD_FIRST_RUN,
            f"The first iteration's TTFT was {ttfts[0] / statistics.median(ttfts[1:]):.1f} times "
            "that of the others: warm up longer.",
        )
    for name, samples in (("TTFT", ttfts), ("decode rate", rates)):
        far = material_outliers(samples)
        if far:
            yield _Reason(
                CautionCode.OUTLIERS,
                f"{len(far)} of {len(samples)} iterations are outliers by {name} "
                "(modified z-score above 3.5): was something else using the machine?",
            )
    if (fell := slowing("decode rate", rates)) is not None:
        yield _Reason(CautionCode.THERMAL_DRIFT, f"The {fell}")


def slowing(name: str, rates: Sequence[float]) -> str | None:
    """What to say of a rate that fell from iteration to iteration; None where it didn't."""
    drift = trend(rates)
    if not drift or drift.relative_change >= -_DRIFT_SHARE or drift.p_value >= _DRIFT_P_VALUE:
        return None
    return (
        f"{name} fell by {-drift.relative_change:.0%} over the iterations "
        f"(Mann-Kendall p = {drift.p_value:.3f}): the machine is getting hot or slower."
    )


def by_iteration(samples: Sequence[tuple[int, float | None]]) -> list[float]:
    """One figure an iteration, the median of its streams, in the order of time."""
    groups: dict[int, list[float]] = {}
    for iteration, value in samples:
        if value is not None:
            groups.setdefault(iteration, []).append(value)
    return [statistics.median(groups[iteration]) for iteration in sorted(groups)]


def material_outliers(samples: Sequence[float]) -> list[int]:
    """Outliers that are also far enough from the median to matter."""
    if not samples:
        return []
    middle = statistics.median(samples)
    return [
        position
        for position in outliers(samples)
        if abs(samples[position] - middle) > _MATERIAL_SHARE * middle
    ]


def _clocks(waves: Sequence[MeasuredWave]) -> Iterator[Caution]:
    """What goes for the machine as a whole, at the load where it was seen first."""
    for wave, code, message in clock_problems(waves):
        yield _at(wave.point, _Reason(code, message))


def clock_problems[W: WaveTiming](waves: Sequence[W]) -> Iterator[tuple[W, CautionCode, str]]:
    """Where the machine slept or the client was too busy, each at the first such wave."""
    for wave in waves:
        if abs(wave.clock_drift_s) > _CLOCK_SLACK_S + _CLOCK_SHARE * wave.duration_s:
            text = (
                f"In iteration {wave.iteration + 1} of {wave.duration_s:.1f} s the wall clock and "
                f"the monotonic clock drifted apart by {wave.clock_drift_s:+.2f} s: the machine "
                "slept, or the time was set."
            )
            yield wave, CautionCode.CLOCK, text
            break
    busy = [wave for wave in waves if wave.client_cpu_s > CLIENT_CPU_SHARE * wave.duration_s]
    if busy:
        share = max(wave.client_cpu_s / wave.duration_s for wave in busy)
        text = f"The client itself used {share:.0%} of a core: its timestamps may be late."
        yield busy[0], CautionCode.CLIENT_BUSY, text
