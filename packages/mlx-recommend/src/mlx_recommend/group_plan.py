"""A tier that several Macs serve together (decision 0117)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mlx_catalog import EngineFit, ServingEngine, engine_fit
from mlx_hwprobe import HardwareProfile
from mlx_recommend.candidates import Candidate, Exclusion
from mlx_recommend.fit import estimate
from mlx_recommend.group import GroupEstimate, estimate_group
from mlx_recommend.inputs import SPEED_CONTEXT_TOKENS, Workload
from mlx_recommend.memory import prefill_step
from mlx_recommend.plan import Absence, MissingTier, TierPlan
from mlx_recommend.score import MIN_USEFUL_TPS, STANDARD_WEIGHTS, components, weighted_score
from mlx_recommend.tier_kinds import STANDARD

GROUP_TIER = "huge"
"""What such a tier is called."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupTier:
    """A tier that several Macs serve together.

    Attributes:
        estimate: With the memory that pinned tiers of the first Mac leave.
        score: From 0 to 1, by what a standard tier is scored by.
    """

    candidate: Candidate
    estimate: GroupEstimate
    score: float


def choose_group(
    candidates: Sequence[Candidate],
    macs: Sequence[HardwareProfile],
    plan: TierPlan,
    *,
    context_tokens: int | None = None,
    concurrency: int = 1,
) -> GroupTier | MissingTier:
    """The best model that all Macs run together and the first can't run by itself, or why none is.

    Each part fits what the GPU of its Mac may use, on the first one beside what is never unloaded:
    the tiers of `plan` that chat make room for it. It is no slower than people can bear.
    """
    first, *others = macs
    pinned = sum(each.total_bytes for each in plan.reading)
    beside = [_with_less(first, pinned), *others]
    found, smallest = list[GroupTier](), list[int]()
    for candidate in candidates:
        if not _may_be_shared(candidate):
            continue
        work = _workload(candidate, context_tokens, concurrency)
        if estimate(candidate.shape, first, work).fits is not False:
            continue
        together = estimate_group(candidate.shape, beside, work)
        if together.fullest is not None:
            smallest.append(together.fullest.memory.least_bytes)
        speed = together.generation_tps
        if together.fits and (speed is None or speed.value >= MIN_USEFUL_TPS):
            score = _score(candidate, together, plan)
            found.append(GroupTier(candidate=candidate, estimate=together, score=score))
    if found:
        return max(found, key=lambda tier: (tier.score, tier.candidate.model))
    return MissingTier(
        tier=GROUP_TIER,
        absence=Absence.NOTHING_TOGETHER,
        smallest_bytes=min(smallest, default=None),
        left_bytes=max(min(each.gpu_memory_limit_bytes or 0 for each in beside), 0),
    )


def _with_less(mac: HardwareProfile, taken_bytes: int) -> HardwareProfile:
    """The Mac as it is with so much of its memory taken."""
    limit = mac.gpu_memory_limit_bytes or mac.memory_bytes
    return mac if limit is None else replace(mac, gpu_memory_limit_bytes=limit - taken_bytes)


def _may_be_shared(candidate: Candidate) -> bool:
    """Whether mlx-lm, which serves divided models, can be asked for it without being told to."""
    if candidate.exclusion not in (None, Exclusion.NEEDS_NEWER) or not candidate.entry.role.chats:
        return False
    return not _on_mlx_lm(candidate).unservable_because


def _on_mlx_lm(candidate: Candidate) -> EngineFit:
    return engine_fit(candidate.entry, ServingEngine.MLX_LM)


def _workload(candidate: Candidate, context_tokens: int | None, concurrency: int) -> Workload:
    tokens = context_tokens or min(STANDARD.context_tokens, candidate.longest_tokens)
    return Workload(
        context_tokens=tokens,
        concurrency=concurrency,
        prefill_step_tokens=prefill_step(candidate.shape, tokens, concurrency),
        speed_context_tokens=SPEED_CONTEXT_TOKENS if context_tokens is None else None,
        keeps_prefixes=_on_mlx_lm(candidate).reuses_prefixes,
    )


def _score(candidate: Candidate, together: GroupEstimate, plan: TierPlan) -> float:
    fullest = together.fullest
    assert fullest is not None
    share = fullest.memory.least_bytes / fullest.limit_bytes if fullest.limit_bytes else 1.0
    parts = components(
        generation_tps=together.generation_tps.value if together.generation_tps else None,
        quality=candidate.quality,
        tool_calling=candidate.entry.capabilities.tool_calling,
        memory_share=share,
    )
    return weighted_score(parts, STANDARD_WEIGHTS[plan.intent])
