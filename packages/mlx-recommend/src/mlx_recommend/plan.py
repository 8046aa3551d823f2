"""The tiers of a stack, chosen together under one budget (decision 0041)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product

from mlx_catalog import ModelRole
from mlx_hwprobe import HardwareProfile
from mlx_recommend.candidates import Candidate
from mlx_recommend.reading import (
    MOST_SHARE,
    READING_TIERS,
    ReadingTier,
    choose_reading,
    reading_options,
)
from mlx_recommend.score import Intent
from mlx_recommend.tier_kinds import (
    FAST,
    LONG_CONTEXT,
    STANDARD,
    TIER_KINDS,
    WORTH_ASKING,
    Option,
    TierKind,
    is_eligible,
    option_of,
)

_OPTION_DEPTH = 3
"""Tiers serve different models, so the third best for its size can still be in the best plan."""
_PAIR_DEPTH = 12
"""The same for pairs, which also have to suit the standard tier."""


_LENGTHS = tuple(1024 * k for k in (8, 16, 24, 32, 48, 64, 96, 128, 192, 256))
"""The contexts that a tier is stretched through."""
_ROOM_TO_WORK = {Intent.BALANCED: (32_768,), Intent.AGENT_FLEET: (131_072, 98_304, 65_536)}
"""The contexts that the standard tier is given if a smaller long-context model makes room."""
_GIVES_WAY = 0.8
"""That model scores at least this share of the one that it replaces."""

LEAST_TOKENS = {Intent.BALANCED: 0, Intent.AGENT_FLEET: 32_768}
"""The shortest context of any tier, where any model can: an agent's first prompt is 15,000 to
25,000 tokens."""


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
    NO_SHARE = "no-share"
    """The smallest suitable model takes more of the budget than such a tier may."""
    NOTHING_TOGETHER = "nothing-together"
    """No model that is too large for the first of several Macs runs on all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MissingTier:
    """A tier that the plan does without.

    Attributes:
        smallest_bytes: What the smallest suitable model would take, where there is one.
        left_bytes: What the plan leaves of the budget; with `NO_SHARE`, what it may take.
    """

    tier: str
    absence: Absence
    smallest_bytes: int | None
    left_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """The tiers that serve best together.

    Attributes:
        tiers: Those that chat, in the order of importance; none where not even the smallest model
            fits.
        missing: The usual tiers that are not there, and those that were asked for.
        reading: The tiers that were asked for beside those that chat.
        ranking: Every candidate as the standard tier, best score first.
    """

    intent: Intent
    budget_bytes: int
    tiers: tuple[Option, ...]
    missing: tuple[MissingTier, ...]
    ranking: tuple[Option, ...]
    reading: tuple[ReadingTier, ...] = ()

    @property
    def chat_budget_bytes(self) -> int:
        """What is left of the budget for the tiers that chat."""
        return self.budget_bytes - sum(each.total_bytes for each in self.reading)

    @property
    def total_bytes(self) -> int:
        """The memory of all tiers together, each at its full context."""
        return _total_bytes(self.tiers) + sum(each.total_bytes for each in self.reading)

    @property
    def score(self) -> float:
        """The tiers' scores, each times its share.

        A bigger budget makes it smaller only where the long-context tier of agents gives way.
        """
        return _total_score(self.tiers)


def make_plan(
    candidates: Sequence[Candidate],
    hardware: HardwareProfile,
    *,
    budget_bytes: int,
    intent: Intent = Intent.BALANCED,
    context_tokens: int | None = None,
    concurrency: int = 1,
    roles: Sequence[ModelRole] = (),
) -> TierPlan:
    """The best plan within the budget: the tiers together, each at its context, never exceed it.

    Args:
        context_tokens: The context of every tier; None takes each kind's own, and stretches it as
            far as the budget goes once the models are chosen.
        concurrency: Requests that each tier serves side by side.
        roles: Those of `READING_TIERS` that get a tier as well, and their share of the budget
            first.
    """
    reading, absent = _reading_tiers(candidates, hardware, budget_bytes, roles)
    chosen = _chat_plan(
        candidates,
        hardware,
        budget_bytes=budget_bytes - sum(each.total_bytes for each in reading),
        intent=intent,
        context_tokens=context_tokens,
        concurrency=concurrency,
    )
    missing = (*chosen.missing, *absent)
    return replace(chosen, budget_bytes=budget_bytes, reading=reading, missing=missing)


