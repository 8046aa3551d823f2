"""A report as a terminal table, Markdown or CSV; pure."""

import csv
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from mlx_bench.report import PointSummary, Report, metric
from mlx_bench.stats import Estimate


@dataclass(frozen=True, slots=True)
class Column:
    """How one figure is shown.

    Attributes:
        metric: Its name in the summary.
        title: Its name for readers.
        unit: The unit shown.
        scale: What the stored figure is multiplied by to be in that unit.
        lower_is_better: Whether less is better.
    """

    metric: str
    title: str
    unit: str
    scale: float = 1.0
    lower_is_better: bool = False


COLUMNS = (
    Column("ttft_s", "TTFT", "ms", 1000, lower_is_better=True),
    Column("prompt_tps", "Prefill", "tok/s"),
    Column("generation_tps", "Decode", "tok/s"),
    Column("inter_token_latency_s", "Inter-token", "ms", 1000, lower_is_better=True),
    Column("end_to_end_s", "End to end", "s", lower_is_better=True),
    Column("requests_per_s", "Requests", "/s"),
    Column("total_generation_tps", "Total", "tok/s"),
    Column("memory_bytes", "Memory", "GB", 1e-9, lower_is_better=True),
    Column("energy_j_per_token", "Energy", "J/tok", lower_is_better=True),
)
"""Every figure of the summary, in the order of the tables."""


def figure(value: float | None, scale: float = 1.0) -> str:
    """A number with three significant digits, or a dash for what is unknown."""
    if value is None:
        return "-"
    scaled = value * scale
    if abs(scaled) >= 999.5:
        return f"{scaled:,.0f}"
    return f"{scaled:.1f}" if abs(scaled) >= 9.995 else f"{scaled:#.3g}"


def interval(estimate: Estimate, scale: float = 1.0) -> str:
    """The interval of an estimate as `low to high`, or a dash."""
    if estimate.low is None or estimate.high is None:
        return "-"
    return f"{figure(estimate.low, scale)} to {figure(estimate.high, scale)}"


def columns_with_figures(summaries: Sequence[PointSummary]) -> list[Column]:
    """The columns of which at least one point knows a figure."""
    return [
        column
        for column in COLUMNS
        if any(metric(summary, column.metric).value is not None for summary in summaries)
    ]


def summary_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: of one point a row a figure with its interval, of several a row a point."""
    summaries = report.summaries
    if len(summaries) > 1:
        return _rows_by_point(summaries, COLUMNS)
    titles = ["Figure", "Median", "Unit", "95 % interval", "p95"]
    rows: list[list[str]] = []
    for summary, column in product(summaries, columns_with_figures(summaries)):
        found = metric(summary, column.metric)
        rows.append(
            [
                column.title,
                figure(found.value, column.scale),
                column.unit,
                interval(found, column.scale),
                figure(found.p95, column.scale),
            ]
        )
    return titles, rows


_TOO_WIDE = frozenset({"end_to_end_s", "requests_per_s"})
"""Figures of several points that a terminal leaves out; every other form has them."""


def _rows_by_point(
    summaries: Sequence[PointSummary], wanted: Sequence[Column]
) -> tuple[list[str], list[list[str]]]:
    columns = [column for column in columns_with_figures(summaries) if column in wanted]
    titles = ["Prompt", "Streams", *(f"{column.title} {column.unit}" for column in columns)]
    rows = [
        [
            f"{summary.point.prompt_tokens:,}",
            str(summary.point.concurrency),
            *(figure(metric(summary, column.metric).value, column.scale) for column in columns),
        ]
        for summary in summaries
    ]
    return titles, rows


def point_name(summary: PointSummary) -> str:
    """The load of a point in words."""
    point = summary.point
    streams = "stream" if point.concurrency == 1 else "streams"
    return f"{point.concurrency} {streams}, {point.prompt_tokens} prompt tokens"


def heading(report: Report) -> str:
    """What was measured, in one line."""
    if report.target == report.model:
        return report.model
    return f"{report.model} at {report.target}"


def conditions(report: Report) -> str:
    """The parameters, in one line."""
    parameters = report.parameters
    lengths = ", ".join(map(str, parameters.prompt_tokens))
    streams = ", ".join(map(str, parameters.concurrency))
    done = max((run.iteration for run in report.runs), default=-1) + 1
    iterations = "1 iteration" if done == 1 else f"{done} iterations"
    return (
        f"{iterations}, prompt {lengths} tokens ({report.prompt_exactness}), "
        f"up to {parameters.generation_tokens} generated, concurrency {streams}, "
        f"prefix cache {parameters.cache}, seed {parameters.seed}"
    )


def render_table(report: Report) -> str:
    """The report for a terminal of 80 columns; of several points the figures that fit."""
    several = len(report.points) > 1
    compact = [column for column in COLUMNS if column.metric not in _TOO_WIDE]
    titles, rows = _rows_by_point(report.summaries, compact) if several else summary_rows(report)
    # Titles of several words take two lines, so that nine columns fit.
    heads = [title.rsplit(" ", 1) if several and " " in title else ["", title] for title in titles]
    upper, lower = [head[0] for head in heads], [head[1] for head in heads]
    grid = [*([upper] if several else []), lower, *rows]
    widths = [max(len(row[position]) for row in grid) for position in range(len(titles))]
    left = {0} if several else {0, 2}
    lines = [*textwrap.wrap(heading(report), 79), *textwrap.wrap(conditions(report), 79), ""]
    for row in grid:
        cells = [
            cell.ljust(widths[position]) if position in left else cell.rjust(widths[position])
            for position, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    for caution in report.cautions:
        text = f"Caution ({caution.code}): {caution.message}"
        lines += ["", *textwrap.wrap(text, 79, subsequent_indent="  ")]
    return "\n".join(lines) + "\n"


def render_markdown(report: Report) -> str:
    """The report as Markdown."""
    titles, rows = summary_rows(report)
    lines = [f"# {heading(report)}", "", conditions(report) + ".", ""]
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items() if value)
    lines += [f"Machine: {machine}.", ""] if machine else []
    lines.append(f"| {' | '.join(titles)} |")
    lines.append(f"| --- {'| ---: ' * (len(titles) - 1)}|")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if report.cautions:
        lines += ["", "Cautions:", ""]
        lines += [f"- **{caution.code}**: {caution.message}" for caution in report.cautions]
    return "\n".join(lines) + "\n"


CSV_FIELDS = (
    "phase",
    "concurrency",
    "prompt_tokens_asked",
    "iteration",
    "stream",
    "connect_s",
    "ttft_s",
    "prompt_tps",
    "generation_tps",
    "end_to_end_s",
    "prompt_tokens",
    "cached_tokens",
    "completion_tokens",
    "counted_by",
    "finish_reason",
    "error",
)
"""The columns of the CSV, one row a run."""


def render_csv(report: Report) -> str:
    """Every run as a row of CSV, warm-up included; empty is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for run in (*report.other_runs, *report.runs):
        point = {
            "concurrency": run.point.concurrency,
            "prompt_tokens_asked": run.point.prompt_tokens,
        }
        writer.writerow(point[name] if name in point else getattr(run, name) for name in CSV_FIELDS)
    return text.getvalue()
