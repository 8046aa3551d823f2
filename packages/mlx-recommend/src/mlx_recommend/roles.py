"""What each tier is for: its context, what it is scored by, and who may apply."""

import math
from dataclasses import dataclass

from mlx_catalog import engine_fit
from mlx_hwprobe import HardwareProfile
from mlx_recommend.candidates import Candidate
from mlx_recommend.fit import Estimate, estimate
from mlx_recommend.inputs import SPEED_CONTEXT_TOKENS, Workload
from mlx_recommend.score import (
    FAST_WEIGHTS,
    FASTEST_FAST_TPS,
    FASTEST_USEFUL_TPS,
    LONG_CONTEXT_WEIGHTS,
    STANDARD_WEIGHTS,
    Components,
    Intent,
    Weights,
    components,
    weighted,
)

USEFUL_QUALITY = 20.0
"""Below about 20 the catalog's overall quality is mostly noise, and so are the answers."""
NOT_HYBRID_FACTOR = 0.6
"""A long-context tier without recurrent layers has to be that much better to be chosen."""
CHEAPEST_KV_BYTES = 4_096
DEAREST_KV_BYTES = 524_288
"""Between these bytes of cache for a token of context, thrift falls from 1 to 0, on a log scale."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One of the tiers that a stack usually has.

    Attributes:
        tier: Its name.
        context_tokens: The context it is planned for where nobody says otherwise.
        weights: What it is scored by, for each intent.
        fastest_tps: From where more speed is worth nothing to it.
        wants_thrift: Whether its memory component is the cost of context instead of the total.
        needs_quality: The overall quality without which nobody applies.
    """

    tier: str
    context_tokens: int
    weights: dict[Intent, Weights]
    fastest_tps: float = FASTEST_USEFUL_TPS
    wants_thrift: bool = False
    needs_quality: float | None = None


STANDARD = Role(tier="standard", context_tokens=16_384, weights=STANDARD_WEIGHTS)
FAST = Role(
    tier="fast",
    context_tokens=8_192,
    weights=FAST_WEIGHTS,
    fastest_tps=FASTEST_FAST_TPS,
    needs_quality=USEFUL_QUALITY,
)
LONG_CONTEXT = Role(
    tier="longctx",
    context_tokens=65_536,
    weights=LONG_CONTEXT_WEIGHTS,
    wants_thrift=True,
    needs_quality=USEFUL_QUALITY,
)
ROLES = (STANDARD, FAST, LONG_CONTEXT)
"""In the order of importance, which is also the order of fallback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """A candidate in a role.

    Attributes:
        candidate: The model.
        role: The tier it would serve.
        estimate: What to expect of it there.
        total_bytes: The memory it takes there.
        components: What its score is made of.
        score: From 0 to 1.
    """

    candidate: Candidate
    role: Role
    estimate: Estimate
    total_bytes: int
    components: Components
    score: float

    @property
    def generation_tps(self) -> float:
        """Decode speed, 0 where unknown."""
        speed = self.estimate.generation_tps
        return speed.value if speed is not None else 0.0

    def is_faster_than(self, other: "Applicant") -> bool:
        """Whether it decodes faster: on a machine of unknown speed, whether it reads less."""
        if self.generation_tps and other.generation_tps:
            return self.generation_tps > other.generation_tps
        own = self.candidate.shape.decode_weight_bytes
        others = other.candidate.shape.decode_weight_bytes
        return own is not None and others is not None and own < others


def apply(
    candidate: Candidate,
    role: Role,
    hardware: HardwareProfile,
    *,
    intent: Intent,
    context_tokens: int | None = None,
    concurrency: int = 1,
) -> Applicant | None:
    """The candidate in a role; None where its memory is unknown.

    `context_tokens` replaces the role's own; a model that was trained for less than the role's own
    is planned for what it can do, except for the long-context role.
    """
    longest = candidate.entry.max_context_tokens
    workload = Workload(
        context_tokens=context_tokens or min(role.context_tokens, longest),
        concurrency=concurrency,
        speed_context_tokens=SPEED_CONTEXT_TOKENS if context_tokens is None else None,
        keeps_prefixes=engine_fit(candidate.entry).paged_cache,
    )
    expected = estimate(candidate.shape, hardware, workload, candidate.measurements)
    total = expected.memory.total_bytes
    if total is None:
        return None
    parts = components(
        generation_tps=expected.generation_tps.value if expected.generation_tps else None,
        quality=candidate.quality,
        tool_calling=candidate.entry.capabilities.tool_calling,
        memory_share=_memory_share(role, expected, total),
        fastest_tps=role.fastest_tps,
    )
    score = weighted(parts, role.weights[intent])
    if role.wants_thrift and not candidate.keeps_context_cheap:
        score *= NOT_HYBRID_FACTOR
    return Applicant(
        candidate=candidate,
        role=role,
        estimate=expected,
        total_bytes=total,
        components=parts,
        score=score,
    )


def is_eligible(applicant: Applicant, *, context_tokens: int | None = None) -> bool:
    """Whether the applicant may get the role at all, whatever the budget."""
    candidate, role = applicant.candidate, applicant.role
    if candidate.bar is not None:
        return False
    needed = context_tokens or (role.context_tokens if role.wants_thrift else 1)
    if candidate.entry.max_context_tokens < needed:
        return False
    return role.needs_quality is None or (candidate.quality or 0) >= role.needs_quality


def _memory_share(role: Role, expected: Estimate, total: int) -> float:
    """The share of the machine's memory, or how dear a token of context is on a log scale."""
    if not role.wants_thrift:
        return total / expected.limit_bytes if expected.limit_bytes else 1.0
    tokens = expected.workload.context_tokens
    held = (expected.memory.kv_cache_bytes or 0) + (expected.memory.state_bytes or 0)
    each = held / (tokens * expected.workload.concurrency)
    span = math.log(DEAREST_KV_BYTES / CHEAPEST_KV_BYTES)
    return math.log(max(each, CHEAPEST_KV_BYTES) / CHEAPEST_KV_BYTES) / span
