"""The page around the charts; pure but for reading its own style sheet and script."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

from mlx_bench.export import (
    columns_with_figures,
    conditions,
    figure,
    interval,
    point_name,
    summary_rows,
)
from mlx_bench.html.charts import Mark, Series, dot_chart, histogram, line_chart
from mlx_bench.metrics import Point, Run
from mlx_bench.report import PointSummary, Report, metric
from mlx_bench.report_json import report_as_json

_MOST_HISTOGRAMS = 6
_MOST_SERIES = 4
_TILES = ("ttft_s", "generation_tps", "prompt_tps", "memory_bytes")


def render_html(report: Report) -> str:
    """One page that needs nothing else: styles, charts, tables and the raw data are inside."""
    assets = files("mlx_bench.html")
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    # "</" would end the script element early.
    data = json.dumps(report_as_json(report)).replace("</", "<\\/")
    body = "".join(
        (
            _header(report),
            _tiles(report),
            _cautions(report),
            f'<section class="charts">{"".join(_charts(report))}</section>',
            _summary_table(report),
            _runs_table(report),
            _facts(report),
        )
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(report.model)}: benchmark</title><style>{style}</style></head>"
        f'<body><main>{body}</main><div id="tip" hidden></div>'
        f'<script type="application/json" id="report">{data}</script>'
        f"<script>{script}</script></body></html>\n"
    )


def _header(report: Report) -> str:
    engine = f"{report.engine.name} {report.engine.version}".strip()
    machine = report.machine.get("chip") or report.machine.get("architecture")
    facts = [report.target, engine, str(machine or ""), report.started_at.replace("T", " ")]
    unfinished = "" if report.finished else '<span class="badge">unfinished</span>'
    return (
        f"<header><h1>{escape(report.model)}{unfinished}</h1>"
        f'<p class="muted">{escape(" · ".join(fact for fact in facts if fact))}</p>'
        f'<p class="muted">{escape(conditions(report))}</p></header>'
    )


def _tiles(report: Report) -> str:
    summaries = report.summaries
    if not summaries:
        return ""
    first = summaries[0]
    tiles: list[str] = []
    for column in columns_with_figures([first]):
        if column.metric not in _TILES:
            continue
        found = metric(first, column.metric)
        spread = interval(found, column.scale)
        range_text = f"95 %: {spread}" if spread != "-" else "one sample"
        tiles.append(
            f'<div class="tile"><span>{escape(column.title)}</span>'
            f"<strong>{figure(found.value, column.scale)}<small> {column.unit}</small></strong>"
            f'<span class="muted">{range_text}</span></div>'
        )
    where = f'<p class="muted">{escape(point_name(first))}</p>' if len(summaries) > 1 else ""
    return f'{where}<section class="tiles">{"".join(tiles)}</section>'


def _cautions(report: Report) -> str:
    items = "".join(
        f"<li><strong>{escape(caution.code)}</strong> {escape(caution.message)}</li>"
        for caution in report.cautions
    )
    return f'<section class="cautions"><h2>Cautions</h2><ul>{items}</ul></section>' if items else ""


def _charts(report: Report) -> list[str]:
    summaries = report.summaries
    lengths = sorted({summary.point.prompt_tokens for summary in summaries})
    streams = sorted({summary.point.concurrency for summary in summaries})
    charts: list[str] = []
    if len(streams) > 1:
        charts += _sweep(summaries, streams, lengths, "concurrency")
    if len(lengths) > 1:
        charts += _sweep(summaries, lengths, streams, "prompt_tokens")
    charts += _gap_charts(report)
    if max((run.iteration for run in report.runs), default=0) > 0:
        charts += _time_charts(report)
    return charts


_X_TITLES = {"concurrency": "streams at once", "prompt_tokens": "prompt tokens"}


def _series_name(axis: str, other: int) -> str:
    if axis == "concurrency":
        return f"{other:,} prompt tokens"
    return f"{other} stream{'s' if other > 1 else ''}"


def _sweep(
    summaries: Sequence[PointSummary], along: Sequence[int], others: Sequence[int], axis: str
) -> list[str]:
    """TTFT and rates along one parameter, a line for each value of the other."""
    by_point = {summary.point: summary for summary in summaries}

    def point(x: int, other: int) -> Point:
        return Point(x, other) if axis == "concurrency" else Point(other, x)

    def lines(name: str, scale: float, unit: str) -> list[Series]:
        found: list[Series] = []
        for other in others[:_MOST_SERIES]:
            marks: list[Mark] = []
            for position, x in enumerate(along):
                summary = by_point.get(point(x, other))
                value = metric(summary, name) if summary else None
                if value is None or value.value is None:
                    continue
                low = value.low * scale if value.low is not None else None
                high = value.high * scale if value.high is not None else None
                tip = f"{figure(value.value, scale)} {unit} at {x} {_X_TITLES[axis]}"
                if interval(value, scale) != "-":
                    tip += f" (95 %: {interval(value, scale)})"
                marks.append(Mark(position, value.value * scale, low, high, tip))
            found.append(Series(_series_name(axis, other), tuple(marks)))
        return [series for series in found if series.marks]

    labels = [f"{x:,}" for x in along]
    by = "concurrency" if axis == "concurrency" else "context"
    shown = [("ttft_s", f"TTFT by {by}, ms", 1000.0, "ms")]
    shown.append(("generation_tps", f"Decode rate of one stream by {by}, tokens/s", 1.0, "tok/s"))
    if axis == "concurrency":
        title = "Decode rate of all streams by concurrency, tokens/s"
        shown.append(("total_generation_tps", title, 1.0, "tok/s"))
    else:
        shown.append(("prompt_tps", "Prefill rate by context, tokens/s", 1.0, "tok/s"))
    return [
        line_chart(title, lines(name, scale, unit), labels, x_title=_X_TITLES[axis])
        for name, title, scale, unit in shown
        if lines(name, scale, unit)
    ]


def _gap_charts(report: Report) -> list[str]:
    charts: list[str] = []
    for summary in report.summaries[:_MOST_HISTOGRAMS]:
        gaps = [gap * 1000 for run in _good(report, summary.point) for gap in run.gaps_s]
        if len(gaps) < 2:
            continue
        title = "Inter-token latency, ms"
        if len(report.points) > 1:
            title = f"{title}: {point_name(summary)}"
        charts.append(histogram(title, gaps, x_title="ms between tokens"))
    return charts


def _time_charts(report: Report) -> list[str]:
    """Every run in the order of time, where drift and outliers show."""
    charts: list[str] = []
    for name, title, scale, unit in (
        ("ttft_s", "TTFT of each run, ms", 1000.0, "ms"),
        ("generation_tps", "Decode rate of each run, tokens/s", 1.0, "tok/s"),
    ):
        series: list[Series] = []
        for summary in report.summaries[:_MOST_SERIES]:
            marks = [
                Mark(
                    run.iteration + 1,
                    value * scale,
                    tip=f"{figure(value, scale)} {unit}, iteration {run.iteration + 1}, "
                    f"stream {run.stream + 1}",
                )
                for run in _good(report, summary.point)
                if isinstance(value := getattr(run, name), int | float)
            ]
            if marks:
                series.append(Series(point_name(summary), tuple(marks)))
        if series:
            charts.append(dot_chart(title, series, x_title="iteration"))
    return charts


def _good(report: Report, point: Point) -> list[Run]:
    return [run for run in report.runs if run.point == point and run.error is None]


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="scroll">{table}</div>'


def _summary_table(report: Report) -> str:
    titles, rows = summary_rows(report)
    return f"<section><h2>Summary</h2>{_table(titles, rows)}</section>"


def _runs_table(report: Report) -> str:
    titles = ["Run", "TTFT, ms", "Prefill, tok/s", "Decode, tok/s", "End to end, s"]
    titles += ["Prompt", "Cached", "Generated", "Connect, ms", "Finish"]
    rows = [
        [
            _run_name(run),
            figure(run.ttft_s, 1000),
            figure(run.prompt_tps),
            figure(run.generation_tps),
            figure(run.end_to_end_s),
            "-" if run.prompt_tokens is None else str(run.prompt_tokens),
            "-" if run.cached_tokens is None else str(run.cached_tokens),
            str(run.completion_tokens),
            figure(run.connect_s, 1000),
            run.error or run.finish_reason or "-",
        ]
        for run in report.runs
    ]
    return (
        f"<section><details><summary>All {len(rows)} runs</summary>"
        f"{_table(titles, rows)}</details></section>"
    )


def _run_name(run: Run) -> str:
    point = run.point
    return (
        f"{point.prompt_tokens} tokens, {point.concurrency} at once: "
        f"{run.iteration + 1}.{run.stream + 1}"
    )


def _facts(report: Report) -> str:
    machine = {key: value for key, value in report.machine.items() if value is not None}
    rows = [[key.replace("_", " "), str(value)] for key, value in machine.items()]
    if report.memory:
        rows.append(["memory read from", report.memory.source])
    if report.energy_source:
        rows.append(["energy read from", report.energy_source])
    rows.append(["mlx-bench", report.bench_version])
    return (
        f"<section><details><summary>Machine and conditions</summary>"
        f"{_table(['What', 'Value'], rows)}</details>"
        '<p><button id="save" type="button">Save the raw data as JSON</button></p></section>'
    )
