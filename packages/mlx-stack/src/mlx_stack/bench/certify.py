"""Whether what is not in use yet, engines or a model's files, serves tiers as well as what is.

Each tier in turn is served with the new next to the old, which goes on serving. What is compared,
and what counts as worse, is decided by `judge`, which is pure (decision 0103).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec
import psutil

from mlx_bench import Cache, EndpointError, Parameters, Report, ReportError, load_report
from mlx_bench.agent_check import coherence
from mlx_bench.agent_check.report import CheckReport
from mlx_bench.compare import Change, compare_reports
from mlx_bench.runner import OnProgress
from mlx_stack.bench.check import check_tier
from mlx_stack.bench.measure import bench
from mlx_stack.engines.by_role import environment_name
from mlx_stack.engines.environment import current_environment
from mlx_stack.engines.errors import EngineUnhealthyError, EngineWorseError
from mlx_stack.engines.manage import CertifiedTier, EnginePair, WorseFigure
from mlx_stack.errors import StackError
from mlx_stack.models.disk.local import LocalModel
from mlx_stack.models.events import Comparing, ModelEvent
from mlx_stack.models.find import local_model_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.agent_checks import conditions_of, last_check
from mlx_stack.services.engine_health import SCRATCH_TIER, served_beside
from mlx_stack.stack import Tier
from mlx_stack.steps import OnEvent, ignore

SPEED_TOLERANCE = 0.05
"""A speed that is lower by less is noise, even where its interval says otherwise."""
MEMORY_TOLERANCE = 0.1
"""A peak that is higher by less is noise: when a cache is emptied is chance."""
_COMPARED = {"generation_tps": "decode rate", "prompt_tps": "prefill rate"}
_USUAL = Parameters(iterations=6, prompt_tokens=(512,), generation_tokens=64)
_LEAST_ITERATIONS = 6


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a tier with one version of the engines; None is unknown."""

    check: CheckReport | None
    report: Report | None


def judge(old: Figures, new: Figures, *, may_differ: bool = False) -> tuple[WorseFigure, ...]:
    """What is worse with the new, beyond noise; what one of both lacks is not compared.

    Args:
        may_differ: Whether different greedy answers are fine as long as they make sense: they are
            where the weights are other ones.
    """
    answers = _worse_answers(old.check, new.check, may_differ=may_differ)
    return (*answers, *_worse_speed(old.report, new.report))


def _worse_answers(
    old: CheckReport | None, new: CheckReport | None, *, may_differ: bool
) -> Iterator[WorseFigure]:
    if old is None or new is None:
        return
    was_right = {case.id for case in old.cases if case.is_right}
    lost = [case for case in new.wrong if case.id in was_right and case.id != "coherence"]
    if lost:
        kinds = "; ".join(case.kind for case in lost[:3])
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        yield WorseFigure("check", f"{len(lost)} cases that were right are wrong: {kinds}{more}")
    different = coherence.compare(old.answers, new.answers)
    before, now = coherence.sensible(old.answers), coherence.sensible(new.answers)
    if now < before:
        yield WorseFigure("coherence", f"{now} greedy answers make sense, before {before}")
    elif not may_differ and len(different) * 2 > len(coherence.PROMPTS):
        names = ", ".join(each.name for each in different)
        yield WorseFigure("coherence", f"{len(different)} greedy answers differ ({names})")


def _worse_speed(old: Report | None, new: Report | None) -> Iterator[WorseFigure]:
    if old is None or new is None:
        return
    for found in compare_reports(old, new).ratios:
        ratio = found.ratio.value
        is_worse = found.change is Change.WORSE and found.metric in _COMPARED
        if is_worse and ratio is not None and ratio < 1 - SPEED_TOLERANCE:
            words = f"{_COMPARED[found.metric]} {ratio - 1:+.0%} at {found.point}"
            yield WorseFigure("speed", words)
    before, now = (each.memory.peak_bytes if each.memory else None for each in (old, new))
    if before and now and now > before * (1 + MEMORY_TOLERANCE):
        growth = now / before - 1
        yield WorseFigure(
            "memory", f"peak {now / 1e9:.2f} GB, before {before / 1e9:.2f} ({growth:+.0%})"
        )


