"""How good a model is for a purpose: four components from 0 to 1, and their weights."""

import math
from dataclasses import dataclass
from enum import StrEnum


class Intent(StrEnum):
    """What the stack is for."""

    BALANCED = "balanced"
    """Chat, code and tools by one person."""
    AGENT_FLEET = "agent-fleet"
    """Programs that call tools: calls that can be relied on and speed count for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreWeights:
    """How much each component counts; they add up to 1."""

    speed: float
    quality: float
    tool_calling: float
    memory: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """What a score is made of, each from 0 to 1.

    Attributes:
        speed: Decode speed on a logarithmic scale: twice as fast is always worth the same.
        quality: The catalog's overall quality, or a guess well below the middle where none is
            published.
        tool_calling: 1 where the model calls tools through the engine, 0 where it can't.
        memory: What is left of the machine's memory: 1 takes none, 0 all of it.
    """

    speed: float
    quality: float
    tool_calling: float
    memory: float


STANDARD_WEIGHTS = {
    Intent.BALANCED: ScoreWeights(speed=0.2, quality=0.6, tool_calling=0.1, memory=0.1),
    Intent.AGENT_FLEET: ScoreWeights(speed=0.25, quality=0.4, tool_calling=0.3, memory=0.05),
}
"""For the standard tier."""

FAST_WEIGHTS = {
    Intent.BALANCED: ScoreWeights(speed=0.45, quality=0.42, tool_calling=0.1, memory=0.03),
    Intent.AGENT_FLEET: ScoreWeights(speed=0.38, quality=0.39, tool_calling=0.2, memory=0.03),
}
"""For the fast tier."""

LONG_CONTEXT_WEIGHTS = {
    Intent.BALANCED: ScoreWeights(speed=0.15, quality=0.45, tool_calling=0.1, memory=0.3),
    Intent.AGENT_FLEET: ScoreWeights(speed=0.2, quality=0.3, tool_calling=0.25, memory=0.25),
}
"""For the long-context tier."""

MIN_USEFUL_TPS = 4.0
"""Slower than a patient reader: scores 0."""
MAX_USEFUL_TPS = 60.0
"""Faster than anybody reads: more adds nothing to the standard and long-context tiers."""
MAX_USEFUL_FAST_TPS = 320.0
"""The same of the fast tier, whose answers are often read by programs."""
UNKNOWN_QUALITY = 0.1
UNKNOWN_TOOL_CALLING = 0.25


def components(
    *,
    generation_tps: float | None,
    quality: float | None,
    tool_calling: bool | None,
    memory_share: float,
    max_useful_tps: float = MAX_USEFUL_TPS,
) -> Components:
    """The components of a model's score.

    Args:
        generation_tps: Decode speed; None scores as the slowest.
        quality: 0 to 100, or None where nothing is published.
        tool_calling: Whether the model calls tools; None where nobody has tried.
        memory_share: What it takes of the memory that the GPU may use, as a share.
        max_useful_tps: The decode speed above which more adds no score.
    """
    return Components(
        speed=_on_log_scale(generation_tps, max_useful_tps),
        quality=UNKNOWN_QUALITY if quality is None else _clamped(quality / 100),
        tool_calling=UNKNOWN_TOOL_CALLING if tool_calling is None else float(tool_calling),
        memory=_clamped(1 - memory_share),
    )


def weighted_score(parts: Components, weights: ScoreWeights) -> float:
    """The score, from 0 to 1."""
    return (
        parts.speed * weights.speed
        + parts.quality * weights.quality
        + parts.tool_calling * weights.tool_calling
        + parts.memory * weights.memory
    )


def _on_log_scale(tps: float | None, max_useful_tps: float) -> float:
    useful = max(tps or 0.0, MIN_USEFUL_TPS)
    return _clamped(math.log(useful / MIN_USEFUL_TPS) / math.log(max_useful_tps / MIN_USEFUL_TPS))


def _clamped(share: float) -> float:
    return min(max(share, 0.0), 1.0)
