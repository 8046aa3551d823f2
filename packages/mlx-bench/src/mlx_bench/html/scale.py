"""Axes: round tick values and positions; pure."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear map from values to pixels.

    Attributes:
        low: The value at `start`.
        high: The value at `end`.
        start: A pixel position.
        end: A pixel position.
    """

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The pixel position of a value."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.end - self.start)


def round_ticks(low: float, high: float, *, wanted: int = 5) -> list[float]:
    """About so many round values from at most `low` to at least `high`."""
    if not math.isfinite(low) or not math.isfinite(high) or high <= low:
        high = low + 1
    rough = (high - low) / max(wanted - 1, 1)
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(s * magnitude for s in (1, 2, 2.5, 5, 10) if s * magnitude >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


def tick_text(value: float) -> str:
    """A tick's label without trailing zeros."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}"
