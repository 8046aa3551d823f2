"""Which models suit a machine, which tiers to make of them, and why (decision 0041)."""

from dataclasses import dataclass

from mlx_catalog import Catalog, ModelRole, Quant
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    GROUP_TIER,
    Absence,
    Candidate,
    ChoiceReason,
    Exclusion,
    GroupTier,
    Intent,
    MissingTier,
    Option,
    ReadingTier,
    ReasonKind,
    TierPlan,
    budget_bytes,
    candidate_of,
    choose_group,
    group_reasons,
    make_plan,
    reading_reasons,
    reasons,
)
from mlx_stack.errors import StackError
from mlx_stack.format import format_bytes
from mlx_stack.hardware import asked_macs
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.group import group_document, group_figures
from mlx_stack.planning.saved_results import known_speeds

_ORDINALS = {1: "best", 2: "second best", 3: "third best"}

EXCLUSIONS = {
    Exclusion.GATED: "gated: needs a Hub token",
    Exclusion.UNSERVABLE: "the engine can't serve it",
    Exclusion.NEEDS_NEWER: "needs mlx-lm: only by name",
    Exclusion.DOUBTFUL: "doubtful figures",
    Exclusion.UNKNOWN_MEMORY: "memory unknown",
    Exclusion.NO_WEIGHTS: "no MLX weights published",
}
"""Why a model is not chosen by default, for a table."""


