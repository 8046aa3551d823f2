"""Why tiers are in a plan or missing from it, in words."""

from mlx_recommend import Absence, ChoiceReason, Exclusion, MissingTier, ReasonKind
from mlx_stack.format import format_bytes

_ORDINALS = {1: "best", 2: "second best", 3: "third best"}

EXCLUSIONS = {
    Exclusion.GATED: "gated: needs a Hub token",
    Exclusion.UNSERVABLE: "the engine can't serve it",
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
}
"""Reasons without figures."""


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
            return f"{value / 1000:.0f} kB a token of context"
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
            return "Left out: no model of the catalog suits it."
        case Absence.NOTHING_FASTER:
            return "Left out: nothing useful that fits is faster than the standard tier."
        case Absence.BETTER_WITHOUT:
            return (
                f"Left out: the budget leaves {left}, and the smallest suitable model"
                f" takes {smallest}; making room would cost the standard tier too much."
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
