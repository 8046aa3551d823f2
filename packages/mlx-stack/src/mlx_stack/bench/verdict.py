"""Whether a model runs as fast as the catalog and the estimate say."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from mlx_bench import (
    ExpectedSpeed,
    PointSummary,
    Report,
    SpeedCheck,
    SpeedVerdict,
    check_speed,
    worst_verdict,
)
from mlx_bench.export import column_of, figure
from mlx_bench.report import metric
from mlx_catalog import UnreadableModelError, read_model
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Basis,
    ModelShape,
    Workload,
    estimate,
    reference_measurements,
    shape_of_entry,
    shape_of_model,
)
from mlx_stack.bench.target import BenchTarget

_BASES = {"reference": "published for such a machine", "estimate": "estimated"}
_LEAST_PROMPT_TOKENS = 512
"""Below that the fixed cost of a request, not the prefill, decides the time to the first token."""


def check_speeds(
    report: Report, target: BenchTarget, hardware: HardwareProfile
) -> tuple[SpeedCheck, ...]:
    """Each speed of a single stream against what was published, and what is estimated, for it.

    Empty where the model or the machine is not known well enough to expect anything.
    """
    single = next((each for each in report.summaries if each.concurrency == 1), None)
    if single is None or not target.is_here:
        return ()
    checks = [
        check_speed(metric(single, expected.metric), expected)
        for expected in _expected(target, hardware, single, report.parameters.generation_tokens)
    ]
    return tuple(check for check in checks if check is not None)


def overall(checks: Sequence[SpeedCheck]) -> SpeedVerdict | None:
    """The worst verdict against published figures, else against the estimate, else None."""
    published = [check for check in checks if check.expected.basis == Basis.REFERENCE.value]
    return worst_verdict(published or checks)


def verdict_document(checks: Sequence[SpeedCheck]) -> dict[str, object] | None:
    """The verdict of the JSON answer, or None where nothing was expected."""
    verdict = overall(checks)
    if verdict is None:
        return None
    against = [
        {
            **asdict(check.expected),
            "measured": check.measured,
            "ratio": check.ratio,
            "verdict": check.verdict.value,
        }
        for check in checks
    ]
    return {"overall": verdict.value, "against": against}


def in_words(check: SpeedCheck) -> str:
    """A speed and what was expected, as a line."""
    expected = check.expected
    title, basis = column_of(expected.metric).title, _BASES.get(expected.basis, expected.basis)
    measured, low, high = (figure(each) for each in (check.measured, expected.low, expected.high))
    return f"{title} {measured} tok/s; expected {low} to {high} ({basis})"


def _expected(
    target: BenchTarget, hardware: HardwareProfile, single: PointSummary, generated: int
) -> Iterator[ExpectedSpeed]:
    shape = _shape(target)
    if shape is None:
        return
    prompt = single.prompt_tokens
    workload = Workload(context_tokens=prompt + generated, speed_context_tokens=prompt)
    published = reference_measurements(target.entry, hardware) if target.entry else ()
    seen: set[tuple[str, str]] = set()
    for figures in (published, ()):
        estimated = estimate(shape, hardware, workload, figures)
        speeds = [("generation_tps", estimated.generation_tps)]
        if prompt >= _LEAST_PROMPT_TOKENS:
            speeds.append(("prompt_tps", estimated.prompt_tps))
        for name, speed in speeds:
            if speed is not None and (name, speed.basis.value) not in seen:
                seen.add((name, speed.basis.value))
                yield ExpectedSpeed(name, speed.value, speed.low, speed.high, speed.basis.value)


def _shape(target: BenchTarget) -> ModelShape | None:
    if target.entry is not None and target.quant is not None:
        return shape_of_entry(target.entry, target.quant)
    if target.folder is None:
        return None
    try:
        return shape_of_model(read_model(target.folder))
    except UnreadableModelError:  # the engine serves what we can't read: nothing is expected
        return None
