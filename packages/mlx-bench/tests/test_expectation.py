"""Verdicts against what was expected."""

import pytest

from mlx_bench.expectation import Expectation, Verdict, judge, worst_verdict
from mlx_bench.stats import UNKNOWN, Estimate

EXPECTED = Expectation("generation_tps", 100.0, 90.0, 110.0, "estimate")


def measured(value: float) -> Estimate:
    return Estimate(value, value, value, value)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        (150, Verdict.PASS),
        (100, Verdict.PASS),
        (86, Verdict.PASS),
        (85, Verdict.WARN),
        (55, Verdict.WARN),
        (53, Verdict.FAIL),
    ],
)
def test_the_verdict_follows_the_share_of_the_lower_end(value: float, verdict: Verdict) -> None:
    judgement = judge(measured(value), EXPECTED)
    assert judgement is not None
    assert judgement.verdict is verdict
    assert judgement.ratio == value / 100


def test_nothing_measured_has_no_verdict() -> None:
    assert judge(UNKNOWN, EXPECTED) is None
    assert worst_verdict([]) is None


def test_the_worst_verdict_stands() -> None:
    judgements = [judge(measured(value), EXPECTED) for value in (100, 70, 20)]
    assert worst_verdict([each for each in judgements if each]) is Verdict.FAIL