def certify(
    opened: OpenStack,
    pair: EnginePair,
    *,
    available_bytes: int | None = None,
    on_progress: OnProgress = lambda _: None,
) -> tuple[CertifiedTier, ...]:
    """How each tier of the stack does with the engines in `pair`, one after the other.

    A tier is compared with its last check and its saved benchmark, where they are of the engine in
    use; else with what is measured of it now, if it runs.

    Args:
        available_bytes: Memory that is free for this; None asks the machine.

    Raises:
        EngineUnhealthyError: A tier can't be served with them.
    """
    stack = opened.defined_stack
    if stack is None:
        return ()
    fresh = {
        each.engine
        for each in pair.environments
        if each != current_environment(opened.home.engines, each.engine)
    }
    alone = replace(pair, litellm=None)  # nothing of this is LiteLLM's work
    return tuple(
        _certify(opened, _Trial(alone, tier, tier), available_bytes, on_progress)
        for tier in stack.chatting
        if environment_name(tier) in fresh
    )


def certify_revision(
    opened: OpenStack,
    former: LocalModel,
    newer: LocalModel,
    *,
    available_bytes: int | None = None,
    on_event: OnEvent[ModelEvent] = ignore,
) -> tuple[CertifiedTier, ...]:
    """How the tiers that serve a model do with the files of a newer revision, one after the other.

    They are compared as new engines are, but their greedy answers may be other ones.

    Args:
        former: The model as the tiers serve it now.
        newer: The same model of another revision, in a folder that can be served.
        available_bytes: Memory that is free for this; None asks the machine.
        on_event: Gets each tier before it is tried.
    """
    stack = opened.readable_stack
    if stack is None:
        return ()
    done: list[CertifiedTier] = []
    for tier in stack.tiers:
        local = local_model_of(opened, tier)
        if local is None or local.path != former.path:
            continue
        engine = current_environment(opened.home.engines, environment_name(tier))
        if not tier.role.chats:
            done.append(CertifiedTier(tier.name, "only chat models are compared"))
        elif engine is None:
            done.append(CertifiedTier(tier.name, "there is no engine to try it with"))
        else:
            on_event(Comparing(tier.name))
            moved = msgspec.structs.replace(tier, source=str(newer.path.absolute()))
            pair = EnginePair(engine, None)
            if tier.is_on_mlx_lm:
                pair = EnginePair(None, None, mlx_lm=engine)
            trial = _Trial(pair, tier, moved, may_differ=True)
            done.append(_certify_model(opened, trial, available_bytes))
    return tuple(done)


def _certify_model(
    opened: OpenStack, trial: "_Trial", available_bytes: int | None
) -> CertifiedTier:
    """A newer revision that doesn't even start does worse, too."""
    try:
        return _certify(opened, trial, available_bytes, lambda _: None)
    except EngineUnhealthyError as error:
        worse = WorseFigure("start", error.problem)
    except (EndpointError, ReportError) as error:
        worse = WorseFigure("check", str(error))
    return CertifiedTier(trial.tier.name, worse=(worse,))


def require_as_good(tiers: Sequence[CertifiedTier]) -> None:
    """Nothing, if no tier does worse.

    Raises:
        EngineWorseError: One does; it names the figures.
    """
    worse = worse_in_words(tiers)
    if worse:
        raise EngineWorseError(worse)


def worse_in_words(tiers: Sequence[CertifiedTier]) -> list[str]:
    """What does worse, by tier and figure."""
    return [f"{tier.tier}: {each.figure}: {each.words}" for tier in tiers for each in tier.worse]


@dataclass(frozen=True, slots=True)
class _Trial:
    """A tier as it is, and how it is served for the trial.

    Attributes:
        pair: The engines for it.
        served: The tier with what is new of itself.
        may_differ: Whether it may give different greedy answers.
    """

    pair: EnginePair
    tier: Tier
    served: Tier
    may_differ: bool = False


