"""What runs come to."""

import json
from collections.abc import Callable

import pytest

from mlx_bench.metrics import MeasuredRun, Point
from mlx_bench.report import Report, is_precise_enough, summarize

type MakeRun = Callable[..., MeasuredRun]
type MakeReport = Callable[..., Report]

SWEEP = (Point(1, 256), Point(4, 256), Point(1, 2048), Point(4, 2048))


def test_a_summary_has_the_median_interval_and_p95(make_report: MakeReport) -> None:
    (summary,) = make_report().summaries
    rate = summary.generation_tps
    assert (rate.value, rate.low, rate.high) == (101, 100, 102)
    assert rate.p95 == pytest.approx(101.9)
    assert summary.requests_per_s.value == 0.5
    assert summary.total_generation_tps.value == 50
    assert summary.memory_bytes.value == 400_000_001


def test_failed_runs_are_not_in_the_summary(make_report: MakeReport, make_run: MakeRun) -> None:
    report = make_report()
    bad = make_run(rate=1.0, iteration=0, error="HTTP 500")
    assert summarize((*report.runs, bad), report.waves, seed=report.parameters.seed) == (
        report.summaries
    )


def test_the_json_of_one_point_has_the_published_shape(make_report: MakeReport) -> None:
    shape = json.loads(json.dumps(make_report().to_document()))
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
    shape = json.loads(json.dumps(make_report(SWEEP).to_document()))
    found = [(entry["concurrency"], entry["prompt_tokens"]) for entry in shape["summary"]]
    assert found == [(1, 256), (4, 256), (1, 2048), (4, 2048)]


def test_six_close_samples_are_precise_and_three_are_not(
    make_report: MakeReport, make_run: MakeRun
) -> None:
    report = make_report()
    assert not is_precise_enough(report.summaries[0], 0.5)
    runs = [make_run(rate=100 + n / 100, iteration=n) for n in range(6)]
    assert is_precise_enough(summarize(runs, (), seed=1)[0], 0.02)
