"""What the ledger's requests tell of the speed of this machine's tiers, and whether it changed.

Only clean requests count: they did not wait, no cache helped them, nothing ran beside them, and
they were long enough.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from mlx_gateway.ledger import LedgerError, LedgerEvent
from mlx_gateway.usage import CleanRequest, clean_requests, read_events, typical
from mlx_recommend import Basis, Measurement
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import START, UPGRADE, is_start_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier

_LEAST = 8
_DAY_S = 86_400
_LEARNED_FROM_S = 30 * _DAY_S
_COMPARED_WITH_S = 60 * _DAY_S
_NOTABLE = 0.15
_ALIKE = 2.0
_FIGURES = {"prompt_tps": "prefill", "generation_tps": "decode"}


@dataclass(frozen=True, slots=True)
class LearnedSpeed:
    """A speed of a tier, as its requests had it.

    Attributes:
        at: When the last of them came, in ISO 8601.
    """

    tier: Tier
    at: str
    measurement: Measurement


@dataclass(frozen=True, slots=True)
class Drift:
    """A speed that is not what it was.

    Attributes:
        figure: "decode" or "prefill".
        change: By which share it changed; negative where it fell.
        since: From when on, in seconds since the epoch.
        cause: The upgrade of an engine with which it changed, such as `vllm-mlx 0.5.0 → 0.6.0`; ""
            where there was none.
    """

    tier: str
    figure: str
    change: float
    since: float
    cause: str


def learned_speeds(opened: OpenStack, now: float) -> tuple[LearnedSpeed, ...]:
    """The speeds of the stack's tiers; of none where there is no ledger or it can't be read.

    Requests count that came since the tier serves what it does, and since the last upgrade of an
    engine.
    """
    found: list[LearnedSpeed] = []
    try:
        stack, events = opened.defined_stack, read_events(opened.home.ledger)
        for tier in () if stack is None else stack.tiers:
            upgrades = [event.at for event in events if event.what == UPGRADE]
            since = max(_serves_since(events, tier), now - _LEARNED_FROM_S, *upgrades)
            if since > now:
                continue
            found += _learned(tier, clean_requests(opened.home.ledger, tier.name, since))
    except (LedgerError, StackError):
        return ()
    return tuple(found)


def find_drifts(opened: OpenStack, now: float) -> Iterator[Drift]:
    """Speeds that changed notably with the last upgrade of an engine, or else in the last week.

    Raises:
        LedgerError: When the ledger can't be read.
        StackError: When the stack file can't be read.
    """
    stack, events = opened.defined_stack, read_events(opened.home.ledger)
    upgrade = next((event for event in reversed(events) if event.what == UPGRADE), None)
    if upgrade is None or upgrade.at < now - _LEARNED_FROM_S:
        upgrade = None
    split = now - 7 * _DAY_S if upgrade is None else upgrade.at
    cause = "" if upgrade is None else upgrade.detail
    for tier in () if stack is None else stack.tiers:
        since = max(_serves_since(events, tier), now - _COMPARED_WITH_S)
        if since > now:
            continue
        requests = clean_requests(opened.home.ledger, tier.name, since)
        before = [each for each in requests if each.at < split]
        after = [each for each in requests if each.at >= split]
        for figure, word in _FIGURES.items():
            was, is_now = (typical(each, figure, least=_LEAST) for each in (before, after))
            if was is None or is_now is None or not 1 / _ALIKE < is_now[1] / was[1] < _ALIKE:
                continue  # prompts of another length have another speed
            change = is_now[0] / was[0] - 1
            if abs(change) >= _NOTABLE:
                yield Drift(tier.name, word, change, split, cause)


def _serves_since(events: tuple[LedgerEvent, ...], tier: Tier) -> float:
    """Since when the tier serves what it does now: 0 for ever, infinity from its next start."""
    since = math.inf
    for event in reversed(events):
        if event.what == START and event.service == tier.name:
            if not is_start_of(event, tier):
                return since
            since = event.at
    return 0.0


def _learned(tier: Tier, requests: tuple[CleanRequest, ...]) -> Iterator[LearnedSpeed]:
    for figure in _FIGURES:
        median = typical(requests, figure, least=_LEAST)
        if median is not None and tier.quant is not None:
            at = datetime.fromtimestamp(requests[-1].at, UTC).isoformat()
            measurement = Measurement(
                basis=Basis.MEASURED,
                quant=tier.quant.value,
                prompt_tokens=median[1],
                source=f"requests up to {at[:10]}",
                **{figure: median[0]},
            )
            yield LearnedSpeed(tier, at, measurement)
