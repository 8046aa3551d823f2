"""A benchmark's result: raw runs, what they come to, and under which conditions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from mlx_bench.cautions import Caution, WaveTiming
from mlx_bench.metrics import Point, Run
from mlx_bench.stats import UNKNOWN, Estimate, estimate, percentile, pooled_estimate
from mlx_bench.workload import Exactness, Parameters


@dataclass(frozen=True, slots=True)
class PointSummary:
    """What the runs at one point come to.

    Attributes:
        point: The load.
        ttft_s: Time to first token, over runs.
        prompt_tps: Prefill rate, over runs.
        generation_tps: Decode rate of one stream, over runs.
        inter_token_latency_s: Gaps between events, pooled over runs.
        end_to_end_s: From the request to the end of the answer, over runs.
        requests_per_s: Finished requests over the time of their wave, over waves.
        total_generation_tps: Generated tokens of all streams over the same time, over waves.
        memory_bytes: The serving process's peak memory, over waves.
        energy_j_per_token: Energy over generated tokens, over waves.
    """

    point: Point
    ttft_s: Estimate
    prompt_tps: Estimate
    generation_tps: Estimate
    inter_token_latency_s: Estimate
    end_to_end_s: Estimate
    requests_per_s: Estimate
    total_generation_tps: Estimate
    memory_bytes: Estimate
    energy_j_per_token: Estimate


SUMMARY_METRICS = (
    "ttft_s",
    "prompt_tps",
    "generation_tps",
    "inter_token_latency_s",
    "end_to_end_s",
    "requests_per_s",
    "total_generation_tps",
    "memory_bytes",
    "energy_j_per_token",
)
"""The summary's figures in the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of the serving process.

    Attributes:
        peak_bytes: The highest seen while requests ran.
        source: What was read, as `phys_footprint of 1 process`.
    """

    peak_bytes: int
    source: str


@dataclass(frozen=True, slots=True)
class Engine:
    """The server's software, as far as it tells; empty where it doesn't."""

    name: str = ""
    version: str = ""


@dataclass(frozen=True)  # without slots, so that the summaries are made once
class Report:
    """Everything that a benchmark found.

    Attributes:
        target: What was measured, as the user named it.
        model: The model asked of the server.
        parameters: What was asked for.
        machine: The machine's description; its keys depend on who describes it.
        engine: The server's software.
        started_at: UTC, ISO 8601.
        finished: False in what was written before the last iteration.
        prompt_exactness: How well prompt lengths are known.
        runs: The measured runs, failed ones included.
        other_runs: Warm-up and cache-priming runs.
        waves: The timing of each measured wave.
        memory: Memory of the serving process, or None where it can't be seen.
        energy_source: Where the energy figures come from, empty where there are none.
        cautions: What to know before trusting a figure.
        bench_version: The version of mlx-bench.
        extra: What a caller adds: a verdict, a tool-calling check.
    """

    target: str
    model: str
    parameters: Parameters
    machine: dict[str, object]
    engine: Engine
    started_at: str
    finished: bool
    prompt_exactness: Exactness
    runs: tuple[Run, ...]
    other_runs: tuple[Run, ...] = ()
    waves: tuple[WaveTiming, ...] = ()
    memory: Memory | None = None
    energy_source: str = ""
    cautions: tuple[Caution, ...] = ()
    bench_version: str = ""
    extra: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def points(self) -> tuple[Point, ...]:
        """The points in the order in which they were measured."""
        return tuple(dict.fromkeys(run.point for run in self.runs))

    @cached_property
    def summaries(self) -> tuple[PointSummary, ...]:
        """What the runs come to, point by point."""
        return tuple(
            summarize_point(point, self.runs, self.waves, seed=self.parameters.seed)
            for point in self.points
        )


def summarize_point(
    point: Point, runs: Sequence[Run], waves: Sequence[WaveTiming], *, seed: int
) -> PointSummary:
    """What the successful runs at one point come to."""
    good = [run for run in runs if run.point == point and run.error is None]
    timings = [wave for wave in waves if wave.point == point]

    def over_runs(read: Callable[[Run], float | None]) -> Estimate:
        return estimate([v for run in good if (v := read(run)) is not None], seed=seed)

    def over_waves(read: Callable[[WaveTiming, list[Run]], float | None]) -> Estimate:
        values = [
            value
            for wave in timings
            if (value := read(wave, [r for r in good if r.iteration == wave.iteration])) is not None
        ]
        return estimate(values, seed=seed)

    return PointSummary(
        point=point,
        ttft_s=over_runs(lambda run: run.ttft_s),
        prompt_tps=over_runs(lambda run: run.prompt_tps),
        generation_tps=over_runs(lambda run: run.generation_tps),
        inter_token_latency_s=pooled_estimate([run.gaps_s for run in good], seed=seed),
        end_to_end_s=over_runs(lambda run: run.end_to_end_s),
        requests_per_s=over_waves(lambda wave, mine: _per_second(len(mine), wave)),
        total_generation_tps=over_waves(lambda wave, mine: _per_second(_tokens(mine), wave)),
        memory_bytes=over_waves(lambda wave, _: wave.peak_memory_bytes),
        energy_j_per_token=over_waves(_energy_per_token),
    )


def gap_percentiles_s(point: Point, runs: Sequence[Run]) -> dict[str, float]:
    """Percentiles of the pooled inter-token latencies at one point; empty where there are none."""
    gaps = [gap for run in runs if run.point == point and run.error is None for gap in run.gaps_s]
    if not gaps:
        return {}
    shares = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "max": 1.0}
    return {name: percentile(gaps, share) for name, share in shares.items()}


def metric(summary: PointSummary, name: str) -> Estimate:
    """One of `SUMMARY_METRICS` by its name."""
    value: object = getattr(summary, name)
    return value if isinstance(value, Estimate) else UNKNOWN


def is_precise_enough(summary: PointSummary, precision: float) -> bool:
    """Whether TTFT and decode rate are known to within a share of their medians.

    Six samples at least are wanted: below that no interval reaches 95 %.
    """
    for wanted in (summary.ttft_s, summary.generation_tps):
        if wanted.value is None:
            continue
        width = wanted.relative_half_width
        if wanted.samples < 6 or width is None or width > precision:
            return False
    return True


def _tokens(runs: Sequence[Run]) -> int:
    return sum(run.completion_tokens for run in runs)


def _per_second(count: int, wave: WaveTiming) -> float | None:
    return count / wave.duration_s if count and wave.duration_s > 0 else None


def _energy_per_token(wave: WaveTiming, runs: Sequence[Run]) -> float | None:
    tokens = _tokens(runs)
    return wave.energy_j / tokens if wave.energy_j is not None and tokens else None
