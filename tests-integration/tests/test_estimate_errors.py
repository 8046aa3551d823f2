"""What the estimates say of their own errors, against measurements that no fit has seen."""

import importlib
import statistics
import sys
from pathlib import Path

import pytest

from mlx_recommend import calibration
from mlx_recommend.calibration import RANGE_ERRORS, ErrorClass

pytestmark = pytest.mark.story

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmarks():
    """The modules `recommend_accuracy`, `recommend_calibrate` and `recommend_measurements`."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        names = ("recommend_accuracy", "recommend_calibrate", "recommend_measurements")
        return tuple(map(importlib.import_module, names))
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def predictions(benchmarks):
    """Every published figure, predicted by constants fitted to other publishers' only."""
    accuracy, calibrate, published = benchmarks
    rows = published.measurements()
    constants = calibrate.leaving_out(rows, lambda row: row.publisher)
    together = accuracy.decoded(published.streams(), lambda _: calibration.FITTED)
    return [*accuracy.decoded(rows, constants), *accuracy.prefilled(rows, constants), *together]


@pytest.mark.parametrize("error_class", ErrorClass)
def test_the_stated_errors_are_those_of_publishers_that_the_fit_has_not_seen(
    predictions, error_class: ErrorClass
):
    said = RANGE_ERRORS[error_class]
    found = [each for each in predictions if each.speed.error_class is error_class]
    assert len(found) == said.rows
    if not found:
        assert (said.median, said.covered) == (None, None)
        return
    median = statistics.median(abs(each.error) for each in found)
    covered = statistics.mean(each.in_range for each in found)
    assert median == pytest.approx(said.median, abs=0.001)
    assert covered == pytest.approx(said.covered, abs=0.01)
    assert covered >= 0.9, "the range is a promise of nine times out of ten"


def test_the_page_on_estimates_says_the_same():
    page = (ROOT / "docs" / "explanation" / "estimates.md").read_text(encoding="utf-8")
    for error_class, said in RANGE_ERRORS.items():
        row = f"| `{error_class}` | {said.rows} | "
        if said.median is None or said.covered is None:
            row += "| |"
        else:
            row += f"{said.median * 100:.1f} % | {said.covered * 100:.0f} % |"
        assert row in page, row


@pytest.mark.parametrize(
    ("counter", "median", "lowest", "rows"),
    [("memory-gpu", 0.02, -0.07, 69), ("memory-process", 0.06, -0.12, 10)],
)
def test_published_peaks_of_memory_are_near_the_estimate_and_never_far_above(
    benchmarks, counter: str, median: float, lowest: float, rows: int
):
    accuracy, _, published = benchmarks
    found = accuracy.memory_errors([*published.measurements(), *published.peaks()])[counter]
    assert len(found) == rows
    assert statistics.median(abs(each.error) for each in found) <= median
    assert min(each.error for each in found) >= lowest
