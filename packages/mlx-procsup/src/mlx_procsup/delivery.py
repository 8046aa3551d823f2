"""Whether a service delivers, whatever else it answers: pure, one look at a time (decision 0018).

A service that serves models can answer every small question although no client gets a token. What
counts is that its work progresses: something has been read or written. How long it may go without
progress depends on what it has to read, which the caller predicts. Before a service counts as
wedged, it is asked for one token. If it produces one, it delivers, whatever its status says.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class RequestInFlight:
    """A request that a service has received and not yet answered.

    Attributes:
        name: Distinguishes it from other requests.
        size: The tokens of its prompt; None if the service doesn't say.
        read: The share of them that has been read, as far as the service says.
        written: The tokens of the answer so far.
    """

    name: str
    size: int | None = None
    read: float = 0.0
    written: int = 0


@dataclass(frozen=True, slots=True)
class Work:
    """What a service reports about its work.

    Attributes:
        running: The requests that it is working on.
        waiting: The requests that it has not begun.
        written: The tokens of all answers that have ended.
        rests: Its model is not loaded, and a question would load it.
        failures: How many answers in a row were errors, as its clients saw them.
        oldest_s: How long ago it received the oldest of its requests; None if it doesn't say.
        held_bytes: The memory that it says it holds; None if it doesn't say.
    """

    running: tuple[RequestInFlight, ...] = ()
    waiting: tuple[RequestInFlight, ...] = ()
    written: int = 0
    rests: bool = False
    failures: int = 0
    oldest_s: float | None = None
    held_bytes: int | None = None

    @property
    def in_flight(self) -> int:
        """How many requests wait for it."""
        return len(self.running) + len(self.waiting)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A service doesn't report its work, or the report is invalid."""

    reason: str


class AnswerKind(StrEnum):
    """The result of asking for one token."""

    TOKEN = "token"  # noqa: S105 - the kind that a model writes
    ERROR = "error"
    NOTHING = "nothing"
    REFUSED = "refused"
    """The question was at fault, which says nothing about the service."""


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The result of asking for one token; `words` describe the error."""

    kind: AnswerKind
    words: str = ""


@dataclass(frozen=True, slots=True)
class DeliveryRule:
    """When a service that answers counts as wedged.

    Attributes:
        idle_look_s: How often an idle service is looked at. No more than this counts between two
            looks, since time in which no one looked proves nothing.
        busy_look_s: How often a service is looked at if its work doesn't progress.
        ask_look_s: How often a service is looked at after it was asked for a token.
        floor_s: How long a service may go without progress in any case.
        first_s: The additional time until its first token, for which kernels are compiled.
        doubt_s: How long the token may take that it is asked for at the end of its grace period.
        ask_every_s: How often an idle service is asked for a token; None for never.
        errors: After this many errors in a row to that question, every answer counts as an error.
        errors_apart_s: The time between two such questions.
        failures: After this many failures in a row, as its clients saw them, it is asked.
        unreadable: After this many unreadable looks, that is reported.
    """

    idle_look_s: float = 12.0
    busy_look_s: float = 4.0
    ask_look_s: float = 0.5
    floor_s: float = 60.0
    first_s: float = 120.0
    doubt_s: float = 5.0
    ask_every_s: float | None = 300.0
    errors: int = 3
    errors_apart_s: float = 1.0
    failures: int = 5
    unreadable: int = 3


@dataclass(frozen=True, slots=True)
class DeliveryHistory:
    """What is remembered of one process from look to look. Times are on a monotonic clock.

    Attributes:
        seen_at: When it was last looked at.
        last: What it reported then; None if the report was unreadable.
        still_s: How long it has had work without progress, as far as was seen.
        owed_s: How long the prompts that it received in that time take to read, as predicted.
        owing: Those prompts.
        sharing: The largest number of services that computed at once in that time.
        proven_at: When it was last known to deliver, or first looked at.
        has_delivered: Whether it has ever been seen to produce a token.
        asked_at: Since when it has been asked for a token; None while it isn't.
        asked_for_s: How long that may take.
        last_asked_at: When it was last asked.
        stuck: How many requests made no progress when it was asked because of them.
        errors: How many such questions in a row it has answered with an error.
        excused: Failures that its clients saw, and that it was asked about.
        unreadable: How many looks in a row were unreadable.
        doubted: It lost requests that had made no progress.
        wedged: Why it counts as wedged; None while it doesn't.
        told: What has been reported about it already.
    """

    seen_at: float | None = None
    last: Work | None = None
    still_s: float = 0.0
    owed_s: float = 0.0
    owing: frozenset[str] = frozenset()
    sharing: int = 1
    proven_at: float | None = None
    has_delivered: bool = False
    asked_at: float | None = None
    asked_for_s: float = 0.0
    last_asked_at: float = float("-inf")
    stuck: int = 0
    errors: int = 0
    excused: int = 0
    unreadable: int = 0
    doubted: bool = False
    wedged: str | None = None
    told: frozenset[str] = field(default=frozenset())

    @property
    def is_busy(self) -> bool:
        """Whether it had requests when it last reported its work."""
        return self.last is not None and self.last.in_flight > 0

    def grace_s(self, rule: DeliveryRule) -> float:
        """How long its current work may go without progress."""
        return rule.floor_s + self.first_s(rule) + self.owed_s * self.sharing

    def first_s(self, rule: DeliveryRule) -> float:
        """How much longer its next token may take because it is the first."""
        return 0.0 if self.has_delivered else rule.first_s

    def forgiven(self) -> "DeliveryHistory":
        """The history after a time that can't be accounted for: sleep, or another clock."""
        return replace(self.moved(), last=None, seen_at=None)

    def moved(self, **others: object) -> "DeliveryHistory":
        """The history with nothing held against its current work."""
        fresh = {"still_s": 0.0, "owed_s": 0.0, "owing": frozenset[str](), "sharing": 1, "stuck": 0}
        return replace(self, **fresh, doubted=False, **others)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class DeliveryFinding:
    """What follows from a look or from an answer.

    Attributes:
        ask_for_s: Ask it for one token, and wait this long; None for not now.
        note: What is to be reported, once; "" for nothing.
    """

    ask_for_s: float | None = None
    note: str = ""


