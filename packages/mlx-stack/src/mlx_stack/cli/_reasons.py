"""Reasons of a plan in words."""

from mlx_recommend import Absence, Bar, MissingTier, Reason, ReasonKind
from mlx_stack.cli._estimates import short_bytes

_ORDINALS = {1: "best", 2: "second best", 3: "third best"}

BARS = {
    Bar.GATED: "gated: needs a Hub token",
    Bar.UNSERVABLE: "the engine can't serve it",
    Bar.DOUBTFUL: "doubtful figures",
    Bar.UNKNOWN_MEMORY: "memory unknown",
    Bar.NO_WEIGHTS: "no MLX weights published",
}
"""Why a model is not chosen by default, for a table."""


def reason_text(reason: Reason) -> str:
    """One reason, as a part of a sentence."""
    match reason.kind:
        case ReasonKind.BEST_SCORE:
            return "best score in the budget"
        case ReasonKind.SCORE_RANK:
            size = short_bytes(reason.size_bytes)
            better = f"{reason.model} ({size}) scores best but leaves too little for the others"
            return f"{_ordinal(reason.rank)} score; {better}"
        case ReasonKind.QUALITY_RANK:
            return f"{_ordinal(reason.rank)} quality that fits ({reason.value:.0f}/100)"
        case ReasonKind.FASTER:
            return f"{reason.value:.1f}x as fast as {reason.model}"
        case ReasonKind.CHEAP_CONTEXT:
            return f"{(reason.value or 0) / 1000:.0f} kB a token of context"
        case ReasonKind.CALLS_TOOLS:
            return "calls tools"
        case ReasonKind.MEASURED:
            return "speed measured on this machine"
        case ReasonKind.REFERENCE:
            return "speed published for such a machine"
        case ReasonKind.RUNNER_UP:
            size = short_bytes(reason.size_bytes)
            return f"next: {reason.model} ({size}, score {-(reason.value or 0):+.2f})"


def reason_fields(reason: Reason) -> dict[str, object]:
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
    left, smallest = short_bytes(missing.left_bytes), short_bytes(missing.smallest_bytes)
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


def _ordinal(rank: int | None) -> str:
    return _ORDINALS.get(rank or 0, f"{rank}th best")