def _certify(
    opened: OpenStack,
    trial: _Trial,
    available_bytes: int | None,
    on_progress: OnProgress,
) -> CertifiedTier:
    tier, model = trial.tier, local_model_of(opened, trial.served)
    if model is None or not model.is_whole:
        return CertifiedTier(tier.name, "its model is not on this disk")
    free = available_bytes if available_bytes is not None else psutil.virtual_memory().available
    if model.size_bytes * 2 > free:
        return CertifiedTier(tier.name, "it doesn't fit in memory next to the running services")
    old = _old_figures(opened, tier, on_progress)
    if old.check is None and old.report is None:
        return CertifiedTier(
            tier.name, "it isn't running, and no check or benchmark of it is saved"
        )
    on_progress(f"{tier.name}: starting it with the new version")
    with served_beside(opened, trial.pair, trial.served) as scratch:
        beside = scratch.stack.tiers[0]
        new_check = new_report = None
        if old.check is not None:
            new_check = check_tier(scratch, beside, on_progress=_named(tier, on_progress))
        if old.report is not None:
            parameters = _again(old.report)
            new_report = bench(
                scratch, SCRATCH_TIER, parameters, on_progress=_named(tier, on_progress)
            ).report
        worse = judge(old, Figures(new_check, new_report), may_differ=trial.may_differ)
        if any(each.figure == "speed" for each in worse):
            worse = _once_more(opened, tier, old, Figures(new_check, new_report), worse)
    return CertifiedTier(
        tier.name,
        verdict=new_check.verdict if new_check is not None else None,
        worse=worse,
    )


def _named(tier: Tier, on_progress: OnProgress) -> OnProgress:
    return lambda line: on_progress(f"{tier.name}: {line}")


def _once_more(
    opened: OpenStack, tier: Tier, old: Figures, new: Figures, worse: tuple[WorseFigure, ...]
) -> tuple[WorseFigure, ...]:
    """The verdict against the old version as it runs now: the machine may be the slower one."""
    if old.report is None:
        return worse
    try:
        now = bench(opened, tier.name, _again(old.report)).report
    except (StackError, EndpointError):  # it doesn't run: the saved figures are what there is
        return worse
    speed = [each for each in judge(Figures(None, now), new) if each.figure == "speed"]
    return (*(each for each in worse if each.figure != "speed"), *speed)


def _old_figures(opened: OpenStack, tier: Tier, on_progress: OnProgress) -> Figures:
    progress = _named(tier, on_progress)
    found = last_check(opened, tier)
    check = found.report if found is not None and not found.since else None
    report = saved_report(opened, tier)
    try:
        if check is None:
            check = check_tier(opened, tier, on_progress=progress)
        if report is None:
            report = bench(opened, tier.name, _USUAL, on_progress=progress).report
    except (StackError, EndpointError):
        pass  # it doesn't run: what was saved is what there is
    return Figures(check, report)


def saved_report(opened: OpenStack, tier: Tier) -> Report | None:
    """The last benchmark of the tier's own files with the engine that it runs with.

    One that doesn't say what files it measured counts for none.
    """
    now = conditions_of(opened, tier)
    if now.model_hash is None:
        return None
    subject = (tier.name, tier.model, now.model_hash, now.engine)
    found: list[Report] = []
    for path in sorted(opened.home.benchmarks.glob("*.json")):
        try:
            report = load_report(path)
        except ReportError:
            continue  # of agents, or damaged, which `estimate` says
        is_single = 1 in report.parameters.concurrency and report.finished
        tier_name, model_hash = report.extra.get("tier"), report.extra.get("model_hash")
        if is_single and (tier_name, report.model, model_hash, report.engine) == subject:
            found.append(report)
    return max(found, key=lambda each: each.started_at, default=None)


def _again(report: Report) -> Parameters:
    """What a saved benchmark measured of single requests, often enough to be compared."""
    asked = report.parameters
    return Parameters(
        iterations=max(asked.iterations, _LEAST_ITERATIONS),
        warm_up=max(asked.warm_up, 1),
        prompt_tokens=asked.prompt_tokens[:1],
        generation_tokens=asked.generation_tokens,
        cache=Cache(asked.cache),
    )