_NOTHING = DeliveryFinding()


def look(
    history: DeliveryHistory,
    said: Work | Unreadable,
    now: float,
    rule: DeliveryRule,
    predict_s: Callable[[int | None], float],
    *,
    sharing: int = 1,
) -> tuple[DeliveryHistory, DeliveryFinding]:
    """What to remember of a service after a look at its work, and what to do.

    Args:
        predict_s: The longest time that reading a prompt of a given number of tokens may take
            without other work; None is a prompt of unknown length.
        sharing: How many services compute at the same time on the same machine.
    """
    if isinstance(said, Unreadable):
        return _look_in_vain(history, said, now, rule)
    before, passed_s = history.last, _passed_s(history, now, rule)
    history = replace(
        history,
        seen_at=now,
        last=said,
        unreadable=0,
        proven_at=now if history.proven_at is None else history.proven_at,
        has_delivered=history.has_delivered or said.written > 0,
        excused=min(history.excused, said.failures),
    )
    if before is not None and said.written < before.written:  # another process: begin again
        return DeliveryHistory(now, said, proven_at=now, asked_at=history.asked_at), _NOTHING
    if before is not None and _has_moved(before, said):
        moved = {"proven_at": now, "has_delivered": True, "errors": 0, "wedged": None}
        history = history.moved(**moved)
    elif said.in_flight and before is not None:
        if not before.in_flight:  # it came since then
            passed_s = min(passed_s, said.oldest_s or 0.0)
        history = replace(history, still_s=history.still_s + passed_s)
    elif not said.in_flight:
        lost = history.still_s >= rule.floor_s / 2
        history = replace(history.moved(), doubted=history.doubted or lost)
    history = _owing(history, said, predict_s, sharing)
    return _judge(history, said, now, rule)


def answered(
    history: DeliveryHistory, answer: TokenAnswer, now: float, rule: DeliveryRule
) -> tuple[DeliveryHistory, DeliveryFinding]:
    """What to remember of a service after it was asked for a token."""
    asked_at, is_still = history.asked_at, history.still_s >= history.grace_s(rule) - rule.doubt_s
    history = replace(history, asked_at=None)
    match answer.kind:
        case AnswerKind.TOKEN:
            note = ""
            if is_still:
                note = "it reports no progress, but a test request succeeds: its report is ignored"
            proven = {"proven_at": now, "has_delivered": True, "errors": 0, "wedged": None}
            excused = history.last.failures if history.last is not None else 0
            return _telling(history.moved(**proven, excused=excused), note)
        case AnswerKind.REFUSED:
            note = f"it can't be asked for a token: {answer.words}"
            return _telling(replace(history, proven_at=now, doubted=False, errors=0), note)
        case AnswerKind.ERROR:
            errors = history.errors + 1
            if errors >= rule.errors:
                return _wedged(replace(history, errors=errors), _failing(answer.words)), _NOTHING
            return replace(history, errors=errors), _NOTHING
        case AnswerKind.NOTHING:
            if is_still:
                return _wedged(history, _stuck(history, rule)), _NOTHING
            has_moved = asked_at is None or (history.proven_at or 0.0) > asked_at
            claims_idle = history.last is not None and not history.last.in_flight
            if claims_idle and not has_moved:
                return _wedged(history, _silent(history)), _NOTHING
            return history, _NOTHING


def next_look_s(history: DeliveryHistory, now: float, rule: DeliveryRule) -> float:
    """The time until the next look."""
    if history.asked_at is not None:
        return rule.ask_look_s
    if history.errors and history.wedged is None:
        return rule.errors_apart_s
    is_calm = not history.still_s and not history.wedged
    is_idle = history.last is None or not history.last.in_flight
    if not (is_calm and is_idle):
        return rule.busy_look_s
    if rule.ask_every_s is None or history.proven_at is None:
        return rule.idle_look_s
    ask_in_s = history.proven_at + rule.ask_every_s - now
    return min(rule.idle_look_s, max(ask_in_s, rule.ask_look_s))


