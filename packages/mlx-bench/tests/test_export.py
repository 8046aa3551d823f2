"""A report as text."""

import csv
import io
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from mlx_bench.export import column_of, figure, render_csv, render_markdown, render_table
from mlx_bench.metrics import Point
from mlx_bench.report import Report, metric

type MakeReport = Callable[..., Report]

SWEEP = (Point(1, 256), Point(4, 256), Point(1, 2048), Point(4, 2048))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.0161, "0.0161"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (376.54, "376.5"),
        (999.7, "1,000"),
        (12345.6, "12,346"),
    ],
)
def test_figures_keep_three_digits_or_more(value: float | None, text: str) -> None:
    assert figure(value) == text


def test_a_table_of_one_point_fits_eighty_columns(make_report: MakeReport) -> None:
    table = render_table(make_report())
    assert max(map(len, table.splitlines())) <= 80
    assert ["Decode", "101.0", "tok/s", "100.0", "to", "102.0"] in [
        line.split()[:6] for line in table.splitlines()
    ]
    assert "Caution (outliers)" in table


def test_a_wait_of_seconds_is_shown_in_seconds(make_report: MakeReport) -> None:
    [summary] = make_report().summaries
    ttft, short = column_of("ttft_s"), metric(summary, "ttft_s")
    slow = replace(summary, ttft_s=replace(short, value=2.104))
    assert short.value is not None
    assert short.value < 1
    assert ttft.fitting([summary]).unit == "ms"
    assert (ttft.fitting([slow]).unit, ttft.fitting([slow]).of(slow).value) == ("s", 2.104)


def test_a_table_of_several_points_has_a_row_each(make_report: MakeReport) -> None:
    table = render_table(make_report(SWEEP))
    rows = [line.split()[:2] for line in table.splitlines()]
    assert max(map(len, table.splitlines())) <= 80
    assert ["256", "4"] in rows
    assert ["2,048", "1"] in rows


def test_markdown_has_a_whole_table(make_report: MakeReport) -> None:
    lines = [line for line in render_markdown(make_report()).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
    assert len(lines) > 6


def test_csv_has_a_row_a_run(make_report: MakeReport) -> None:
    rows = list(csv.DictReader(io.StringIO(render_csv(make_report()))))
    assert [row["phase"] for row in rows] == ["warm-up", "measure", "measure", "measure"]
    assert float(rows[1]["generation_tps"]) == 100
