"""Services that exist in arithmetic only, watched by the real decisions as a watchdog would."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mlx_procsup.delivery import (
    AnswerKind,
    DeliveryHistory,
    DeliveryRule,
    TokenAnswer,
    Unreadable,
    Work,
    answered,
    look,
    next_look_s,
)


class Pretended(Protocol):
    """A service whose work is a function of time."""

    def work(self, at: float, /) -> Work | Unreadable:
        """What it says of its work at a time."""
        ...

    def ask(self, at: float, /) -> tuple[float, TokenAnswer]:
        """After how many seconds it answers a request for one token made at a time, and how."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """What a watch over a pretended service came to.

    Attributes:
        wedged_at: When it was found wedged; None where it never was.
        reason: Why.
        notes: What else was said of it.
        asks: When it was asked for a token.
    """

    wedged_at: float | None
    reason: str
    notes: tuple[str, ...]
    asks: tuple[float, ...]


def watch_pretended(
    service: Pretended,
    until_s: float,
    predict_s: Callable[[int | None], float],
    *,
    rule: DeliveryRule | None = None,
    sharing: int = 1,
    unwatched: Sequence[tuple[float, float]] = (),
    lateness_s: Callable[[], float] = lambda: 0.0,
) -> Watched:
    """Watch a service from 0 on, as often as a watchdog does, until it is found wedged.

    Args:
        unwatched: Times in which the watchdog itself doesn't run.
        lateness_s: How much later than it is due each look comes.
    """
    rule = rule or DeliveryRule()
    history, now, answer_at = DeliveryHistory(), 0.0, math.inf
    answer = TokenAnswer(AnswerKind.NOTHING)
    notes: list[str] = []
    asks: list[float] = []
    while now < until_s:
        if now >= answer_at:
            history, finding = answered(history, answer, now, rule)
            notes += [finding.note] if finding.note else []
            answer_at = math.inf
        history, finding = look(history, service.work(now), now, rule, predict_s, sharing=sharing)
        notes += [finding.note] if finding.note else []
        if history.wedged is not None:
            return Watched(now, history.wedged, tuple(notes), tuple(asks))
        if finding.ask_for_s is not None:
            asks.append(now)
            after_s, answer = service.ask(now)
            if after_s > finding.ask_for_s:
                after_s, answer = finding.ask_for_s, TokenAnswer(AnswerKind.NOTHING)
            answer_at = now + after_s
        # an answer is taken at the next look, which comes at the latest when its time is over
        due = now + next_look_s(history, now, rule)
        if history.asked_at is not None:
            due = min(due, max(history.asked_at + history.asked_for_s, now + 0.1))
        now = due + lateness_s()
        for begin, end in unwatched:
            if begin <= now < end:
                now = end
    return Watched(None, "", tuple(notes), tuple(asks))
