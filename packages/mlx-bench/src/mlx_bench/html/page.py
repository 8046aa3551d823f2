"""The page around the charts; pure but for reading its own style sheet and script."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files

from mlx_bench.export import (
    COLUMNS,
    FigureFormat,
    column_of,
    columns_with_figures,
    conditions,
    figure,
    interval,
    render_json,
    summary_rows,
)
from mlx_bench.html.charts import Mark, Series, dot_chart, histogram, line_chart
from mlx_bench.metrics import MeasuredRun, Point
from mlx_bench.report import PointSummary, Report

_MOST_HISTOGRAMS = 6
_MOST_SERIES = 4
_TILES = ("ttft_s", "generation_tps", "prompt_tps", "memory_bytes")


def render_html(report: Report) -> str:
    """One page that needs nothing else: styles, charts, tables and the raw data are inside."""
    assets = files("mlx_bench.html")
    style = (assets / "report.css").read_text(encoding="utf-8")
    script = (assets / "report.js").read_text(encoding="utf-8")
    # "</" would end the script element early.
    data = render_json(report).replace("</", "<\\/")
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
    engine = " ".join(filter(None, (report.engine.name, report.engine.version)))
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
    for each in columns_with_figures([first]):
        if each.metric not in _TILES:
            continue
        column = each.fitting([first])
        found = column.of(first)
        has_spread = found.low is not None
        range_text = f"95 %: {interval(found.low, found.high)}" if has_spread else "one sample"
        tiles.append(
            f'<div class="tile"><span>{escape(column.title)}</span>'
            f"<strong>{figure(found.value)}<small> {column.unit}</small></strong>"
            f'<span class="muted">{range_text}</span></div>'
        )
    where = f'<p class="muted">{escape(str(first.point))}</p>' if len(summaries) > 1 else ""
    return f'{where}<section class="tiles">{"".join(tiles)}</section>'


def _cautions(report: Report) -> str:
    items = "".join(
        f"<li><strong>{escape(caution.code)}</strong> {escape(caution.message)}</li>"
        for caution in report.cautions
    )
    return f'<section class="cautions"><h2>Cautions</h2><ul>{items}</ul></section>' if items else ""


def _charts(report: Report) -> list[str]:
    charts: list[str] = []
    for axis, line in (("concurrency", "prompt_tokens"), ("prompt_tokens", "concurrency")):
        charts += _sweep_charts(report.summaries, axis, line)
    charts += _gap_charts(report)
    if max((run.iteration for run in report.runs), default=0) > 0:
        charts += _time_charts(report)
    return charts


_SWEEP_TITLES = {
    "concurrency": {
        "ttft_s": "TTFT by concurrency, {unit}",
        "generation_tps": "Decode rate of one stream by concurrency, tokens/s",
        "total_generation_tps": "Decode rate of all streams by concurrency, tokens/s",
    },
    "prompt_tokens": {
        "ttft_s": "TTFT by context, {unit}",
        "prompt_tps": "Prefill rate by context, tokens/s",
        "generation_tps": "Decode rate of one stream by context, tokens/s",
    },
}
_X_TITLES = {"concurrency": "streams at once", "prompt_tokens": "prompt tokens"}
_LINE_NAMES = {"concurrency": "concurrency {:,}", "prompt_tokens": "{:,} prompt tokens"}


def _sweep_charts(summaries: Sequence[PointSummary], axis: str, line: str) -> list[str]:
    """TTFT and rates along one field of the load, a line for each value of the other."""
    levels: list[int] = sorted({getattr(summary, axis) for summary in summaries})
    if len(levels) < 2:
        return []
    lines: dict[int, list[PointSummary]] = {}
    for summary in sorted(summaries, key=lambda summary: getattr(summary, axis)):
        lines.setdefault(getattr(summary, line), []).append(summary)
    charts: list[str] = []
    titles = _SWEEP_TITLES[axis]
    for column in (each.fitting(summaries) for each in COLUMNS if each.metric in titles):
        series: list[Series] = []
        for value in sorted(lines)[:_MOST_SERIES]:
            marks = [_mark(each, column, axis, levels) for each in lines[value]]
            known = tuple(mark for mark in marks if mark is not None)
            if known:
                series.append(Series(_LINE_NAMES[line].format(value), known))
        if series:
            labels = [f"{level:,}" for level in levels]
            title = titles[column.metric].format(unit=column.unit)
            charts.append(line_chart(title, series, labels, x_title=_X_TITLES[axis]))
    return charts


def _mark(
    summary: PointSummary, column: FigureFormat, axis: str, levels: Sequence[int]
) -> Mark | None:
    level, found = getattr(summary, axis), column.of(summary)
    if found.value is None:
        return None
    tip = f"{figure(found.value)} {column.unit} at {level:,} {_X_TITLES[axis]}"
    if found.low is not None:
        tip += f" (95 %: {interval(found.low, found.high)})"
    return Mark(levels.index(level), found.value, found.low, found.high, tip)


def _gap_charts(report: Report) -> list[str]:
    charts: list[str] = []
    for summary in report.summaries[:_MOST_HISTOGRAMS]:
        gaps = [gap * 1000 for run in _good(report, summary.point) for gap in run.gaps_s]
        if len(gaps) < 2:
            continue
        title = "Inter-token latency, ms"
        if len(report.points) > 1:
            title = f"{title}: {summary.point}"
        charts.append(histogram(title, gaps, x_title="ms between tokens"))
    return charts


def _time_charts(report: Report) -> list[str]:
    """Every run in the order of time, where drift and outliers show."""
    charts: list[str] = []
    for name, title in (
        ("ttft_s", "TTFT of each run, {unit}"),
        ("generation_tps", "Decode rate of each run, tokens/s"),
    ):
        column = column_of(name).fitting_values(getattr(run, name) for run in report.runs)
        series: list[Series] = []
        for summary in report.summaries[:_MOST_SERIES]:
            marks = [
                Mark(
                    run.iteration + 1,
                    value,
                    tip=f"{figure(value)} {column.unit}, iteration {run.iteration + 1}, "
                    f"stream {run.stream + 1}",
                )
                for run in _good(report, summary.point)
                if (value := column.scaled(getattr(run, name))) is not None
            ]
            if marks:
                series.append(Series(str(summary.point), tuple(marks)))
        if series:
            charts.append(dot_chart(title.format(unit=column.unit), series, x_title="iteration"))
    return charts


def _good(report: Report, point: Point) -> list[MeasuredRun]:
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
    ttft = column_of("ttft_s").fitting_values(run.ttft_s for run in report.runs)
    titles = ["Run", f"TTFT, {ttft.unit}", "Prefill, tok/s", "Decode, tok/s", "End to end, s"]
    titles += ["Prompt", "Cached", "Generated", "Connect, ms", "Finish"]
    rows = [
        [
            f"{run.point}: {run.iteration + 1}.{run.stream + 1}",
            figure(ttft.scaled(run.ttft_s)),
            figure(run.prompt_tps),
            figure(run.generation_tps),
            figure(run.end_to_end_s),
            "-" if run.prompt_tokens is None else str(run.prompt_tokens),
            "-" if run.cached_tokens is None else str(run.cached_tokens),
            str(run.completion_tokens),
            figure(run.connect_s * 1000),
            run.error or run.finish_reason or "-",
        ]
        for run in report.runs
    ]
    return (
        f"<section><details><summary>All {len(rows)} runs</summary>"
        f"{_table(titles, rows)}</details></section>"
    )


def _facts(report: Report) -> str:
    machine = {key: value for key, value in report.machine.items() if value is not None}
    rows = [[key.replace("_", " "), str(value)] for key, value in machine.items()]
    if report.memory:
        rows.append(["memory read from", report.memory.source])
    rows.append(["mlx-bench", report.bench_version])
    return (
        f"<section><details><summary>Machine and conditions</summary>"
        f"{_table(['What', 'Value'], rows)}</details>"
        '<p><button id="save" type="button">Save the raw data as JSON</button></p></section>'
    )
