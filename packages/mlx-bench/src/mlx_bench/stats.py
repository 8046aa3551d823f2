"""Statistics of small samples; pure, and exact about what each number is (decision 0064).

References: Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (ASQC, 1993) for the modified
z-score; Efron and Tibshirani, "An Introduction to the Bootstrap" (1993) for the percentile
interval; Mann (1945) and Kendall (1975) for the trend test; Theil (1950) and Sen (1968) for the
slope.
"""

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

OUTLIER_THRESHOLD = 3.5
"""Iglewicz and Hoaglin's recommended limit for the modified z-score."""

_MAD_TO_SIGMA = 0.6745
_MEAN_DEVIATION_TO_SIGMA = 1.253314


class MedianEstimate(msgspec.Struct, frozen=True):
    """A median with its uncertainty; None where the samples can't tell.

    Attributes:
        low: Lower end of the 95 % bootstrap interval of the median; needs two samples.
        mad: The median absolute deviation.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    p95: float | None = None
    mad: float | None = None
    samples: int = 0

    @property
    def relative_half_width(self) -> float | None:
        """Half the interval's width over the median, or None where there is no interval."""
        if self.value is None or self.low is None or self.high is None or self.value <= 0:
            return None
        return (self.high - self.low) / 2 / self.value

    def is_known_within(self, share: float) -> bool:
        """Whether its interval is within a share of it on either side; one of nothing is.

        Six samples at least are wanted: below that no interval reaches 95 %.
        """
        width = self.relative_half_width
        is_known = self.samples >= 6 and width is not None and width <= share
        return self.value is None or is_known


UNKNOWN = MedianEstimate()
"""The estimate of a quantity of which nothing was measured."""


class PooledEstimate(MedianEstimate, frozen=True):
    """The median over the samples of several runs, with more of their percentiles.

    Attributes:
        p50: The median again, under a percentile's name.
    """

    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    max: float | None = None


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which a share (0-1) of the samples lies, interpolated linearly (type 7).

    Raises:
        ValueError: There is no sample, or the share is outside 0-1.
    """
    if not samples or not 0 <= share <= 1:
        raise ValueError("a percentile needs samples and a share within 0-1")
    ordered = sorted(samples)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def median_absolute_deviation(samples: Sequence[float]) -> float:
    """The median distance from the median."""
    middle = statistics.median(samples)
    return statistics.median(abs(sample - middle) for sample in samples)


def bootstrap_interval(samples: Sequence[float], *, seed: int) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of the median, or None for fewer than two samples.

    The same seed gives the same interval. With n samples the interval of a median can't cover more
    than 1 - 2 / 2**n: 75 % for three, 97 % for six.
    """
    if len(samples) < 2:
        return None
    draw = random.Random(seed)  # noqa: S311 - statistics, no secret
    size = len(samples)
    found = [_median(draw.choices(samples, k=size)) for _ in range(_resamples(size))]
    return percentile(found, 0.025), percentile(found, 0.975)


def _resamples(size: int) -> int:
    """Fewer for large samples, whose medians hardly vary, so that a report stays quick to write."""
    return max(200, min(1000, 200_000 // size))


def _median(samples: list[float]) -> float:
    """As `statistics.median`, several times as fast on the small lists of a bootstrap."""
    samples.sort()
    middle = len(samples) // 2
    if len(samples) % 2:
        return samples[middle]
    return (samples[middle - 1] + samples[middle]) / 2


def estimate(samples: Sequence[float], *, seed: int) -> MedianEstimate:
    """The median of the samples with its interval, spread and 95th percentile."""
    if not samples:
        return UNKNOWN
    low, high = bootstrap_interval(samples, seed=seed) or (None, None)
    p95, mad = percentile(samples, 0.95), median_absolute_deviation(samples)
    return MedianEstimate(statistics.median(samples), low, high, p95, mad, len(samples))


def pooled_estimate(groups: Sequence[Sequence[float]], *, seed: int) -> PooledEstimate:
    """The median over all samples of several runs, with an interval that respects the runs.

    Samples of one run resemble each other, so the interval is the bootstrap of the runs' medians,
    widened where needed to hold the pooled median.
    """
    filled = [group for group in groups if group]
    pooled = [sample for group in filled for sample in group]
    if not pooled:
        return PooledEstimate()
    value = statistics.median(pooled)
    interval = bootstrap_interval([statistics.median(group) for group in filled], seed=seed)
    return PooledEstimate(
        value=value,
        low=min(interval[0], value) if interval else None,
        high=max(interval[1], value) if interval else None,
        p95=percentile(pooled, 0.95),
        mad=median_absolute_deviation(pooled),
        samples=len(pooled),
        p50=value,
        p90=percentile(pooled, 0.9),
        p99=percentile(pooled, 0.99),
        max=max(pooled),
    )


def outliers(samples: Sequence[float]) -> tuple[int, ...]:
    """The positions of outliers by the modified z-score, empty for fewer than five samples.

    Where half the samples agree exactly, so that the MAD is zero, the mean absolute deviation
    takes its place, as Iglewicz and Hoaglin advise.
    """
    if len(samples) < 5:
        return ()
    middle = statistics.median(samples)
    spread = median_absolute_deviation(samples) / _MAD_TO_SIGMA
    if spread == 0:
        mean_deviation = statistics.fmean(abs(sample - middle) for sample in samples)
        spread = mean_deviation * _MEAN_DEVIATION_TO_SIGMA
    if spread == 0:
        return ()
    return tuple(
        position
        for position, sample in enumerate(samples)
        if abs(sample - middle) / spread > OUTLIER_THRESHOLD
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """A monotonic trend over time.

    Attributes:
        relative_change: From first to last sample along the Theil-Sen slope, over the median.
        p_value: Two-sided, of the Mann-Kendall test.
    """

    relative_change: float
    p_value: float


def trend(samples: Sequence[float]) -> Trend | None:
    """The trend of samples in the order of time, or None for fewer than five."""
    size = len(samples)
    if size < 5:
        return None
    pairs = [(i, j) for i in range(size) for j in range(i + 1, size)]
    score = sum((samples[j] > samples[i]) - (samples[j] < samples[i]) for i, j in pairs)
    deviation = math.sqrt(size * (size - 1) * (2 * size + 5) / 18)
    z = max(abs(score) - 1, 0) / deviation
    slope = statistics.median((samples[j] - samples[i]) / (j - i) for i, j in pairs)
    middle = statistics.median(samples)
    change = slope * (size - 1) / middle if middle else 0.0
    return Trend(relative_change=change, p_value=math.erfc(z / math.sqrt(2)))


def ratio_estimate(
    numerator: Sequence[float], denominator: Sequence[float], *, seed: int
) -> MedianEstimate:
    """The ratio of two medians with its 95 % bootstrap interval, both sides resampled."""
    if not numerator or not denominator or statistics.median(denominator) == 0:
        return UNKNOWN
    value = statistics.median(numerator) / statistics.median(denominator)
    if min(len(numerator), len(denominator)) < 2:
        return MedianEstimate(value)
    draw = random.Random(seed)  # noqa: S311 - statistics, no secret
    found: list[float] = []
    for _ in range(2 * _resamples(max(len(numerator), len(denominator)))):
        below = _median(draw.choices(denominator, k=len(denominator)))
        above = _median(draw.choices(numerator, k=len(numerator)))
        if below:
            found.append(above / below)
    low, high = percentile(found, 0.025), percentile(found, 0.975)
    return MedianEstimate(value, low, high, percentile(found, 0.95), None, len(found))
