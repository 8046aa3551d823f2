"""What the last saved benchmark of a tier that doesn't chat found."""

from dataclasses import dataclass
from pathlib import Path

from mlx_bench import ReportError, RoleReport, load_saved
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier


@dataclass(frozen=True, slots=True)
class MeasuredRate:
    """How fast a tier does the work of its role, at the load at which it did it fastest.

    Attributes:
        low: Lower end of the 95 % interval; None where there were too few samples.
        unit: As `texts/s`, or `x real time` of sounds.
        load: Under which load, in words.
        at: The day of the measurement.
    """

    value: float
    low: float | None
    high: float | None
    unit: str
    load: str
    at: str


def role_results(home: Home) -> Path:
    """Where the results of benchmarks of roles are saved."""
    return home.benchmarks / "roles"


def role_speeds(opened: OpenStack) -> dict[str, MeasuredRate]:
    """The latest figure of each tier of which one was saved, by the tier's name.

    A damaged file is left out: `bench --save` writes the next beside it.
    """
    reports: list[RoleReport] = []
    for path in role_results(opened.home).glob("*.json"):
        try:
            report = load_saved(path)
        except ReportError:
            continue
        if isinstance(report, RoleReport):
            reports.append(report)
    reports.sort(key=lambda report: report.started_at, reverse=True)
    found = {tier.name: _rate_of(tier, reports) for tier in opened.stack.tiers}
    return {name: rate for name, rate in found.items() if rate is not None}


def _rate_of(tier: Tier, reports: list[RoleReport]) -> MeasuredRate | None:
    for report in reports:
        is_of_it = report.model == tier.model and report.extra.get("source") == tier.source
        best = report.best
        if not is_of_it or best is None or best.rate.value is None:
            continue
        rate, words = best.rate, report.load_words(best)
        return MeasuredRate(
            best.rate.value, rate.low, rate.high, report.unit, words, report.started_at[:10]
        )
    return None
