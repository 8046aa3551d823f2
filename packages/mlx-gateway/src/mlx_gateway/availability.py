"""For how much of a time something was there, and how long its longest outage was. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlx_gateway.ledger import BEAT_S, ENDPOINT, WEDGE, LedgerEvent

TROUBLE, READY, START, STOP, RESTART, PANIC = (
    *("trouble", "ready", "start", "stop", "restart", "panic"),
)
PUT_ASIDE = "memory-pressure"
GATEWAY = "gateway"
"""What supervisors call the service that is the endpoint."""
_BEGIN = frozenset({TROUBLE, WEDGE, PUT_ASIDE})
_END = frozenset({READY, START, STOP})
_LATE_S = 1.0
"""How late a beat may be without being an outage."""

type TimeSpan = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Availability:
    """How something did in a time.

    Attributes:
        since: From when on it counts: the beginning of the time, or when it was first seen.
        share: The share of the time in which it was meant to be there and was; None where that is
            too short.
        outages: How often it was not there though it was meant to be.
        longest_outage_s: The longest of these times.
        restarts: How often it was restarted.
        panics: How often the machine panicked over it.
    """

    since: float
    share: float | None
    outages: int
    longest_outage_s: float
    restarts: int
    panics: int

    def to_document(self) -> dict[str, object]:
        """All but the share, as JSON."""
        return {
            "outages": self.outages,
            "longest_outage_s": round(self.longest_outage_s, 1),
            "restarts": self.restarts,
            "panics": self.panics,
        }


def availability(
    seen: Mapping[str, Iterable[TimeSpan]],
    events: Sequence[LedgerEvent],
    since: float,
    until: float,
) -> dict[str, Availability]:
    """How everything that was ever seen did.

    Args:
        seen: When each was seen, from its first beat to its last.
        events: What happened before `until`, in order.
    """
    return {name: _of(name, sorted(spans), events, since, until) for name, spans in seen.items()}


def _of(
    name: str, spans: Sequence[TimeSpan], events: Sequence[LedgerEvent], since: float, until: float
) -> Availability:
    own = [event for event in events if event.service in _names(name)]
    start = max(since, spans[0][0])
    returns = [begin for begin, _ in spans]
    stopped = list(_intervals(own, {STOP}, {START, READY}, [], until))
    out = list(_intervals(own, _BEGIN, _END, returns, until))
    there = _minus([(begin, end + BEAT_S + _LATE_S) for begin, end in spans], out)
    meant = _minus([(start, until)] if until > start else [], stopped)
    missing = [gap for gap in _minus(meant, there) if gap[1] - gap[0] > _LATE_S]
    meant_s, missing_s = _length(meant), _length(missing)
    counts = {
        what: sum(event.what == what and event.at >= since for event in own)
        for what in (RESTART, PANIC)
    }
    return Availability(
        since=start,
        share=round(1 - missing_s / meant_s, 5) if meant_s > 0 else None,
        outages=len(missing),
        longest_outage_s=max((end - begin for begin, end in missing), default=0.0),
        restarts=counts[RESTART],
        panics=counts[PANIC],
    )


def _names(name: str) -> frozenset[str]:
    return frozenset({ENDPOINT, GATEWAY}) if name == ENDPOINT else frozenset({name})


def _intervals(
    events: Sequence[LedgerEvent],
    begin: Iterable[str],
    end: Iterable[str],
    returns: Sequence[float],
    until: float,
) -> Iterator[TimeSpan]:
    """From each event of the one kind to the next of the other, or until it was seen again."""
    begins, ends = set(begin), set(end)
    for event in events:
        if event.what not in begins or (event.what == STOP and event.service == ENDPOINT):
            continue  # the gateway ends when it is restarted, too; who ends it for good says so
        later = [each.at for each in events if each.what in ends and each.at > event.at]
        later += [at for at in returns if at > event.at]
        yield event.at, min(later, default=until)


def _minus(spans: Iterable[TimeSpan], others: Iterable[TimeSpan]) -> list[TimeSpan]:
    """What is in one of the spans and in none of the others, in order and without overlaps."""
    left = _joined(spans)
    for begin, end in _joined(others):
        left = [
            part
            for one in left
            for part in ((one[0], min(one[1], begin)), (max(one[0], end), one[1]))
            if part[1] > part[0]
        ]
    return left


def _joined(spans: Iterable[TimeSpan]) -> list[TimeSpan]:
    joined: list[TimeSpan] = []
    for begin, end in sorted(span for span in spans if span[1] > span[0]):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _length(spans: Iterable[TimeSpan]) -> float:
    return sum(end - begin for begin, end in spans)
