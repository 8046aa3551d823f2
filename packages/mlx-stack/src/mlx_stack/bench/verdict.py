"""Whether a model runs as fast as the catalog and the estimate say."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mlx_bench import Expectation, Judgement, Point, Report, Verdict, judge, worst_verdict
from mlx_bench.report import metric
from mlx_catalog import UnreadableModelError
from mlx_catalog.geometry import load_config
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Basis,
    ModelShape,
    Speed,
    Workload,
    estimate,
    reference_measurements,
    shape_of_config,
    shape_of_entry,
)
from mlx_stack.bench.target import BenchTarget

_LEAST_PROMPT_TOKENS = 512
"""Below that the fixed cost of a request, not the prefill, decides the time to the first token."""


def judge_report(
    report: Report, target: BenchTarget, hardware: HardwareProfile
) -> tuple[Judgement, ...]:
    """Each figure of a single stream beside what was published, and what is computed, for it.

    Empty where the model or the machine is not known well enough to expect anything.
    """
    point = next((point for point in report.points if point.concurrency == 1), None)
    if point is None or not target.is_here:
        return ()
    summary = report.summaries[report.points.index(point)]
    generated = report.parameters.generation_tokens
    judgements = [
        judge(metric(summary, expectation.metric), expectation)
        for expectation in _expectations(target, hardware, point, generated)
    ]
    return tuple(judgement for judgement in judgements if judgement is not None)


def overall(judgements: Sequence[Judgement]) -> Verdict | None:
    """The worst verdict against published figures, else against the estimate, else None."""
    published = [each for each in judgements if each.expectation.basis == Basis.REFERENCE.value]
    return worst_verdict(published or judgements)


def verdict_fields(judgements: Sequence[Judgement]) -> dict[str, object] | None:
    """The verdict of the JSON answer, or None where nothing was expected."""
    verdict = overall(judgements)
    if verdict is None:
        return None
    return {
        "overall": verdict.value,
        "against": [
            {
                **asdict(judgement.expectation),
                "measured": judgement.measured,
                "ratio": judgement.ratio,
                "verdict": judgement.verdict.value,
            }
            for judgement in judgements
        ],
    }


def _expectations(
    target: BenchTarget, hardware: HardwareProfile, point: Point, generated: int
) -> Iterator[Expectation]:
    shape = _shape(target)
    if shape is None:
        return
    workload = Workload(
        context_tokens=point.prompt_tokens + generated, speed_context_tokens=point.prompt_tokens
    )
    published = reference_measurements(target.entry, hardware) if target.entry else ()
    seen: set[tuple[str, str]] = set()
    for figures in (published, ()):
        expected = estimate(shape, hardware, workload, figures)
        speeds = [("generation_tps", expected.generation_tps)]
        if point.prompt_tokens >= _LEAST_PROMPT_TOKENS:
            speeds.append(("prompt_tps", expected.prompt_tps))
        for name, speed in speeds:
            if speed is not None and (name, speed.basis.value) not in seen:
                seen.add((name, speed.basis.value))
                yield _expectation(name, speed)


def _expectation(name: str, speed: Speed) -> Expectation:
    return Expectation(name, speed.value, speed.low, speed.high, speed.basis.value)


def _shape(target: BenchTarget) -> ModelShape | None:
    if target.entry is not None and target.quant is not None:
        return shape_of_entry(target.entry, target.quant)
    if target.folder is None:
        return None
    try:
        config = load_config(target.folder / "config.json")
    except UnreadableModelError:  # the engine serves what we can't read: nothing is expected
        return None
    return shape_of_config(target.folder.name, config)