def _reading_tiers(
    candidates: Sequence[Candidate],
    hardware: HardwareProfile,
    budget_bytes: int,
    roles: Sequence[ModelRole],
) -> tuple[tuple[ReadingTier, ...], tuple[MissingTier, ...]]:
    """A tier for each role, and the roles that there is none for."""
    found, missing = list[ReadingTier](), list[MissingTier]()
    for role in dict.fromkeys(roles):
        options = reading_options(candidates, role, hardware)
        best = choose_reading(options, budget_bytes)
        if best is not None:
            found.append(best)
            continue
        missing.append(
            MissingTier(
                tier=READING_TIERS[role],
                absence=Absence.NO_SHARE if options else Absence.NO_CANDIDATE,
                smallest_bytes=min((each.total_bytes for each in options), default=None),
                left_bytes=int(budget_bytes * MOST_SHARE),
            )
        )
    return tuple(found), tuple(missing)


def _chat_plan(
    candidates: Sequence[Candidate],
    hardware: HardwareProfile,
    *,
    budget_bytes: int,
    intent: Intent,
    context_tokens: int | None,
    concurrency: int,
) -> TierPlan:
    """The best plan of tiers that chat."""
    chatting = [candidate for candidate in candidates if candidate.entry.role.chats]

    def option(candidate: Candidate, kind: TierKind, planned_tokens: int) -> Option | None:
        return option_of(
            candidate,
            kind,
            hardware,
            intent=intent,
            context_tokens=context_tokens,
            planned_tokens=planned_tokens,
            concurrency=concurrency,
        )

    def plan(least_tokens: int) -> tuple[TierPlan, Sequence[Option]]:
        def options(kind: TierKind) -> list[Option]:
            tokens = max(kind.context_tokens, least_tokens)
            rated = (option(candidate, kind, tokens) for candidate in chatting)
            known = [each for each in rated if each is not None]
            return sorted(known, key=lambda o: (-o.score, o.total_bytes, o.candidate.model))

        ranking = options(STANDARD)
        pools = {
            kind.name: [
                each
                for each in (ranking if kind is STANDARD else options(kind))
                if is_eligible(
                    each, intent=intent, context_tokens=context_tokens, least_tokens=least_tokens
                )
            ]
            for kind in TIER_KINDS
        }
        tiers = _best_combination(_combinations(pools), budget_bytes)
        made = TierPlan(
            intent=intent,
            budget_bytes=budget_bytes,
            tiers=tiers,
            missing=tuple(_missing(tiers, pools, budget_bytes)),
            ranking=tuple(ranking),
        )
        return made, pools[LONG_CONTEXT.name]

    chosen, long_contexts = plan(LEAST_TOKENS[intent])
    if not chosen.tiers:
        chosen, long_contexts = plan(0)
    if context_tokens is not None:
        return chosen
    tiers = chosen.tiers
    tiers = _with_room_to_work(tiers, _ROOM_TO_WORK[intent], long_contexts, option, budget_bytes)
    return replace(chosen, tiers=_stretched(tiers, option, budget_bytes))


type _MakeOption = Callable[[Candidate, TierKind, int], Option | None]


def _with_room_to_work(
    tiers: tuple[Option, ...],
    lengths: Sequence[int],
    long_contexts: Sequence[Option],
    option: _MakeOption,
    budget_bytes: int,
) -> tuple[Option, ...]:
    """The tiers with the longest context of the standard one that the long-context one leaves.

    People and agents work in the standard tier: the other takes the best model that makes room.

    Args:
        lengths: The contexts that are worth it, the longest first.
        long_contexts: What could be the long-context tier, best score first.
    """
    chosen = next((tier for tier in tiers if tier.kind is LONG_CONTEXT), None)
    if chosen is None:
        return tiers
    standard = tiers[0]
    smaller = [each for each in long_contexts if each.score >= _GIVES_WAY * chosen.score]
    for tokens in lengths:
        longer = _longer(standard, option, tokens)
        if longer is None or _context(longer) < tokens:
            continue
        for each in (chosen, *smaller):
            found = tuple(
                longer if tier is standard else each if tier is chosen else tier for tier in tiers
            )
            if _total_bytes(found) <= budget_bytes and _is_sensible(found):
                return found
    return tiers


def _stretched(
    tiers: Sequence[Option], option: _MakeOption, budget_bytes: int
) -> tuple[Option, ...]:
    """The tiers with longer contexts, the shortest first, as long as the budget has room."""
    found, done = list(tiers), set[str]()
    while growing := [tier for tier in found if tier.kind.name not in done]:
        tier = min(growing, key=_context)
        now = _context(tier)
        tokens = next((length for length in _LENGTHS if length > now), now)
        longer = _longer(tier, option, tokens)
        others = _total_bytes(found) - tier.total_bytes
        if longer is None or others + longer.total_bytes > budget_bytes:
            done.add(tier.kind.name)
        else:
            found[found.index(tier)] = longer
    return tuple(found)


def _longer(tier: Option, option: _MakeOption, tokens: int) -> Option | None:
    """The tier with a longer context, at most what it may have; None where it has that already.

    Its score stays the one that it was chosen by.
    """
    longest = min(tokens, tier.kind.longest_tokens, tier.candidate.longest_tokens)
    if longest <= _context(tier):
        return None
    longer = option(tier.candidate, tier.kind, longest)
    return longer and replace(longer, score=tier.score, components=tier.components)


