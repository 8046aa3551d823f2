"""A report as a terminal table, Markdown or CSV; pure."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

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
    Column("total_generation_tps", "All streams", "tok/s"),
    Column("memory_bytes", "Memory", "GB", 1e-9, lower_is_better=True),
    Column("energy_j_per_token", "Energy", "J/tok", lower_is_better=True),
)
"""Every figure of the summary, in the order of the tables."""


def figure(value: float | None, scale: float = 1.0) -> str:
    """A number with three significant digits, or a dash for what is unknown."""
    if value is None:
        return "-"
    scaled = value * scale
    if abs(scaled) >= 1000:
        return f"{scaled:,.0f}"
    if abs(scaled) >= 100:
        return f"{scaled:.0f}" if abs(scaled) >= 995 else f"{scaled:.1f}"
    return f"{scaled:.3g}" if abs(scaled) < 10 else f"{scaled:.1f}"


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
    """Titles and cells of a table: one row a figure, one group of rows a point."""
    titles = ["Figure", "Median", "Unit", "95 % interval", "p95"]
    rows: list[list[str]] = []
    summaries = report.summaries()
    several = len(summaries) > 1
    for summary in summaries:
        if several:
            rows.append([point_name(summary), "", "", "", ""])
        for column in columns_with_figures([summary]):
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


def point_name(summary: PointSummary) -> str:
    """The load of a point in words."""
    point = summary.point
    streams = "stream" if point.concurrency == 1 else "streams"
    return f"{point.concurrency} {streams}, {point.prompt_tokens} prompt tokens"


def heading(report: Report) -> str:
    """What was measured, in one line."""
    return f"{report.model} at {report.target}"


def conditions(report: Report) -> str:
    """The parameters, in one line."""
    parameters = report.parameters
    lengths = ", ".join(map(str, parameters.prompt_tokens))
    streams = ", ".join(map(str, parameters.concurrency))
    done = max((run.iteration for run in report.runs), default=-1) + 1
    return (
        f"{done} iterations, prompt {lengths} tokens ({report.prompt_exactness}), "
        f"up to {parameters.generation_tokens} generated, concurrency {streams}, "
        f"prefix cache {parameters.cache}, seed {parameters.seed}"
    )


def render_table(report: Report) -> str:
    """The report for a terminal, at most 80 columns wide but for long cautions."""
    titles, rows = summary_rows(report)
    widths = [
        max(len(titles[i]), *(len(row[i]) for row in rows if any(row[1:])), 0)
        for i in range(len(titles))
    ]
    lines = [heading(report), conditions(report), ""]
    lines.append(_table_line(titles, widths))
    lines += [_table_line(row, widths) if any(row[1:]) else f"\n{row[0]}" for row in rows]
    if report.cautions:
        lines.append("")
        lines += [f"Caution ({caution.code}): {caution.message}" for caution in report.cautions]
    return "\n".join(lines) + "\n"


def _table_line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first = cells[0].ljust(widths[0])
    rest = [
        cell.ljust(width) if position == 1 else cell.rjust(width)
        for position, (cell, width) in enumerate(zip(cells[1:], widths[1:], strict=True))
    ]
    return "  ".join([first, *rest]).rstrip()


def render_markdown(report: Report) -> str:
    """The report as Markdown."""
    titles, rows = summary_rows(report)
    lines = [f"# {heading(report)}", "", conditions(report) + ".", ""]
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items() if value)
    lines += [f"Machine: {machine}.", ""] if machine else []
    lines.append(f"| {' | '.join(titles)} |")
    lines.append("| --- | ---: | --- | ---: | ---: |")
    for row in rows:
        cells = row if any(row[1:]) else [f"**{row[0]}**", *row[1:]]
        lines.append(f"| {' | '.join(cells)} |")
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
