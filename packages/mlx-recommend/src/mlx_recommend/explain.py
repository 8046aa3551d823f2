"""Why a plan is as it is, as data; the wording is the caller's."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from mlx_recommend.group_plan import GroupTier
from mlx_recommend.inputs import Basis
from mlx_recommend.plan import TierPlan
from mlx_recommend.reading import READING_SHARE, ReadingTier
from mlx_recommend.tier_kinds import FAST, LONG_CONTEXT, STANDARD, Option


class ReasonKind(StrEnum):
    """What a reason is about; `ChoiceReason` has the figures."""

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
    NON_COMMERCIAL = "non-commercial"
    """Its licence forbids commercial use."""
    LARGEST_IN_SHARE = "largest-in-share"
    """`value`: the share of the budget within which it is the largest of its role."""
    SMALLEST = "smallest"
    """The smallest of its role."""
    TOO_LARGE = "too-large"
    """It doesn't fit the first of several Macs."""
    NO_BETTER = "no-better"
    """`model`, which the first Mac runs by itself, is as good: `value`."""
    RUNNER_UP = "runner-up"
    """`model` is next by score, `value` behind, and takes `size_bytes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceReason:
    """One reason for the choice of a tier's model.

    Attributes:
        kind: What it is about; which other fields are set follows from it.
        model: Another model that this one is compared with.
        size_bytes: The memory of that model.
    """

    kind: ReasonKind
    rank: int | None = None
    value: float | None = None
    model: str | None = None
    size_bytes: int | None = None


def reading_reasons(tier: ReadingTier) -> Iterator[ChoiceReason]:
    """Why a tier that reads has its model."""
    if tier.is_smallest:
        yield ChoiceReason(kind=ReasonKind.SMALLEST)
    else:
        yield ChoiceReason(kind=ReasonKind.LARGEST_IN_SHARE, value=READING_SHARE)
    if tier.candidate.entry.commercial_use is False:
        yield ChoiceReason(kind=ReasonKind.NON_COMMERCIAL)


def group_reasons(plan: TierPlan, tier: GroupTier) -> Iterator[ChoiceReason]:
    """Why a tier of several Macs has its model, and whether it is worth it."""
    yield ChoiceReason(kind=ReasonKind.TOO_LARGE)
    quality = tier.candidate.quality
    if quality is not None:
        yield ChoiceReason(kind=ReasonKind.QUALITY_RANK, value=quality)
    best = max(plan.tiers, key=lambda each: each.candidate.quality or 0, default=None)
    if best is not None and (quality or 0) <= (best.candidate.quality or 0):
        model, value = best.candidate.model, best.candidate.quality
        yield ChoiceReason(kind=ReasonKind.NO_BETTER, model=model, value=value)
    if tier.candidate.entry.capabilities.tool_calling:
        yield ChoiceReason(kind=ReasonKind.CALLS_TOOLS)
    if tier.candidate.entry.commercial_use is False:
        yield ChoiceReason(kind=ReasonKind.NON_COMMERCIAL)


def reasons(plan: TierPlan, tier: Option) -> Iterator[ChoiceReason]:
    """Why `tier` is in `plan`, the most telling first."""
    fitting = [
        each
        for each in plan.ranking
        if each.candidate.exclusion is None and each.total_bytes <= plan.chat_budget_bytes
    ]
    if tier.kind is STANDARD:
        yield from _score_rank(fitting, tier)
    if tier.kind is FAST:
        yield from _faster(plan, tier)
    if tier.kind is LONG_CONTEXT:
        cost = tier.estimate.context_bytes_per_token
        yield ChoiceReason(kind=ReasonKind.CHEAP_CONTEXT, value=cost)
    yield from _quality(fitting, tier)
    if tier.candidate.entry.capabilities.tool_calling:
        yield ChoiceReason(kind=ReasonKind.CALLS_TOOLS)
    if tier.candidate.entry.commercial_use is False:
        yield ChoiceReason(kind=ReasonKind.NON_COMMERCIAL)
    speed = tier.estimate.generation_tps
    if speed is not None and speed.basis is not Basis.ESTIMATE:
        yield ChoiceReason(kind=ReasonKind(speed.basis.value))
    if tier.kind is STANDARD:
        yield from _runner_up(fitting, plan, tier)


def _score_rank(fitting: list[Option], tier: Option) -> Iterator[ChoiceReason]:
    rank = 1 + sum(each.score > tier.score for each in fitting)
    if rank == 1:
        yield ChoiceReason(kind=ReasonKind.BEST_SCORE)
    else:
        best = fitting[0]
        yield ChoiceReason(
            kind=ReasonKind.SCORE_RANK,
            rank=rank,
            model=best.candidate.model,
            size_bytes=best.total_bytes,
        )


def _faster(plan: TierPlan, tier: Option) -> Iterator[ChoiceReason]:
    standard = next((each for each in plan.tiers if each.kind is STANDARD), None)
    if standard is not None and standard.generation_tps:
        yield ChoiceReason(
            kind=ReasonKind.FASTER,
            value=tier.generation_tps / standard.generation_tps,
            model=standard.candidate.model,
        )


def _quality(fitting: list[Option], tier: Option) -> Iterator[ChoiceReason]:
    quality = tier.candidate.quality
    if quality is not None:
        rank = 1 + sum((each.candidate.quality or 0) > quality for each in fitting)
        yield ChoiceReason(kind=ReasonKind.QUALITY_RANK, rank=rank, value=quality)


def _runner_up(fitting: list[Option], plan: TierPlan, tier: Option) -> Iterator[ChoiceReason]:
    taken = {each.candidate.model for each in plan.tiers}
    others = [each for each in fitting if each.candidate.model not in taken]
    after = [each for each in others if each.score <= tier.score]
    if after:
        yield ChoiceReason(
            kind=ReasonKind.RUNNER_UP,
            value=tier.score - after[0].score,
            model=after[0].candidate.model,
            size_bytes=after[0].total_bytes,
        )
