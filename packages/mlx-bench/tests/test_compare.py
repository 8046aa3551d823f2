"""Two reports side by side."""

from collections.abc import Callable

import msgspec
import pytest

from mlx_bench.compare import Change, compare_reports, render_comparison
from mlx_bench.metrics import Point
from mlx_bench.report import EngineVersion, Report

type MakeReport = Callable[..., Report]

SWEEP = (Point(1, 256), Point(4, 256))


def test_two_reports_are_compared_by_ratios(make_report: MakeReport) -> None:
    comparison = compare_reports(make_report(), make_report(rate=50.0))
    rate = next(ratio for ratio in comparison.ratios if ratio.metric == "generation_tps")
    assert rate.ratio.value == pytest.approx(51 / 101)
    assert rate.change is Change.WORSE
    ttft = next(ratio for ratio in comparison.ratios if ratio.metric == "ttft_s")
    assert ttft.change is Change.UNCLEAR
    assert "worse" in render_comparison(comparison)
    assert comparison.to_document()["schema_version"] == 1


def test_points_that_only_one_report_has_are_named(make_report: MakeReport) -> None:
    comparison = compare_reports(make_report(SWEEP[:1]), make_report(SWEEP[1:2]))
    assert comparison.ratios == ()
    assert set(comparison.unmatched) == set(SWEEP[:2])
    spoken = render_comparison(comparison)
    assert "No point" in spoken
    for point in SWEEP[:2]:
        assert str(point) in spoken


def test_different_conditions_are_named(make_report: MakeReport) -> None:
    other = msgspec.structs.replace(make_report(), engine=EngineVersion("ollama", "9"))
    (difference,) = compare_reports(make_report(), other).differences
    assert "ollama" in difference
