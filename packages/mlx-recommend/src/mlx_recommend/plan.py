"""The tiers of a stack, chosen together under one budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from mlx_hwprobe import HardwareProfile
from mlx_recommend.candidates import Candidate
from mlx_recommend.roles import (
    FAST,
    LONG_CONTEXT,
    ROLES,
    STANDARD,
    Applicant,
    Role,
    apply,
    is_eligible,
)
from mlx_recommend.score import Intent

_DEPTH = 3
"""Tiers serve different models, so the third best for its size can still be in the best plan."""


class Absence(StrEnum):
    """Why a tier is not in the plan."""

    NO_ROOM = "no-room"
    """What is left of the budget is less than the smallest suitable model takes."""
    NO_CANDIDATE = "no-candidate"
    """The catalog has no suitable model."""
    NOTHING_FASTER = "nothing-faster"
    """No useful model that fits is faster than the standard tier's."""
    BETTER_WITHOUT = "better-without"
    """There would be room only at the price of a worse standard tier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTier:
    """A tier that the plan does without.

    Attributes:
        tier: Its name.
        absence: Why.
        smallest_bytes: What the smallest suitable model would take, where there is one.
        left_bytes: What the plan leaves of the budget.
    """

    tier: str
    absence: Absence
    smallest_bytes: int | None
    left_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The tiers that serve best together.

    Attributes:
        intent: What they were weighed by.
        budget_bytes: What they share.
        tiers: In the order of importance; none where not even the smallest model fits.
        missing: The usual tiers that are not there.
        ranking: Every candidate in the standard role, best score first.
    """

    intent: Intent
    budget_bytes: int
    tiers: tuple[Applicant, ...]
    missing: tuple[MissingTier, ...]
    ranking: tuple[Applicant, ...]

    @property
    def total_bytes(self) -> int:
        """The memory of all tiers together, each at its full context."""
        return sum(tier.total_bytes for tier in self.tiers)

    @property
    def score(self) -> float:
        """The tiers' scores by importance. A bigger budget never makes it smaller."""
        return _total_score(self.tiers)


def make_plan(
    candidates: Sequence[Candidate],
    hardware: HardwareProfile,
    *,
    budget_bytes: int,
    intent: Intent = Intent.BALANCED,
    context_tokens: int | None = None,
    concurrency: int = 1,
) -> Plan:
    """The best plan within the budget: the tiers together, each at its context, never exceed it.

    Args:
        candidates: The models to choose from.
        hardware: The machine.
        budget_bytes: What all tiers share.
        intent: What scores are weighted by.
        context_tokens: The context of every tier; None leaves each role its own.
        concurrency: Requests that each tier serves side by side.
    """

    def applicants(role: Role) -> list[Applicant]:
        found = [
            applicant
            for candidate in candidates
            if (
                applicant := apply(
                    candidate,
                    role,
                    hardware,
                    intent=intent,
                    context_tokens=context_tokens,
                    concurrency=concurrency,
                )
            )
        ]
        return sorted(found, key=lambda each: (-each.score, each.total_bytes, each.candidate.model))

    ranking = applicants(STANDARD)
    pools = {
        role.tier: [
            each
            for each in (ranking if role is STANDARD else applicants(role))
            if is_eligible(each, context_tokens=context_tokens)
        ]
        for role in ROLES
    }
    tiers = _best_combination(pools, budget_bytes)
    return Plan(
        intent=intent,
        budget_bytes=budget_bytes,
        tiers=tiers,
        missing=tuple(_missing(tiers, pools, budget_bytes)),
        ranking=tuple(ranking),
    )


def _best_combination(
    pools: dict[str, list[Applicant]], budget_bytes: int
) -> tuple[Applicant, ...]:
    """The combination with the highest score that fits, of a shortlist for each role.

    The shortlists don't depend on the budget, so a bigger budget only adds combinations.
    """
    fast = [*_shortlist(pools[FAST.tier]), None]
    long_context = [*_shortlist(pools[LONG_CONTEXT.tier]), None]
    companies = sorted(
        (tuple(each for each in pair if each is not None) for pair in product(fast, long_context)),
        key=_total_score,
        reverse=True,
    )
    best: tuple[Applicant, ...] = ()
    for first in _shortlist(pools[STANDARD.tier]):
        for company in companies:
            tiers = (first, *company)
            if _total_score(tiers) <= _total_score(best):
                break
            if _is_possible(tiers, budget_bytes):
                best = tiers
                break
    return best


def _total_score(tiers: Sequence[Applicant]) -> float:
    return sum(tier.score * tier.role.importance for tier in tiers)


def _is_possible(tiers: Sequence[Applicant], budget_bytes: int) -> bool:
    """Whether they fit, are different models, none better than the first, and fast is fast."""
    if sum(tier.total_bytes for tier in tiers) > budget_bytes:
        return False
    if len({tier.candidate.model for tier in tiers}) < len(tiers):
        return False
    standard = tiers[0]
    return all(
        (tier.candidate.quality or 0) <= (standard.candidate.quality or 0)
        and (tier.role is not FAST or tier.generation_tps > standard.generation_tps)
        for tier in tiers[1:]
    )


def _shortlist(pool: Iterable[Applicant]) -> list[Applicant]:
    """Those for whom fewer than three others are smaller and both better and as fast.

    `pool` comes sorted by score, best first, and so does the result.
    """
    kept: list[Applicant] = []
    for applicant in pool:
        above = sum(
            other.total_bytes <= applicant.total_bytes
            and other.generation_tps >= applicant.generation_tps
            for other in kept
        )
        if above < _DEPTH:
            kept.append(applicant)
    return kept


def _missing(
    tiers: Sequence[Applicant], pools: dict[str, list[Applicant]], budget_bytes: int
) -> Iterable[MissingTier]:
    left_bytes = budget_bytes - sum(tier.total_bytes for tier in tiers)
    taken = {tier.candidate.model for tier in tiers}
    for role in ROLES:
        if any(tier.role is role for tier in tiers):
            continue
        free = [each for each in pools[role.tier] if each.candidate.model not in taken]
        smallest = min((each.total_bytes for each in free), default=None)
        yield MissingTier(
            tier=role.tier,
            absence=_absence(role, free, tiers, left_bytes, budget_bytes),
            smallest_bytes=smallest,
            left_bytes=left_bytes,
        )


def _absence(
    role: Role,
    free: Sequence[Applicant],
    tiers: Sequence[Applicant],
    left_bytes: int,
    budget_bytes: int,
) -> Absence:
    if not free:
        return Absence.NO_CANDIDATE
    fitting = [each for each in free if each.total_bytes <= left_bytes]
    if fitting and role is FAST and tiers:
        return Absence.NOTHING_FASTER
    if tiers and min(each.total_bytes for each in free) <= budget_bytes:
        return Absence.BETTER_WITHOUT
    return Absence.NO_ROOM
