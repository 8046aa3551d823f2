"""Verdicts against what was expected."""

import pytest

from mlx_bench.speed_check import ExpectedSpeed, SpeedVerdict, check_speed, worst_verdict
from mlx_bench.stats import UNKNOWN, MedianEstimate

EXPECTED = ExpectedSpeed("generation_tps", 100.0, 90.0, 110.0, "estimate")


def measured(value: float) -> MedianEstimate:
    return MedianEstimate(value, value, value, value)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (150, SpeedVerdict.PASS),
        (100, SpeedVerdict.PASS),
        (86, SpeedVerdict.PASS),
        (85, SpeedVerdict.WARN),
        (55, SpeedVerdict.WARN),
        (53, SpeedVerdict.FAIL),
    ],
)
def test_the_verdict_follows_the_share_of_the_lower_end(
    value: float, verdict: SpeedVerdict
) -> None:
    check = check_speed(measured(value), EXPECTED)
    assert check is not None
    assert check.verdict is verdict
    assert check.ratio == value / 100


def test_nothing_measured_has_no_verdict() -> None:
    assert check_speed(UNKNOWN, EXPECTED) is None
    assert worst_verdict([]) is None


def test_the_worst_verdict_stands() -> None:
    checks = [check_speed(measured(value), EXPECTED) for value in (100, 70, 20)]
    assert worst_verdict([each for each in checks if each]) is SpeedVerdict.FAIL
