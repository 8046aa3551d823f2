"""The tiers of a stack, chosen together under one budget."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

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
_COMPANY_DEPTH = 12
"""The same for pairs, which also have to suit the standard tier."""


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
        return _total_bytes(self.tiers)

    @property
    def score(self) -> float:
        """The tiers' scores together. A bigger budget never makes it smaller."""
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
    """The plan that a walk from the smallest combination to the budget arrives at.

    On the way a combination replaces a smaller one only if its scores add up to more, no tier is
    lost, and the standard tier's quality is no less: so none of the three ever falls with a bigger
    budget.
    What is walked doesn't depend on the budget.
    """
    company = _company(pools[FAST.tier], pools[LONG_CONTEXT.tier])
    combinations = sorted(
        (
            (_total_bytes(tiers), -_total_score(tiers), tiers)
            for first in _shortlist(pools[STANDARD.tier])
            for others in company
            if _is_sensible(tiers := (first, *others))
        ),
        key=lambda each: each[:2],
    )
    best: tuple[Applicant, ...] = ()
    for total_bytes, _, tiers in combinations:
        if total_bytes > budget_bytes:
            break
        if not best or (
            len(tiers) >= len(best)
            and _quality(tiers[0]) >= _quality(best[0])
            and _total_score(tiers) > _total_score(best)
        ):
            best = tiers
    return best


def _company(
    fast: Sequence[Applicant], long_context: Sequence[Applicant]
) -> list[tuple[Applicant, ...]]:
    """What may stand beside a standard tier: nothing, one tier, or two.

    Of those with as many tiers, only the ones with few smaller and better ones.
    """
    some_fast, some_long = _shortlist(fast), _shortlist(long_context)
    alone = [(each,) for each in (*some_fast, *some_long)]
    pairs = [
        (one, other)
        for one in some_fast
        for other in some_long
        if one.candidate.model != other.candidate.model
    ]
    return [(), *alone, *_thinned(pairs)]


def _thinned(pairs: Sequence[tuple[Applicant, ...]]) -> list[tuple[Applicant, ...]]:
    kept: list[tuple[Applicant, ...]] = []
    sizes: list[int] = []
    for pair in sorted(pairs, key=_total_score, reverse=True):
        size_bytes = _total_bytes(pair)
        if sum(size <= size_bytes for size in sizes) < _COMPANY_DEPTH:
            kept.append(pair)
            sizes.append(size_bytes)
    return kept


def _total_score(tiers: Sequence[Applicant]) -> float:
    return sum(tier.score for tier in tiers)


def _total_bytes(tiers: Sequence[Applicant]) -> int:
    return sum(tier.total_bytes for tier in tiers)


def _quality(tier: Applicant) -> float:
    return tier.candidate.quality or 0.0


def _is_sensible(tiers: Sequence[Applicant]) -> bool:
    """Whether they are different models, none better than the first, and fast is faster."""
    if len({tier.candidate.model for tier in tiers}) < len(tiers):
        return False
    standard = tiers[0]
    return all(
        _quality(tier) <= _quality(standard)
        and (tier.role is not FAST or tier.is_faster_than(standard))
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
    left_bytes = budget_bytes - _total_bytes(tiers)
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