_PLAIN = {
    ReasonKind.BEST_SCORE: "best score in the budget",
    ReasonKind.CALLS_TOOLS: "calls tools",
    ReasonKind.MEASURED: "speed measured on this machine",
    ReasonKind.REFERENCE: "speed published for such a machine",
    ReasonKind.SMALLEST: "the smallest of its kind",
    ReasonKind.TOO_LARGE: "too large for the first Mac by itself",
    ReasonKind.NON_COMMERCIAL: "its licence forbids commercial use",
}
"""Reasons without figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """What a user may ask of a plan; None leaves it to the configuration or the kind of tier.

    Attributes:
        budget_pct: The same, in percent of the unified memory.
        roles: Roles beside chat that get a tier, too.
    """

    intent: Intent = Intent.BALANCED
    budget_bytes: int | None = None
    budget_pct: int | None = None
    context_tokens: int | None = None
    concurrency: int = 1
    roles: tuple[ModelRole, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """The proposed tiers, and every model that they were chosen from.

    Attributes:
        budget_bytes: What all tiers share, what is reserved included.
        has_token: Whether gated models were allowed.
        macs: All Macs that were asked about; the plan is for the first.
        group: What they would serve together, or why there is nothing; None for one Mac.
    """

    hardware: HardwareProfile
    budget_bytes: int
    plan: TierPlan
    catalog: Catalog
    quant: Quant
    has_token: bool
    macs: tuple[HardwareProfile, ...] = ()
    group: GroupTier | MissingTier | None = None

    @property
    def missing(self) -> tuple[MissingTier, ...]:
        """The tiers that there are none of, that of all Macs together included."""
        absent = (self.group,) if isinstance(self.group, MissingTier) else ()
        return (*self.plan.missing, *absent)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        plan = self.plan
        tiers = [
            {
                "tier": tier.kind.name,
                "role": tier.candidate.entry.role.value,
                **_option_document(tier),
                "context_tokens": tier.estimate.workload.context_tokens,
                "concurrency": tier.estimate.workload.concurrency,
                "reasons": [reason_document(reason) for reason in reasons(plan, tier)],
            }
            for tier in plan.tiers
        ]
        shared = [_group_document(plan, self.group)] if isinstance(self.group, GroupTier) else []
        several = {"macs": [mac.to_document() for mac in self.macs]} if len(self.macs) > 1 else {}
        return {
            "intent": plan.intent.value,
            "hardware": self.hardware.to_document(),
            **several,
            "budget_bytes": plan.budget_bytes,
            "total_bytes": plan.total_bytes,
            "score": round(plan.score, 4),
            "tiers": [*tiers, *(_reading_document(each) for each in plan.reading), *shared],
            "missing_tiers": [missing_document(each) for each in self.missing],
            "candidates": [
                _candidate_document(each, plan.chat_budget_bytes) for each in plan.ranking
            ],
        }


def recommend(
    opened: OpenStack,
    constraints: Constraints,
    *,
    hardware_spec: str | None = None,
    reserved_bytes: int = 0,
) -> Recommendation:
    """The best plan for a machine, and what it would serve with others; writes nothing.

    Args:
        hardware_spec: The machine; None is this one. With several, the plan is for the first.
        reserved_bytes: The part of the budget that other models take.

    Raises:
        StackError: When the machine's memory is unknown and no budget was given.
        InvalidFileError: When the configuration, a saved result or the saved profile is damaged.
    """
    quant = opened.config.default_quant
    macs = asked_macs(opened.home, hardware_spec)
    hardware = macs[0]
    budget = budget_bytes(
        hardware,
        pct=constraints.budget_pct or opened.config.memory_budget_pct,
        wanted_bytes=constraints.budget_bytes,
    )
    if budget is None:
        raise StackError(
            "The memory of this machine is unknown, so there is no budget to plan for.",
            hint="Give one with --budget 30gb, or name a machine with --hardware m4-max:40:128.",
        )
    has_token = read_environment().token is not None
    speeds = known_speeds(opened, hardware)
    candidates = [
        candidate_of(
            entry, quant, allow_gated=has_token, measurements=speeds.of_entry(entry, quant)
        )
        for entry in opened.catalog
    ]
    plan = make_plan(
        candidates,
        hardware,
        budget_bytes=max(budget - reserved_bytes, 0),
        intent=constraints.intent,
        context_tokens=constraints.context_tokens,
        concurrency=constraints.concurrency,
        roles=constraints.roles,
    )
    group = None
    if len(macs) > 1:
        group = choose_group(
            candidates,
            macs,
            plan,
            context_tokens=constraints.context_tokens,
            concurrency=constraints.concurrency,
        )
    return Recommendation(
        macs=macs,
        group=group,
        hardware=hardware,
        budget_bytes=budget,
        plan=plan,
        catalog=opened.catalog,
        quant=quant,
        has_token=has_token,
    )


def _reading_document(tier: ReadingTier) -> dict[str, object]:
    """A tier that reads; it has no score, and its speed isn't estimated."""
    expected = tier.estimate.to_document()
    return {
        "tier": tier.name,
        "role": tier.role.value,
        "model": tier.candidate.model,
        "quant": tier.candidate.quant,
        "score": None,
        **{name: expected[name] for name in ("memory", "generation_tps", "prompt_tps")},
        "context_tokens": tier.estimate.workload.context_tokens,
        "concurrency": tier.estimate.workload.concurrency,
        "reasons": [reason_document(reason) for reason in reading_reasons(tier)],
    }


def _group_document(plan: TierPlan, tier: GroupTier) -> dict[str, object]:
    """A tier that all Macs serve together: as the others, and what is each Mac's own."""
    figures = group_figures(tier.estimate)
    macs = [part.hardware for part in tier.estimate.parts]
    return {
        "tier": GROUP_TIER,
        "role": tier.candidate.entry.role.value,
        "model": tier.candidate.model,
        "quant": tier.candidate.quant,
        "score": round(tier.score, 4),
        **{name: figures[name] for name in ("memory", "generation_tps", "prompt_tps")},
        "context_tokens": tier.estimate.workload.context_tokens,
        "concurrency": tier.estimate.workload.concurrency,
        "reasons": [reason_document(reason) for reason in group_reasons(plan, tier)],
        **group_document(tier.estimate, macs),
    }


def _option_document(option: Option) -> dict[str, object]:
    expected = option.estimate.to_document()
    return {
        "model": option.candidate.model,
        "quant": option.candidate.quant,
        "score": round(option.score, 4),
        **{name: expected[name] for name in ("memory", "generation_tps", "prompt_tps")},
    }


