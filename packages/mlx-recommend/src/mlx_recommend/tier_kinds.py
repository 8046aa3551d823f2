"""The kinds of tier: their context, what they are scored by, and which models suit them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_catalog import engine_fit
from mlx_hwprobe import HardwareProfile
from mlx_recommend.candidates import Candidate
from mlx_recommend.fit import Estimate, estimate
from mlx_recommend.inputs import SPEED_CONTEXT_TOKENS, Workload
from mlx_recommend.memory import prefill_step
from mlx_recommend.score import (
    FAST_WEIGHTS,
    LONG_CONTEXT_WEIGHTS,
    MAX_USEFUL_FAST_TPS,
    MAX_USEFUL_TPS,
    STANDARD_WEIGHTS,
    Components,
    Intent,
    ScoreWeights,
    components,
    weighted_score,
)

WORTH_ASKING = 0.5
"""The share of the standard tier's quality that a fast one needs: below it nobody asks it twice."""
USEFUL_QUALITY = 20.0
"""Below about 20 the catalog's overall quality is mostly noise, and so are the answers."""
LONG_CONTEXT_SHARES = {Intent.BALANCED: 0.1, Intent.AGENT_FLEET: 0.2}
"""What the others can't hold is a small part of the work, the more so as contexts are stretched."""
NOT_HYBRID_FACTOR = 0.6
"""A long-context tier without recurrent layers has to be that much better to be chosen."""
LOW_CONTEXT_BYTES = 4_096
HIGH_CONTEXT_BYTES = 524_288
"""Where the memory component is 1 and 0: bytes for a token of context, on a log scale between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierKind:
    """One of the tiers that a stack usually has.

    Attributes:
        context_tokens: The context that models are compared and chosen at.
        longest_tokens: The context that what is left of the budget stretches it to at most.
        weights: What it is scored by, for each intent.
        max_useful_tps: The decode speed above which more adds no score.
        scores_context_cost: Whether its memory component is the cost of context, not the total.
        min_quality: The lowest overall quality; None takes models without a published one too.
        shares: How much its score counts among the tiers', for each intent: about how often it is
            asked. None counts it fully.
    """

    name: str
    context_tokens: int
    longest_tokens: int
    weights: dict[Intent, ScoreWeights]
    max_useful_tps: float = MAX_USEFUL_TPS
    scores_context_cost: bool = False
    min_quality: float | None = None
    shares: Mapping[Intent, float] | None = None


STANDARD = TierKind(
    name="standard", context_tokens=16_384, longest_tokens=131_072, weights=STANDARD_WEIGHTS
)
FAST = TierKind(
    name="fast",
    context_tokens=8_192,
    longest_tokens=131_072,
    weights=FAST_WEIGHTS,
    max_useful_tps=MAX_USEFUL_FAST_TPS,
    min_quality=USEFUL_QUALITY,
)
LONG_CONTEXT = TierKind(
    name="longctx",
    context_tokens=65_536,
    longest_tokens=262_144,
    weights=LONG_CONTEXT_WEIGHTS,
    scores_context_cost=True,
    min_quality=USEFUL_QUALITY,
    shares=LONG_CONTEXT_SHARES,
)
TIER_KINDS = (STANDARD, FAST, LONG_CONTEXT)
"""In the order of importance, which is also the order of fallback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A candidate as one kind of tier.

    Attributes:
        total_bytes: What it takes of the Mac's memory, its process included.
        score: From 0 to 1.
        share: How much the score counts among the tiers'.
    """

    candidate: Candidate
    kind: TierKind
    estimate: Estimate
    total_bytes: int
    components: Components
    score: float
    share: float

    @property
    def generation_tps(self) -> float:
        """Decode speed, 0 where unknown."""
        speed = self.estimate.generation_tps
        return speed.value if speed is not None else 0.0

    def is_faster_than(self, other: "Option") -> bool:
        """Whether it decodes faster: on a machine of unknown speed, whether it reads less."""
        if self.generation_tps and other.generation_tps:
            return self.generation_tps > other.generation_tps
        own = self.candidate.shape.decode_weight_bytes
        others = other.candidate.shape.decode_weight_bytes
        return own is not None and others is not None and own < others


def option_of(
    candidate: Candidate,
    kind: TierKind,
    hardware: HardwareProfile,
    *,
    intent: Intent,
    context_tokens: int | None = None,
    planned_tokens: int | None = None,
    concurrency: int = 1,
) -> Option | None:
    """The candidate as a tier of this kind; None where its memory is unknown.

    Args:
        context_tokens: The context that was asked for, for speed as well.
        planned_tokens: Without one, what memory is planned for, at most the model's own; None
            takes the kind's.
        concurrency: Requests that the tier serves side by side.
    """
    planned = min(planned_tokens or kind.context_tokens, candidate.longest_tokens)
    tokens = context_tokens or planned
    workload = Workload(
        context_tokens=tokens,
        concurrency=concurrency,
        prefill_step_tokens=prefill_step(candidate.shape, tokens, concurrency),
        speed_context_tokens=SPEED_CONTEXT_TOKENS if context_tokens is None else None,
        keeps_prefixes=engine_fit(candidate.entry).reuses_prefixes,
    )
    expected = estimate(candidate.shape, hardware, workload, candidate.measurements)
    total = expected.memory.with_process_bytes
    if total is None:
        return None
    parts = components(
        generation_tps=expected.generation_tps.value if expected.generation_tps else None,
        quality=candidate.quality,
        tool_calling=candidate.entry.capabilities.tool_calling,
        memory_share=_memory_share(kind, expected, total),
        max_useful_tps=kind.max_useful_tps,
    )
    score = weighted_score(parts, kind.weights[intent])
    if kind.scores_context_cost and not candidate.keeps_context_cheap:
        score *= NOT_HYBRID_FACTOR
    return Option(
        candidate=candidate,
        kind=kind,
        estimate=expected,
        total_bytes=total,
        components=parts,
        score=score,
        share=1.0 if kind.shares is None else kind.shares[intent],
    )


def is_eligible(
    option: Option,
    *,
    intent: Intent,
    context_tokens: int | None = None,
    least_tokens: int = 0,
) -> bool:
    """Whether the option may be chosen at all, whatever the budget."""
    candidate, kind = option.candidate, option.kind
    if candidate.exclusion is not None:
        return False
    calls_tools = candidate.entry.capabilities.tool_calling
    if intent is Intent.AGENT_FLEET and kind is LONG_CONTEXT and not calls_tools:
        return False  # no agent can work there
    needed = context_tokens or (kind.context_tokens if kind.scores_context_cost else least_tokens)
    if candidate.longest_tokens < needed:
        return False
    return kind.min_quality is None or (candidate.quality or 0) >= kind.min_quality


def _memory_share(kind: TierKind, expected: Estimate, total: int) -> float:
    """The share of the GPU's memory, or the cost of a token of context on a log scale of 0 to 1."""
    if not kind.scores_context_cost:
        return total / expected.limit_bytes if expected.limit_bytes else 1.0
    each = max(expected.context_bytes_per_token or 0, LOW_CONTEXT_BYTES)
    span = math.log(HIGH_CONTEXT_BYTES / LOW_CONTEXT_BYTES)
    return math.log(each / LOW_CONTEXT_BYTES) / span
