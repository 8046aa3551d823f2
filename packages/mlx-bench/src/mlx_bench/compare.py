"""Two reports side by side: ratios with their uncertainty; pure."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from mlx_bench.export import column_of, figure, interval
from mlx_bench.metrics import MeasuredRun, Point
from mlx_bench.report import Report
from mlx_bench.stats import MedianEstimate, ratio_estimate

COMPARED = ("ttft_s", "prompt_tps", "generation_tps", "inter_token_latency_s", "end_to_end_s")
"""The figures that are compared, all measured run by run."""


class Change(StrEnum):
    """What a ratio means."""

    BETTER = "better"
    WORSE = "worse"
    UNCLEAR = "no clear difference"
    """The interval of the ratio holds 1, or there is none."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure of B over that of A.

    Attributes:
        ratio: B over A, with its interval.
    """

    point: Point
    metric: str
    ratio: MedianEstimate
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every ratio of two reports.

    Attributes:
        differences: Parameters and conditions in which the reports differ.
        unmatched: Points that only one of them has.
    """

    a: str
    b: str
    ratios: tuple[Ratio, ...]
    differences: tuple[str, ...]
    unmatched: tuple[Point, ...]

    def to_document(self) -> dict[str, object]:
        """The comparison as a JSON object of `schema_version` 1."""
        return {
            "schema_version": 1,
            "a": self.a,
            "b": self.b,
            "ratios": [
                {
                    **asdict(ratio.point),
                    "metric": ratio.metric,
                    "ratio": ratio.ratio.value,
                    "low": ratio.ratio.low,
                    "high": ratio.ratio.high,
                    "change": ratio.change,
                }
                for ratio in self.ratios
            ],
            "differences": list(self.differences),
            "unmatched": [asdict(point) for point in self.unmatched],
        }


def compare_reports(a: Report, b: Report) -> Comparison:
    """B's figures over A's at each point that both measured."""
    shared = [point for point in a.points if point in b.points]
    unmatched = [point for point in (*a.points, *b.points) if point not in shared]
    ratios = [_compare_figure(name, point, a, b) for point in shared for name in COMPARED]
    return Comparison(
        a=f"{a.model} at {a.target}, {a.started_at}",
        b=f"{b.model} at {b.target}, {b.started_at}",
        ratios=tuple(ratio for ratio in ratios if ratio.ratio.value is not None),
        differences=tuple(_differences(a, b)),
        unmatched=tuple(dict.fromkeys(unmatched)),
    )


def _compare_figure(name: str, point: Point, a: Report, b: Report) -> Ratio:
    above, below = _samples(b.runs, point, name), _samples(a.runs, point, name)
    ratio = ratio_estimate(above, below, seed=a.parameters.seed)
    return Ratio(point, name, ratio, judge_ratio(ratio, column_of(name).lower_is_better))


def judge_ratio(ratio: MedianEstimate, lower_is_better: bool) -> Change:
    """Whether B is better or worse, or the interval can't tell."""
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return Change.UNCLEAR
    return Change.BETTER if (ratio.high < 1) is lower_is_better else Change.WORSE


def _samples(runs: Sequence[MeasuredRun], point: Point, name: str) -> list[float]:
    """One sample a run; gaps are reduced to each run's median."""
    samples: list[float] = []
    for run in runs:
        if run.point != point or run.error is not None:
            continue
        if name == "inter_token_latency_s":
            value = statistics.median(run.gaps_s) if run.gaps_s else None
        else:
            value = getattr(run, name)
        if value is not None:
            samples.append(value)
    return samples


def _differences(a: Report, b: Report) -> list[str]:
    pairs: dict[str, tuple[object, object]] = {
        "model": (a.model, b.model),
        "engine": (a.engine, b.engine),
        "generation tokens": (a.parameters.generation_tokens, b.parameters.generation_tokens),
        "prefix cache": (a.parameters.cache, b.parameters.cache),
        "chip": (a.machine.get("chip"), b.machine.get("chip")),
        "memory": (_machine_memory(a), _machine_memory(b)),
    }
    return [f"{name}: {one} and {other}" for name, (one, other) in pairs.items() if one != other]


def _machine_memory(report: Report) -> object:
    return report.machine.get("memory_bytes", report.machine.get("memory_gb"))


def render_comparison(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [f"A: {comparison.a}", f"B: {comparison.b}", ""]
    lines += [f"They differ in {difference}." for difference in comparison.differences]
    lines += [""] if comparison.differences else []
    last: Point | None = None
    for ratio in comparison.ratios:
        if ratio.point != last:
            lines.append(str(ratio.point))
            last = ratio.point
        lines.append(
            f"  {column_of(ratio.metric).title:<12} B/A {figure(ratio.ratio.value):>7}  "
            f"({interval(ratio.ratio.low, ratio.ratio.high)})  {ratio.change}"
        )
    if not comparison.ratios:
        lines.append("No point was measured in both.")
    if comparison.unmatched:
        only = "; ".join(map(str, comparison.unmatched))
        lines += ["", f"Measured in only one of them: {only}."]
    return "\n".join(lines) + "\n"
