"""A report as a terminal table, Markdown, CSV or JSON; pure."""

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Self

import msgspec

from mlx_bench.cautions import Caution
from mlx_bench.report import PointSummary, Report, metric
from mlx_bench.stats import MedianEstimate

_WIDTH = 79


def figure(value: float | None) -> str:
    """A number with three significant digits, or a dash for what is unknown."""
    if value is None:
        return "-"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:#.3g}"


def interval(low: float | None, high: float | None) -> str:
    """An interval as `low to high`, or a dash."""
    return "-" if low is None or high is None else f"{figure(low)} to {figure(high)}"


@dataclass(frozen=True, slots=True)
class FigureFormat:
    """How one figure is shown.

    Attributes:
        scale: What the stored figure is multiplied by to be in that unit.
    """

    metric: str
    title: str
    unit: str
    scale: float = 1.0
    lower_is_better: bool = False

    def of(self, summary: PointSummary) -> MedianEstimate:
        """The figure in the unit shown."""
        found = metric(summary, self.metric)
        scaled = self.scaled
        low, high = scaled(found.low), scaled(found.high)
        return MedianEstimate(scaled(found.value), low, high, scaled(found.p95))

    def fitting(self, summaries: Sequence[PointSummary]) -> Self:
        """This one, or in seconds where a millisecond is too small for the figures."""
        return self.fitting_values([metric(summary, self.metric).value for summary in summaries])

    def fitting_values(self, values: Iterable[float | None]) -> Self:
        """This one, or in seconds where a millisecond is too small for these stored figures."""
        is_long = max((value or 0 for value in values), default=0) >= 1
        return replace(self, unit="s", scale=1.0) if self.unit == "ms" and is_long else self

    def scaled(self, value: float | None) -> float | None:
        """A stored figure in the unit shown."""
        return None if value is None else value * self.scale


COLUMNS = (
    FigureFormat("ttft_s", "TTFT", "ms", 1000, lower_is_better=True),
    FigureFormat("prompt_tps", "Prefill", "tok/s"),
    FigureFormat("generation_tps", "Decode", "tok/s"),
    FigureFormat("inter_token_latency_s", "Inter-token", "ms", 1000, lower_is_better=True),
    FigureFormat("end_to_end_s", "End to end", "s", lower_is_better=True),
    FigureFormat("requests_per_s", "Requests", "/s"),
    FigureFormat("total_generation_tps", "Total", "tok/s"),
    FigureFormat("memory_bytes", "Memory", "GB", 1e-9, lower_is_better=True),
)
"""Every figure of the summary, in the order of the tables."""


def column_of(name: str) -> FigureFormat:
    """The column of one of the summary's figures."""
    return next(column for column in COLUMNS if column.metric == name)


def columns_with_figures(summaries: Sequence[PointSummary]) -> list[FigureFormat]:
    """The columns of which at least one point knows a figure."""
    return [
        column
        for column in COLUMNS
        if any(column.of(summary).value is not None for summary in summaries)
    ]


def summary_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """Titles and cells: of one point a row a figure with its interval, of several a row a point."""
    summaries = report.summaries
    if len(summaries) > 1:
        return _rows_by_point(summaries, COLUMNS)
    titles = ["Figure", "Median", "Unit", "95 % interval", "p95"]
    rows: list[list[str]] = []
    for summary, each in product(summaries, columns_with_figures(summaries)):
        column = each.fitting(summaries)
        found = column.of(summary)
        spread = interval(found.low, found.high)
        rows.append([column.title, figure(found.value), column.unit, spread, figure(found.p95)])
    return titles, rows


_TOO_WIDE = frozenset({"end_to_end_s", "requests_per_s"})
"""Figures of several points that a terminal leaves out; every other form has them."""


def _rows_by_point(
    summaries: Sequence[PointSummary], wanted: Sequence[FigureFormat]
) -> tuple[list[str], list[list[str]]]:
    known = columns_with_figures(summaries)
    columns = [column.fitting(summaries) for column in known if column in wanted]
    titles = ["Prompt", "Streams", *(f"{column.title} {column.unit}" for column in columns)]
    rows = [
        [
            f"{summary.prompt_tokens:,}",
            str(summary.concurrency),
            *(figure(column.of(summary).value) for column in columns),
        ]
        for summary in summaries
    ]
    return titles, rows


def heading(target: str, model: str) -> str:
    """What was measured, in one line."""
    return model if target == model else f"{model} at {target}"


def wrapped(text: str) -> list[str]:
    """The lines of a text in a terminal of 80 columns."""
    return textwrap.wrap(text, _WIDTH)


def caution_lines(cautions: Iterable[Caution]) -> Iterator[str]:
    """The lines of the cautions there, an empty one before each."""
    for caution in cautions:
        text = f"Caution ({caution.code}): {caution.message}"
        yield from ("", *textwrap.wrap(text, _WIDTH, subsequent_indent="  "))


def json_text(document: Mapping[str, object]) -> str:
    """A report's document as text."""
    return msgspec.json.format(msgspec.json.encode(document), indent=1).decode() + "\n"


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
    title = heading(report.target, report.model)
    lines = [*wrapped(title), *wrapped(conditions(report)), ""]
    for row in grid:
        cells = [
            cell.ljust(widths[position]) if position in left else cell.rjust(widths[position])
            for position, cell in enumerate(row)
        ]
        lines.append("  ".join(cells).rstrip())
    lines += caution_lines(report.cautions)
    return "\n".join(lines) + "\n"


def render_markdown(report: Report) -> str:
    """The report as Markdown."""
    titles, rows = summary_rows(report)
    lines = [f"# {heading(report.target, report.model)}", "", conditions(report) + ".", ""]
    machine = ", ".join(f"{key} {value}" for key, value in report.machine.items() if value)
    lines += [f"Machine: {machine}.", ""] if machine else []
    lines.append(f"| {' | '.join(titles)} |")
    lines.append(f"| --- {'| ---: ' * (len(titles) - 1)}|")
    lines += [f"| {' | '.join(row)} |" for row in rows]
    if report.cautions:
        lines += ["", "Cautions:", ""]
        lines += [f"- **{caution.code}**: {caution.message}" for caution in report.cautions]
    return "\n".join(lines) + "\n"


_CSV_FIELDS = (
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


def render_csv(report: Report) -> str:
    """Every run as a row of CSV, warm-up included; empty is unknown."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_CSV_FIELDS)
    for run in (*report.other_runs, *report.runs):
        writer.writerow(getattr(run, name) for name in _CSV_FIELDS)
    return text.getvalue()


def render_json(report: Report) -> str:
    """The report's JSON document."""
    return json_text(report.to_document())