def _context(tier: Option) -> int:
    return tier.estimate.workload.context_tokens


def _best_combination(
    combinations: Iterable[tuple[Option, ...]], budget_bytes: int
) -> tuple[Option, ...]:
    """The tiers that a walk from the smallest combination to the budget arrives at.

    On the way a combination replaces a smaller one only if its scores add up to more, no tier is
    lost, and the standard tier's quality is no less: so none of the three ever falls with a bigger
    budget. What is walked doesn't depend on the budget.
    """
    best: tuple[Option, ...] = ()
    for tiers in sorted(combinations, key=lambda each: (_total_bytes(each), -_total_score(each))):
        if _total_bytes(tiers) > budget_bytes:
            break
        if not best or (
            len(tiers) >= len(best)
            and _quality(tiers[0]) >= _quality(best[0])
            and _total_score(tiers) > _total_score(best)
        ):
            best = tiers
    return best


def _combinations(pools: dict[str, list[Option]]) -> Iterator[tuple[Option, ...]]:
    """A standard tier with nothing, a fast one, a long-context one or both with it."""
    fast, long_context = (_pareto_options(pools[kind.name]) for kind in (FAST, LONG_CONTEXT))
    singles = [(option,) for option in (*fast, *long_context)]
    pairs = _pareto_pairs(pair for pair in product(fast, long_context) if _are_different(pair))
    for standard in _pareto_options(pools[STANDARD.name]):
        for others in ((), *singles, *pairs):
            tiers = (standard, *others)
            if _is_sensible(tiers):
                yield tiers


def _pareto_options(pool: Iterable[Option]) -> list[Option]:
    """The options that fewer than `_OPTION_DEPTH` others beat in size, score and speed at once.

    `pool` comes sorted by score, best first, and so does the result.
    """
    kept: list[Option] = []
    for option in pool:
        above = sum(
            other.total_bytes <= option.total_bytes
            and other.generation_tps >= option.generation_tps
            for other in kept
        )
        if above < _OPTION_DEPTH:
            kept.append(option)
    return kept


def _pareto_pairs(pairs: Iterable[tuple[Option, ...]]) -> list[tuple[Option, ...]]:
    """The pairs that fewer than `_PAIR_DEPTH` others beat in size and score at once."""
    kept: list[tuple[Option, ...]] = []
    sizes: list[int] = []
    for pair in sorted(pairs, key=_total_score, reverse=True):
        size_bytes = _total_bytes(pair)
        if sum(size <= size_bytes for size in sizes) < _PAIR_DEPTH:
            kept.append(pair)
            sizes.append(size_bytes)
    return kept


def _total_score(tiers: Sequence[Option]) -> float:
    return sum(tier.share * tier.score for tier in tiers)


def _total_bytes(tiers: Sequence[Option]) -> int:
    return sum(tier.total_bytes for tier in tiers)


def _quality(tier: Option) -> float:
    return tier.candidate.quality or 0.0


def _are_different(tiers: Sequence[Option]) -> bool:
    return len({tier.candidate.model for tier in tiers}) == len(tiers)


def _is_sensible(tiers: Sequence[Option]) -> bool:
    """Whether they are different models, none better than the first, and fast is faster."""
    standard = tiers[0]
    return _are_different(tiers) and all(
        _quality(tier) <= _quality(standard)
        and (tier.kind is not FAST or _is_worth_asking(tier, standard))
        for tier in tiers[1:]
    )


def _is_worth_asking(fast: Option, standard: Option) -> bool:
    enough = WORTH_ASKING * _quality(standard)
    return fast.is_faster_than(standard) and _quality(fast) >= enough


def _missing(
    tiers: Sequence[Option], pools: dict[str, list[Option]], budget_bytes: int
) -> Iterable[MissingTier]:
    left_bytes = budget_bytes - _total_bytes(tiers)
    taken = {tier.candidate.model for tier in tiers}
    for kind in TIER_KINDS:
        if any(tier.kind is kind for tier in tiers):
            continue
        sizes = [each.total_bytes for each in pools[kind.name] if each.candidate.model not in taken]
        smallest_bytes = min(sizes, default=None)
        if smallest_bytes is None:
            absence = Absence.NO_CANDIDATE
        elif tiers and kind is FAST and smallest_bytes <= left_bytes:
            absence = Absence.NOTHING_FASTER
        elif tiers and smallest_bytes <= budget_bytes:
            absence = Absence.BETTER_WITHOUT
        else:
            absence = Absence.NO_ROOM
        yield MissingTier(
            tier=kind.name, absence=absence, smallest_bytes=smallest_bytes, left_bytes=left_bytes
        )