def _passed_s(history: DeliveryHistory, now: float, rule: DeliveryRule) -> float:
    if history.seen_at is None:
        return 0.0
    return min(max(now - history.seen_at, 0.0), rule.idle_look_s)


def _look_in_vain(
    history: DeliveryHistory, said: Unreadable, now: float, rule: DeliveryRule
) -> tuple[DeliveryHistory, DeliveryFinding]:
    count = history.unreadable + 1
    if count < rule.unreadable:
        return replace(history, unreadable=count), _NOTHING
    # what can't be known is no reproach; what was proven by a question stays
    history = replace(history.moved(), seen_at=now, last=None, unreadable=count)
    note = f"its progress is unknown ({said.reason}): only its answers are checked"
    return _telling(history, note, topic="unreadable")


def _has_moved(before: Work, now: Work) -> bool:
    """Whether anything was read or written between two looks."""
    if now.written > before.written:
        return True
    known = {request.name: request for request in (*before.running, *before.waiting)}
    for request in now.running:
        earlier = known.get(request.name, RequestInFlight(request.name))
        if request.written > earlier.written or request.read > earlier.read:
            return True
    return False


def _owing(
    history: DeliveryHistory,
    said: Work,
    predict_s: Callable[[int | None], float],
    sharing: int,
) -> DeliveryHistory:
    """Add what the prompts take that are being read, each once, whatever becomes of them.

    A client that leaves and comes back gives the service more to read; nothing of that is late.
    """
    reading: Iterable[RequestInFlight] = [each for each in said.running if not each.written]
    if not said.running and said.waiting:  # the next, which may have been begun by now
        sizes = [each.size for each in said.waiting]
        largest = None if None in sizes else max(size for size in sizes if size is not None)
        reading = [RequestInFlight("the next", largest)]
    new = [each for each in reading if each.name not in history.owing]
    return replace(
        history,
        owed_s=history.owed_s + sum(predict_s(each.size) for each in new),
        owing=history.owing | {each.name for each in new},
        sharing=max(history.sharing, sharing),
    )


def _judge(
    history: DeliveryHistory, said: Work, now: float, rule: DeliveryRule
) -> tuple[DeliveryHistory, DeliveryFinding]:
    grace_s, is_asked = history.grace_s(rule), history.asked_at is not None
    if is_asked:
        # the question is among what doesn't move
        if history.still_s >= grace_s:
            history = replace(history, stuck=history.stuck or said.in_flight)
            return _wedged(history, _stuck(history, rule)), _NOTHING
        return history, _NOTHING
    if history.wedged is None and history.still_s >= grace_s - rule.doubt_s:
        return _asking(replace(history, stuck=said.in_flight), now, rule.doubt_s)
    if said.rests or history.wedged is not None:
        return history, _NOTHING
    since_s = now - (history.proven_at if history.proven_at is not None else now)
    is_due = rule.ask_every_s is not None and since_s >= rule.ask_every_s
    fails = history.errors > 0 or said.failures >= history.excused + rule.failures
    if now - history.last_asked_at < rule.errors_apart_s:
        return history, _NOTHING
    if fails or ((history.doubted or is_due) and not said.in_flight):
        return _asking(history, now, rule.floor_s + history.first_s(rule))
    return history, _NOTHING


def _asking(
    history: DeliveryHistory, now: float, wait_s: float
) -> tuple[DeliveryHistory, DeliveryFinding]:
    history = replace(history, asked_at=now, asked_for_s=wait_s, last_asked_at=now)
    return history, DeliveryFinding(ask_for_s=wait_s)


def _wedged(history: DeliveryHistory, reason: str) -> DeliveryHistory:
    return replace(history, wedged=reason)


def _telling(
    history: DeliveryHistory, note: str, topic: str = ""
) -> tuple[DeliveryHistory, DeliveryFinding]:
    """A finding that says something, but only the first time."""
    topic = topic or note
    if not note or topic in history.told:
        return history, _NOTHING
    return replace(history, told=history.told | {topic}), DeliveryFinding(note=note)


def _stuck(history: DeliveryHistory, rule: DeliveryRule) -> str:
    count = history.stuck
    requests = "1 request" if count == 1 else f"{count} requests"
    return (
        f"it answers, but {requests} in flight made no progress for {history.still_s:.0f} s, "
        f"and at most {history.grace_s(rule):.0f} s were expected"
    )


def _failing(words: str) -> str:
    return f"it answers, but every request for a token fails: {words}"


def _silent(history: DeliveryHistory) -> str:
    return (
        "it reports that it is idle, but hasn't answered a request for one token for "
        f"{history.asked_for_s:.0f} s"
    )
