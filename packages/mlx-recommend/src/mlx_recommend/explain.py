"""Why a plan is as it is, as data: what to say about it is for others to word."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlx_recommend.inputs import Basis
from mlx_recommend.plan import Plan
from mlx_recommend.roles import FAST, LONG_CONTEXT, STANDARD, Applicant


class ReasonKind(StrEnum):
    """What a reason is about; `Reason` has the figures."""

    BEST_SCORE = "best-score"
    """The best score of all that may be chosen and fit the budget by themselves."""
    SCORE_RANK = "score-rank"
    """`rank`: the place by score; `model`, of `size_bytes`, scores best but leaves less room."""
    QUALITY_RANK = "quality-rank"
    """`rank`: the place by published quality among all that fit; `value`: that quality."""
    FASTER = "faster"
    """`value`: how many times as fast as the standard tier's `model`."""
    CHEAP_CONTEXT = "cheap-context"
    """`value`: bytes of cache for a token of context."""
    CALLS_TOOLS = "calls-tools"
    """The engine reads its tool calls."""
    MEASURED = "measured"
    """Its speed was measured on this machine."""
    REFERENCE = "reference"
    """Its speed was published for such a machine."""
    RUNNER_UP = "runner-up"
    """`model` is next by score, `value` behind, and takes `size_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason for a choice.

    Attributes:
        kind: What it is about; which other fields are set follows from it.
        rank: A place, 1 being the best.
        value: A figure.
        model: Another model that this one is compared with.
        size_bytes: The memory of that model.
    """

    kind: ReasonKind
    rank: int | None = None
    value: float | None = None
    model: str | None = None
    size_bytes: int | None = None


def reasons(plan: Plan, tier: Applicant) -> tuple[Reason, ...]:
    """Why `tier` is in `plan`, the most telling first."""
    return tuple(_reasons(plan, tier))


def _reasons(plan: Plan, tier: Applicant) -> Iterator[Reason]:
    fitting = [
        each
        for each in plan.ranking
        if each.candidate.bar is None and each.total_bytes <= plan.budget_bytes
    ]
    if tier.role is STANDARD:
        yield from _standing(fitting, tier)
    if tier.role is FAST:
        yield from _faster(plan, tier)
    if tier.role is LONG_CONTEXT:
        yield _cheap_context(tier)
    yield from _quality(fitting, tier)
    if tier.candidate.entry.capabilities.tool_calling:
        yield Reason(kind=ReasonKind.CALLS_TOOLS)
    speed = tier.estimate.generation_tps
    if speed is not None and speed.basis is not Basis.ESTIMATE:
        yield Reason(kind=ReasonKind(speed.basis.value))
    if tier.role is STANDARD:
        yield from _runner_up(fitting, plan, tier)


def _standing(fitting: list[Applicant], tier: Applicant) -> Iterator[Reason]:
    rank = 1 + sum(each.score > tier.score for each in fitting)
    if rank == 1:
        yield Reason(kind=ReasonKind.BEST_SCORE)
    else:
        best = fitting[0]
        yield Reason(
            kind=ReasonKind.SCORE_RANK,
            rank=rank,
            model=best.candidate.model,
            size_bytes=best.total_bytes,
        )


def _faster(plan: Plan, tier: Applicant) -> Iterator[Reason]:
    standard = next((each for each in plan.tiers if each.role is STANDARD), None)
    if standard is not None and standard.generation_tps:
        yield Reason(
            kind=ReasonKind.FASTER,
            value=tier.generation_tps / standard.generation_tps,
            model=standard.candidate.model,
        )


def _cheap_context(tier: Applicant) -> Reason:
    memory, workload = tier.estimate.memory, tier.estimate.workload
    held = (memory.kv_cache_bytes or 0) + (memory.state_bytes or 0)
    tokens = workload.context_tokens * workload.concurrency
    return Reason(kind=ReasonKind.CHEAP_CONTEXT, value=held / tokens)


def _quality(fitting: list[Applicant], tier: Applicant) -> Iterator[Reason]:
    quality = tier.candidate.quality
    if quality is not None:
        rank = 1 + sum((each.candidate.quality or 0) > quality for each in fitting)
        yield Reason(kind=ReasonKind.QUALITY_RANK, rank=rank, value=quality)


def _runner_up(fitting: list[Applicant], plan: Plan, tier: Applicant) -> Iterator[Reason]:
    taken = {each.candidate.model for each in plan.tiers}
    others = [each for each in fitting if each.candidate.model not in taken]
    after = [each for each in others if each.score <= tier.score]
    if after:
        yield Reason(
            kind=ReasonKind.RUNNER_UP,
            value=tier.score - after[0].score,
            model=after[0].candidate.model,
            size_bytes=after[0].total_bytes,
        )
