"""Two reports side by side: ratios with their uncertainty; pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from mlx_bench.export import COLUMNS, Column, figure, interval
from mlx_bench.metrics import Point, Run
from mlx_bench.report import Report
from mlx_bench.stats import Estimate, ratio_estimate

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
        point: The load.
        metric: Which figure.
        ratio: B over A, with its interval.
        change: What it means for B.
    """

    point: Point
    metric: str
    ratio: Estimate
    change: Change


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every ratio of two reports.

    Attributes:
        a: What A measured, in words.
        b: What B measured, in words.
        ratios: Point by point, figure by figure.
        differences: Parameters and conditions in which the reports differ.
        unmatched: Points that only one of them has.
    """

    a: str
    b: str
    ratios: tuple[Ratio, ...]
    differences: tuple[str, ...]
    unmatched: tuple[Point, ...]


def compare_reports(a: Report, b: Report) -> Comparison:
    """B's figures over A's at each point that both measured."""
    shared = [point for point in a.points if point in b.points]
    unmatched = [point for point in (*a.points, *b.points) if point not in shared]
    columns = {column.metric: column for column in COLUMNS}
    ratios = [_compare_figure(columns[name], point, a, b) for point in shared for name in COMPARED]
    return Comparison(
        a=f"{a.model} at {a.target}, {a.started_at}",
        b=f"{b.model} at {b.target}, {b.started_at}",
        ratios=tuple(ratio for ratio in ratios if ratio.ratio.value is not None),
        differences=tuple(_differences(a, b)),
        unmatched=tuple(dict.fromkeys(unmatched)),
    )


def _compare_figure(column: Column, point: Point, a: Report, b: Report) -> Ratio:
    ratio = ratio_estimate(
        _samples(b.runs, point, column.metric),
        _samples(a.runs, point, column.metric),
        seed=a.parameters.seed,
    )
    return Ratio(point, column.metric, ratio, judge_ratio(ratio, column.lower_is_better))


def judge_ratio(ratio: Estimate, lower_is_better: bool) -> Change:
    """Whether B is better or worse, or the interval can't tell."""
    if ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return Change.UNCLEAR
    return Change.BETTER if (ratio.high < 1) is lower_is_better else Change.WORSE


def _samples(runs: Sequence[Run], point: Point, name: str) -> list[float]:
    """One sample a run; gaps are reduced to each run's median."""
    samples: list[float] = []
    for run in runs:
        if run.point != point or run.error is not None:
            continue
        value = _median_gap(run) if name == "inter_token_latency_s" else getattr(run, name)
        if isinstance(value, int | float):
            samples.append(value)
    return samples


def _median_gap(run: Run) -> float | None:
    gaps = sorted(run.gaps_s)
    return gaps[len(gaps) // 2] if gaps else None


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


def comparison_as_json(comparison: Comparison) -> dict[str, object]:
    """The comparison as a JSON object of `schema_version` 1."""
    return {
        "schema_version": 1,
        "a": comparison.a,
        "b": comparison.b,
        "ratios": [
            {
                **asdict(ratio.point),
                "metric": ratio.metric,
                "ratio": ratio.ratio.value,
                "low": ratio.ratio.low,
                "high": ratio.ratio.high,
                "change": ratio.change,
            }
            for ratio in comparison.ratios
        ],
        "differences": list(comparison.differences),
        "unmatched": [asdict(point) for point in comparison.unmatched],
    }


def render_comparison(comparison: Comparison) -> str:
    """The comparison for a terminal."""
    lines = [f"A: {comparison.a}", f"B: {comparison.b}", ""]
    lines += [f"They differ in {difference}." for difference in comparison.differences]
    lines += [""] if comparison.differences else []
    titles = {column.metric: column.title for column in COLUMNS}
    last: Point | None = None
    for ratio in comparison.ratios:
        if ratio.point != last:
            lines.append(_point_name(ratio.point).capitalize())
            last = ratio.point
        lines.append(
            f"  {titles[ratio.metric]:<12} B/A {figure(ratio.ratio.value):>7}  "
            f"({interval(ratio.ratio)})  {ratio.change}"
        )
    if not comparison.ratios:
        lines.append("No point was measured in both.")
    if comparison.unmatched:
        only = "; ".join(_point_name(point) for point in comparison.unmatched)
        lines += ["", f"Measured in one of them only: {only}."]
    return "\n".join(lines) + "\n"


def _point_name(point: Point) -> str:
    return f"concurrency {point.concurrency}, {point.prompt_tokens} prompt tokens"
