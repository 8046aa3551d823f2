"""Reports: what they come to, how they are saved, read, shown and compared."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mlx_bench._json_values import as_list, as_object
from mlx_bench.cautions import Caution, CautionCode, WaveTiming
from mlx_bench.compare import Change, compare_reports, comparison_as_json, render_comparison
from mlx_bench.errors import ReportError
from mlx_bench.export import figure, render_csv, render_markdown, render_table
from mlx_bench.html import render_html
from mlx_bench.metrics import Phase, Point, Run
from mlx_bench.report import Engine, Memory, Report, is_precise_enough
from mlx_bench.report_json import (
    load_report,
    parse_report,
    report_as_json,
    require_writable,
    save_report,
)
from mlx_bench.workload import Exactness, Parameters

type MakeRun = Callable[..., Run]
type MakeReport = Callable[..., Report]


@pytest.fixture
def make_report(make_run: MakeRun) -> MakeReport:
    def make(points: tuple[Point, ...] = (Point(1, 1024),), rate: float = 100.0) -> Report:
        runs: list[Run] = []
        waves: list[WaveTiming] = []
        for point in points:
            for n in range(3):
                runs += [
                    make_run(rate=rate + n, point=point, iteration=n, stream=stream)
                    for stream in range(point.concurrency)
                ]
                waves.append(WaveTiming(point, n, 2.0, 0.0, 0.1, 400_000_000 + n, 30.0))
        return Report(
            target="http://127.0.0.1:8000/v1",
            model="smol <&> model",
            parameters=Parameters(
                concurrency=tuple(dict.fromkeys(p.concurrency for p in points)),
                prompt_tokens=tuple(dict.fromkeys(p.prompt_tokens for p in points)),
            ),
            machine={"chip": "M9 Ultra", "memory_bytes": 64_000_000_000, "gpu": None},
            engine=Engine("vllm-mlx", "0.6.0"),
            started_at="2026-11-01T10:00:00+00:00",
            finished=True,
            prompt_exactness=Exactness.EXACT,
            runs=tuple(runs),
            other_runs=(make_run(phase=Phase.WARM_UP),),
            waves=tuple(waves),
            memory=Memory(400_000_002, "phys_footprint"),
            energy_source="powermetrics",
            cautions=(Caution(CautionCode.OUTLIERS, "One </script> is far off.", points[0]),),
            bench_version="1.2.3",
            extra={"quant": "int4"},
        )

    return make


SWEEP = (Point(1, 256), Point(4, 256), Point(1, 2048), Point(4, 2048))


def test_a_summary_has_the_median_interval_and_p95(make_report: MakeReport) -> None:
    (summary,) = make_report().summaries
    rate = summary.generation_tps
    assert (rate.value, rate.low, rate.high) == (101, 100, 102)
    assert rate.p95 == pytest.approx(101.9)
    assert summary.requests_per_s.value == 0.5
    assert summary.total_generation_tps.value == 50
    assert summary.memory_bytes.value == 400_000_001
    assert summary.energy_j_per_token.value == pytest.approx(0.3)


def test_failed_runs_are_not_in_the_summary(make_report: MakeReport, make_run: MakeRun) -> None:
    report = make_report()
    bad = make_run(rate=1.0, iteration=0, error="HTTP 500")
    assert replace(report, runs=(*report.runs, bad)).summaries == report.summaries


def test_the_json_of_one_point_has_the_published_shape(make_report: MakeReport) -> None:
    shape = json.loads(json.dumps(report_as_json(make_report())))
    assert shape["schema_version"] == 1
    for name in (
        "ttft_s",
        "prompt_tps",
        "generation_tps",
        "inter_token_latency_s",
        "end_to_end_s",
    ):
        assert {"value", "low", "high", "p95"} <= set(shape["summary"][name])
    assert shape["parameters"]["prompt_tokens"] == 1024
    assert shape["summary"]["inter_token_latency_s"]["p99"] > 0
    assert shape["quant"] == "int4"
    assert len(shape["runs"]) == 3


def test_the_json_of_several_points_is_a_list_that_names_each(make_report: MakeReport) -> None:
    shape = json.loads(json.dumps(report_as_json(make_report(SWEEP))))
    found = [(entry["concurrency"], entry["prompt_tokens"]) for entry in shape["summary"]]
    assert found == [(1, 256), (4, 256), (1, 2048), (4, 2048)]


@pytest.mark.parametrize("points", [SWEEP[:1], SWEEP])
def test_a_saved_report_is_read_back_the_same(
    make_report: MakeReport, tmp_path: Path, points: tuple[Point, ...]
) -> None:
    report = make_report(points)
    path = tmp_path / "deep" / "report.json"
    save_report(report, path)
    loaded = load_report(path)
    rounded = tuple(
        replace(run, event_offsets_s=tuple(round(at, 6) for at in run.event_offsets_s))
        for run in report.runs
    )
    assert loaded.runs == rounded
    assert loaded.parameters == report.parameters
    assert loaded.waves == report.waves
    assert loaded.cautions == report.cautions
    assert loaded.extra == report.extra
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"schema_version": 2}', "schema_version 2"),
        ('{"schema_version": 1}', "engine"),
    ],
)
def test_a_damaged_report_is_refused_with_its_place(text: str, complaint: str) -> None:
    with pytest.raises(ReportError, match=complaint):
        parse_report(text, source="old.json")


def test_a_wrong_field_is_named_with_its_place(make_report: MakeReport) -> None:
    shape = report_as_json(make_report())
    text = json.dumps(shape).replace('"connect_s": 0.0005', '"connect_s": "fast"', 1)
    with pytest.raises(ReportError, match=r"runs\[0\].connect_s: expected a number, got str"):
        parse_report(text, source="old.json")


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("ttft_s", math.nan, r"runs\[0\].ttft_s: expected a number, got nan"),
        ("ttft_s", 10**400, r"runs\[0\].ttft_s: expected a number, got 1000"),
        ("completion_tokens", 10**400, "expected an integer, got 1000"),
        ("completion_tokens", True, "expected an integer, got True"),
        ("event_offsets_s", None, "expected a list of numbers"),
        ("event_offsets_s", [0.1, "late"], "expected a list of numbers"),
    ],
)
def test_figures_that_no_arithmetic_can_take_are_refused(
    make_report: MakeReport, field: str, value: object, complaint: str
) -> None:
    shape = report_as_json(make_report())
    as_object(as_list(shape["runs"])[0])[field] = value
    with pytest.raises(ReportError, match=complaint):
        parse_report(json.dumps(shape), source="old.json")


def test_a_report_of_impossible_parameters_is_refused_with_its_place(
    make_report: MakeReport,
) -> None:
    text = json.dumps(report_as_json(make_report())).replace('"iterations": ', '"iterations": -')
    with pytest.raises(ReportError, match=r"old.json: parameters: .* at least 1"):
        parse_report(text, source="old.json")


def test_a_report_nested_without_end_is_refused() -> None:
    with pytest.raises(ReportError, match="no JSON"):
        parse_report("[" * 100_000, source="old.json")


def test_a_place_that_takes_no_file_is_known_before(tmp_path: Path) -> None:
    require_writable(tmp_path / "new" / "report.json")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "file" / "report.json"):
        with pytest.raises(ReportError, match=str(wrong)):
            require_writable(wrong)


def test_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="can't be read"):
        load_report(tmp_path / "none.json")


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


class _Page(HTMLParser):
    """Collects what a page would fetch, and whether its elements are closed."""

    _VOID = frozenset({"meta", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.figures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self._VOID:
            self.open.append(tag)
        self.figures += tag == "figure"
        self.fetched += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A self-closed element stays closed."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize(("points", "figures"), [(SWEEP[:1], 3), (SWEEP, 12)])
def test_the_page_needs_nothing_else_and_holds_the_data(
    make_report: MakeReport, points: tuple[Point, ...], figures: int
) -> None:
    text = render_html(make_report(points))
    page = _Page()
    page.feed(text)
    page.close()
    assert page.open == []
    assert page.fetched == []
    assert page.figures == figures
    assert "smol &lt;&amp;&gt; model" in text
    data = text.partition('id="report">')[2].partition("</script>")[0]
    assert parse_report(data, source="page").model == "smol <&> model"


def test_two_reports_are_compared_by_ratios(make_report: MakeReport) -> None:
    comparison = compare_reports(make_report(), make_report(rate=50.0))
    rate = next(ratio for ratio in comparison.ratios if ratio.metric == "generation_tps")
    assert rate.ratio.value == pytest.approx(51 / 101)
    assert rate.change is Change.WORSE
    ttft = next(ratio for ratio in comparison.ratios if ratio.metric == "ttft_s")
    assert ttft.change is Change.UNCLEAR
    assert "worse" in render_comparison(comparison)
    assert comparison_as_json(comparison)["schema_version"] == 1


def test_points_that_only_one_report_has_are_named(make_report: MakeReport) -> None:
    comparison = compare_reports(make_report(SWEEP[:1]), make_report(SWEEP[1:2]))
    assert comparison.ratios == ()
    assert set(comparison.unmatched) == set(SWEEP[:2])
    spoken = render_comparison(comparison)
    assert "No point" in spoken
    for point in SWEEP[:2]:
        assert f"concurrency {point.concurrency}, {point.prompt_tokens} prompt tokens" in spoken


def test_different_conditions_are_named(make_report: MakeReport) -> None:
    other = replace(make_report(), engine=Engine("ollama", "9"))
    (difference,) = compare_reports(make_report(), other).differences
    assert "ollama" in difference


def test_six_close_samples_are_precise_and_three_are_not(
    make_report: MakeReport, make_run: MakeRun
) -> None:
    report = make_report()
    assert not is_precise_enough(report.summaries[0], 0.5)
    runs = tuple(make_run(rate=100 + n / 100, iteration=n) for n in range(6))
    assert is_precise_enough(replace(report, runs=runs).summaries[0], 0.02)
