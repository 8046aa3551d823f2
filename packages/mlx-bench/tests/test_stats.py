"""Statistics of small samples."""

import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.stats import (
    bootstrap_interval,
    estimate,
    median_absolute_deviation,
    outliers,
    percentile,
    pooled_estimate,
    ratio_estimate,
    trend,
)

figures = st.floats(0.001, 1e6, allow_nan=False)
samples = st.lists(figures, min_size=2, max_size=12)


def test_percentiles_interpolate_between_samples() -> None:
    assert percentile([1, 2, 3, 4], 0.5) == 2.5
    assert percentile([1, 2, 3, 4], 0) == 1
    assert percentile([1, 2, 3, 4], 1) == 4
    assert percentile([10], 0.95) == 10


def test_a_percentile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="samples"):
        percentile([], 0.5)


@given(samples)
def test_an_interval_holds_its_median_and_lies_within_the_samples(values: list[float]) -> None:
    found = estimate(values, seed=1)
    assert found.value == statistics.median(values)
    assert found.low is not None
    assert found.high is not None
    assert min(values) <= found.low <= found.high <= max(values)


@given(samples)
def test_the_same_seed_gives_the_same_interval(values: list[float]) -> None:
    once = bootstrap_interval(values, seed=7)
    assert once == bootstrap_interval(values, seed=7)


def test_one_sample_has_no_interval_and_none_has_nothing() -> None:
    assert estimate([5.0], seed=0).value == 5.0
    assert estimate([5.0], seed=0).low is None
    assert estimate([], seed=0).value is None


def test_the_interval_of_many_samples_covers_the_truth_about_95_times_in_100() -> None:
    draw = random.Random(11)
    hits = 0
    for trial in range(120):
        values = [draw.gauss(100, 10) for _ in range(25)]
        interval = bootstrap_interval(values, seed=trial)
        assert interval is not None
        hits += interval[0] <= 100 <= interval[1]
    assert 0.88 <= hits / 120 <= 1.0


@given(st.lists(st.lists(figures, max_size=6), min_size=1, max_size=5))
def test_a_pooled_interval_holds_the_pooled_median(groups: list[list[float]]) -> None:
    found = pooled_estimate(groups, seed=3)
    if found.value is not None and found.low is not None and found.high is not None:
        assert found.low <= found.value <= found.high


def test_the_deviation_ignores_one_wild_sample() -> None:
    assert median_absolute_deviation([1, 1, 2, 2, 100]) == 1


def test_one_far_sample_is_an_outlier() -> None:
    assert outliers([100, 101, 99, 100, 102, 160]) == (5,)


def test_an_outlier_is_found_when_the_others_agree_exactly() -> None:
    assert outliers([10.0] * 9 + [11.0]) == (9,)


def test_equal_samples_and_few_samples_have_no_outliers() -> None:
    assert outliers([3.0] * 8) == ()
    assert outliers([1.0, 1.0, 100.0]) == ()


def test_a_steady_fall_is_a_trend() -> None:
    found = trend([100, 98, 97, 95, 93, 92])
    assert found is not None
    assert found.relative_change == pytest.approx(-0.084, abs=0.01)
    assert found.p_value < 0.05


def test_noise_is_no_trend() -> None:
    found = trend([100, 101, 99, 102, 98, 100])
    assert found is not None
    assert found.p_value > 0.3
    assert trend([3, 2, 1]) is None


def test_a_ratio_tells_a_difference_from_noise() -> None:
    same = ratio_estimate([100, 101, 99, 100, 102], [101, 99, 100, 100, 98], seed=0)
    half = ratio_estimate([50, 51, 49, 50, 50], [100, 101, 99, 100, 102], seed=0)
    assert same.low is not None
    assert same.high is not None
    assert same.low <= 1 <= same.high
    assert half.value == pytest.approx(0.5)
    assert half.high is not None
    assert half.high < 0.6


def test_a_ratio_of_nothing_is_unknown() -> None:
    assert ratio_estimate([], [1.0], seed=0).value is None
    assert ratio_estimate([2.0], [1.0], seed=0).low is None
