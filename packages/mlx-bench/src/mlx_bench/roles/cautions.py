"""What a reader should know before trusting a role's figures; pure."""

import statistics
from collections.abc import Iterator, Sequence

from mlx_bench.cautions import (
    COLD_FACTOR,
    Caution,
    CautionCode,
    by_iteration,
    clock_problems,
    failed_runs,
    material_outliers,
    slowing,
)
from mlx_bench.roles.report import RoleReport, RoleRun
from mlx_bench.workload import Exactness


def find_role_cautions(report: RoleReport) -> tuple[Caution, ...]:
    """Every caution that the measured requests call for, load by load."""
    found: list[Caution] = []
    for load in dict.fromkeys(run.load for run in report.runs):
        runs = [run for run in report.runs if run.load == load]
        found += (
            Caution(code, f"{report.load_words(load)}: {message}")
            for code, message in _of_load(runs, report.size_exactness)
        )
    found += (Caution(code, message) for _, code, message in clock_problems(report.waves))
    return tuple(found)


def _of_load(
    runs: Sequence[RoleRun], exactness: Exactness | None
) -> Iterator[tuple[CautionCode, str]]:
    good = [run for run in runs if run.error is None]
    if failed := failed_runs([run.error for run in runs]):
        yield CautionCode.FAILED_RUNS, failed
    yield from _sizes(good, exactness)
    seconds = by_iteration([(run.iteration, run.end_to_end_s) for run in good])
    if len(seconds) >= 3 and seconds[0] > COLD_FACTOR * max(seconds[1:]):
        times = seconds[0] / statistics.median(seconds[1:])
        yield (
            CautionCode.COLD_FIRST_RUN,
            f"the first iteration took {times:.1f} times as long as the others: warm up longer.",
        )
    if far := material_outliers(seconds):
        message = (
            f"{len(far)} of {len(seconds)} iterations are outliers (modified z-score above 3.5): "
            "was something else using the machine?"
        )
        yield CautionCode.OUTLIERS, message
    rates = by_iteration(
        [(run.iteration, run.amount / run.end_to_end_s) for run in good if run.end_to_end_s]
    )
    if (fell := slowing("rate", rates)) is not None:
        yield CautionCode.THERMAL_DRIFT, f"the {fell}"


def _sizes(
    runs: Sequence[RoleRun], exactness: Exactness | None
) -> Iterator[tuple[CautionCode, str]]:
    """Texts of another length than asked for: a model cuts what is longer than its context."""
    if exactness is None or not runs:
        return
    size = runs[0].load.size
    read = [run.tokens / run.load.items for run in runs if run.tokens is not None]
    wrong = [each for each in read if round(each) != size]
    if wrong:
        yield (
            CautionCode.PROMPT_LENGTH,
            f"by the server's count a text had {min(wrong):.0f} to {max(wrong):.0f} tokens.",
        )
    elif not read:
        yield (
            CautionCode.PROMPT_LENGTH,
            "the server doesn't say how long texts are: one token per word is assumed.",
        )