def _candidate_document(option: Option, budget_bytes: int) -> dict[str, object]:
    candidate, parts = option.candidate, option.components
    return {
        **_option_document(option),
        "components": {
            "speed": round(parts.speed, 4),
            "quality": round(parts.quality, 4),
            "tool_calling": round(parts.tool_calling, 4),
            "memory_efficiency": round(parts.memory, 4),
        },
        "fits": option.total_bytes <= budget_bytes,
        "excluded": candidate.exclusion.value if candidate.exclusion is not None else None,
        "excluded_because": exclusion_text(candidate) or None,
    }


def exclusion_text(candidate: Candidate) -> str:
    """Why a model is not chosen by default; "" where it may be."""
    if candidate.exclusion is None:
        return ""
    return candidate.excluded_because or EXCLUSIONS[candidate.exclusion]


def reason_text(reason: ChoiceReason) -> str:
    """One reason, as a part of a sentence."""
    value, size = reason.value or 0.0, format_bytes(reason.size_bytes)
    match reason.kind:
        case ReasonKind.SCORE_RANK:
            better = f"{reason.model} ({size}) scores best but leaves too little for the others"
            return f"{_ordinal(reason.rank)} score; {better}"
        case ReasonKind.QUALITY_RANK:
            if reason.rank in _ORDINALS:
                return f"{_ORDINALS[reason.rank]} quality that fits ({value:.0f} of 100)"
            return f"quality {value:.0f} of 100"
        case ReasonKind.FASTER:
            return f"{value:.1f}x as fast as {reason.model}"
        case ReasonKind.CHEAP_CONTEXT:
            return f"{value / 1000:.0f} kB per token of context"
        case ReasonKind.LARGEST_IN_SHARE:
            return f"the largest within {value:.0%} of the budget"
        case ReasonKind.NO_BETTER:
            return f"{reason.model}, which the first Mac runs by itself, scores {value:.0f}"
        case ReasonKind.RUNNER_UP:
            return f"next: {reason.model} ({size}, scores {value:.2f} less)"
        case _:
            return _PLAIN[reason.kind]


def reason_document(reason: ChoiceReason) -> dict[str, object]:
    """One reason as data, with its words."""
    fields = {
        "kind": reason.kind.value,
        "rank": reason.rank,
        "value": None if reason.value is None else round(reason.value, 3),
        "model": reason.model,
        "size_bytes": reason.size_bytes,
        "text": reason_text(reason),
    }
    return {name: value for name, value in fields.items() if value is not None}


def missing_text(missing: MissingTier) -> str:
    """Why a tier is not in the plan, as a sentence."""
    left, smallest = format_bytes(missing.left_bytes), format_bytes(missing.smallest_bytes)
    match missing.absence:
        case Absence.NO_CANDIDATE:
            return "Left out: no suitable model in the catalog."
        case Absence.NOTHING_FASTER:
            return "Left out: no useful model that fits is faster than the standard tier."
        case Absence.BETTER_WITHOUT:
            return (
                f"Left out: the budget leaves {left}, and the smallest suitable model"
                f" takes {smallest}; making room would cost the standard tier too much."
            )
        case Absence.NO_SHARE:
            return (
                f"Left out: it may take {left} of the budget, and the smallest suitable model"
                f" takes {smallest}."
            )
        case Absence.NOTHING_TOGETHER:
            return (
                "Left out: no model that is too large for the first Mac can be divided between"
                " them, fits and is fast enough."
            )
        case Absence.NO_ROOM:
            return (
                f"Left out: the budget leaves {left}, and the smallest suitable model"
                f" takes {smallest}."
            )


def missing_document(missing: MissingTier) -> dict[str, object]:
    """Why a tier is not in the plan, as data."""
    reason = missing.absence.value
    return {"tier": missing.tier, "reason": reason, "text": missing_text(missing)}


def _ordinal(rank: int | None) -> str:
    return _ORDINALS.get(rank or 0, f"{rank}th best")
