"""Whether measured figures are what was expected; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_bench.stats import Estimate

TOLERANCE = 0.05
"""Below the expected range by up to this share still passes."""

FAIL_SHARE = 0.6
"""Below this share of the expected range's lower end is a failure."""


class Verdict(StrEnum):
    """What a comparison with the expectation comes to."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Expectation:
    """What somebody says a figure should be; larger is better.

    Attributes:
        metric: The summary's name of it, as `generation_tps`.
        value: The expected figure.
        low: Lower end of the expected range.
        high: Its upper end.
        basis: Where it comes from, as `reference` or `estimate`.
    """

    metric: str
    value: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """A measured figure beside the expected one.

    Attributes:
        expectation: What was expected.
        measured: What was measured.
        ratio: Measured over expected.
        verdict: What that comes to.
    """

    expectation: Expectation
    measured: float
    ratio: float
    verdict: Verdict


def judge(measured: Estimate, expectation: Expectation) -> Judgement | None:
    """The verdict on one figure, or None where nothing was measured.

    PASS down to 5 % below the expected range, and above it; WARN down to 60 % of its lower end;
    FAIL below that.
    """
    if measured.value is None or expectation.value <= 0 or expectation.low <= 0:
        return None
    share = measured.value / expectation.low
    if share >= 1 - TOLERANCE:
        verdict = Verdict.PASS
    else:
        verdict = Verdict.WARN if share >= FAIL_SHARE else Verdict.FAIL
    ratio = measured.value / expectation.value
    return Judgement(expectation, measured.value, ratio, verdict)


def worst_verdict(judgements: Sequence[Judgement]) -> Verdict | None:
    """The worst of several verdicts, or None of none."""
    order = (Verdict.FAIL, Verdict.WARN, Verdict.PASS)
    found = {judgement.verdict for judgement in judgements}
    return next((verdict for verdict in order if verdict in found), None)
