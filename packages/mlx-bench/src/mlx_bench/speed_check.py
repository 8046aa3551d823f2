"""Whether a measured speed is what was expected; pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_bench.stats import MedianEstimate

TOLERANCE = 0.05
"""Below the expected range by up to this share still passes."""

FAIL_SHARE = 0.6
"""Below this share of the expected range's lower end is a failure."""


class SpeedVerdict(StrEnum):
    """What a comparison with the expected speed comes to."""

    PASS = "PASS"  # noqa: S105 - a verdict, no password
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class ExpectedSpeed:
    """What a speed should be, by whatever `basis` names.

    Attributes:
        metric: The summary's name of it, as `generation_tps`.
        basis: Where it comes from, as `reference` or `estimate`.
    """

    metric: str
    value: float
    low: float
    high: float
    basis: str


@dataclass(frozen=True, slots=True)
class SpeedCheck:
    """A measured speed and the expected one."""

    expected: ExpectedSpeed
    measured: float
    ratio: float
    verdict: SpeedVerdict


def check_speed(measured: MedianEstimate, expected: ExpectedSpeed) -> SpeedCheck | None:
    """The verdict on one speed, or None where nothing was measured.

    PASS down to 5 % below the expected range, and above it; WARN down to 60 % of its lower end;
    FAIL below that.
    """
    if measured.value is None or expected.value <= 0 or expected.low <= 0:
        return None
    share = measured.value / expected.low
    if share >= 1 - TOLERANCE:
        verdict = SpeedVerdict.PASS
    else:
        verdict = SpeedVerdict.WARN if share >= FAIL_SHARE else SpeedVerdict.FAIL
    return SpeedCheck(expected, measured.value, measured.value / expected.value, verdict)


def worst_verdict(checks: Sequence[SpeedCheck]) -> SpeedVerdict | None:
    """The worst of several verdicts, or None of none."""
    order = (SpeedVerdict.FAIL, SpeedVerdict.WARN, SpeedVerdict.PASS)
    found = {check.verdict for check in checks}
    return next((verdict for verdict in order if verdict in found), None)
