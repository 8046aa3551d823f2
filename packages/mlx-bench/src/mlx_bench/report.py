"""A benchmark's result: raw runs, what they come to, and under which conditions.

The fields of these types are the fields of the JSON document of `schema_version` 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mlx_bench.cautions import Caution
from mlx_bench.metrics import Count, MeasuredRun, MeasuredWave, Point
from mlx_bench.stats import UNKNOWN, MedianEstimate, PooledEstimate, estimate, pooled_estimate
from mlx_bench.workload import Exactness, Parameters

SCHEMA_VERSION = 1
"""The version of the JSON document that this module makes."""

_LOAD_FIELDS = ("concurrency", "prompt_tokens")


class PointSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs at one point come to.

    Attributes:
        generation_tps: Decode rate of one stream, over runs.
        inter_token_latency_s: Gaps between events, pooled over runs.
        end_to_end_s: From the request to the end of the answer, over runs.
        requests_per_s: Finished requests over the time of their wave, over waves.
        total_generation_tps: Generated tokens of all streams over the same time, over waves.
        memory_bytes: The serving process's peak memory, over waves.
    """

    concurrency: Count
    prompt_tokens: Count
    ttft_s: MedianEstimate = UNKNOWN
    prompt_tps: MedianEstimate = UNKNOWN
    generation_tps: MedianEstimate = UNKNOWN
    inter_token_latency_s: PooledEstimate = PooledEstimate()
    end_to_end_s: MedianEstimate = UNKNOWN
    requests_per_s: MedianEstimate = UNKNOWN
    total_generation_tps: MedianEstimate = UNKNOWN
    memory_bytes: MedianEstimate = UNKNOWN

    @property
    def point(self) -> Point:
        """The load."""
        return Point(self.concurrency, self.prompt_tokens)


class PeakMemory(msgspec.Struct, frozen=True):
    """Memory of the serving process.

    Attributes:
        source: What was read, as `phys_footprint`.
    """

    peak_bytes: Count
    source: str


class EngineVersion(msgspec.Struct, frozen=True):
    """The server's software, as far as it tells; None where it doesn't."""

    name: str | None = None
    version: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a benchmark found.

    Attributes:
        prompt_exactness: How well prompt lengths are known.
        machine: The machine's description; its keys depend on who describes it.
        started_at: UTC, ISO 8601.
        finished: False in what was written before the last iteration.
        summaries: What the runs come to, point by point in the order of measurement.
        memory: Memory of the serving process, or None where it can't be seen.
        extra: Further keys of the document, which mean something to whoever added them.
    """

    bench_version: str = ""
    target: str
    model: str
    engine: EngineVersion = EngineVersion()
    parameters: Parameters
    prompt_exactness: Exactness = Exactness.ASSUMED
    machine: dict[str, object]
    started_at: str = ""
    finished: bool = False
    summaries: tuple[PointSummary, ...] = msgspec.field(name="summary")
    memory: PeakMemory | None = None
    cautions: tuple[Caution, ...] = ()
    runs: tuple[MeasuredRun, ...]
    other_runs: tuple[MeasuredRun, ...] = ()
    waves: tuple[MeasuredWave, ...] = ()
    extra: dict[str, object] = msgspec.field(default_factory=dict[str, object])

    @property
    def points(self) -> tuple[Point, ...]:
        """The points in the order in which they were measured."""
        return tuple(summary.point for summary in self.summaries)

    def with_extra(self, **extra: object) -> "Report":
        """The same report with further keys."""
        return msgspec.structs.replace(self, extra={**self.extra, **extra})

    def to_document(self) -> dict[str, object]:
        """The report as a JSON object; of one point, the load is a number and not in `summary`."""
        shape: dict[str, Any] = msgspec.to_builtins(self)
        shape["parameters"]["prompt_exactness"] = shape.pop("prompt_exactness")
        for name in _LOAD_FIELDS:
            asked = shape["parameters"][name]
            shape["parameters"][name] = asked[0] if len(asked) == 1 else asked
        if len(shape["summary"]) == 1:
            (shape["summary"],) = shape["summary"]
            for name in _LOAD_FIELDS:
                del shape["summary"][name]
        extra = shape.pop("extra")
        return {"schema_version": SCHEMA_VERSION, **shape, **extra}


def summarize(
    runs: Sequence[MeasuredRun], waves: Sequence[MeasuredWave], *, seed: int
) -> tuple[PointSummary, ...]:
    """What the successful runs come to, point by point in the order of measurement."""
    points = dict.fromkeys(run.point for run in runs)
    return tuple(summarize_point(point, runs, waves, seed=seed) for point in points)


def summarize_point(
    point: Point, runs: Sequence[MeasuredRun], waves: Sequence[MeasuredWave], *, seed: int
) -> PointSummary:
    """What the successful runs at one point come to."""
    good = [run for run in runs if run.point == point and run.error is None]
    timings = [wave for wave in waves if wave.point == point]

    def over_runs(read: Callable[[MeasuredRun], float | None]) -> MedianEstimate:
        return estimate([v for run in good if (v := read(run)) is not None], seed=seed)

    def over_waves(
        read: Callable[[MeasuredWave, list[MeasuredRun]], float | None],
    ) -> MedianEstimate:
        values = [
            value
            for wave in timings
            if (value := read(wave, [r for r in good if r.iteration == wave.iteration])) is not None
        ]
        return estimate(values, seed=seed)

    return PointSummary(
        concurrency=point.concurrency,
        prompt_tokens=point.prompt_tokens,
        ttft_s=over_runs(lambda run: run.ttft_s),
        prompt_tps=over_runs(lambda run: run.prompt_tps),
        generation_tps=over_runs(lambda run: run.generation_tps),
        inter_token_latency_s=pooled_estimate([run.gaps_s for run in good], seed=seed),
        end_to_end_s=over_runs(lambda run: run.end_to_end_s),
        requests_per_s=over_waves(lambda wave, mine: _per_second(len(mine), wave)),
        total_generation_tps=over_waves(
            lambda wave, mine: _per_second(sum(run.completion_tokens for run in mine), wave)
        ),
        memory_bytes=over_waves(lambda wave, _: wave.peak_memory_bytes),
    )


def _per_second(count: int, wave: MeasuredWave) -> float | None:
    return count / wave.duration_s if count and wave.duration_s > 0 else None


def metric(summary: PointSummary, name: str) -> MedianEstimate:
    """One of the summary's figures by its name."""
    value: object = getattr(summary, name)
    return value if isinstance(value, MedianEstimate) else UNKNOWN


def is_precise_enough(summary: PointSummary, precision: float) -> bool:
    """Whether TTFT and decode rate are known to within a share of their medians."""
    figures = (summary.ttft_s, summary.generation_tps)
    return all(figure.is_known_within(precision) for figure in figures)
