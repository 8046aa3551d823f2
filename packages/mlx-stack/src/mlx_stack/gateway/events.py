"""What happens to the machine, noted in the ledger next to the requests."""

import re
import time
from contextlib import suppress

from mlx_gateway import availability
from mlx_gateway.availability import PUT_ASIDE, READY, RESTART, TROUBLE
from mlx_gateway.ledger import LONGEST_DETAIL, WEDGE, LedgerError, LedgerEvent, write_event
from mlx_gateway.usage import last_events, read_events
from mlx_stack.home import Home
from mlx_stack.stack import Tier

START, STOP, PANIC = availability.START, availability.STOP, availability.PANIC
UPGRADE = "upgrade"
_TOOK = re.compile(r", ready after ([0-9]{1,6}\.[0-9]) s\Z")
_LONGEST_TOOK = 24
_REMEMBERED = 100
_OF_WATCHDOG = {
    "started": START,
    "restored": START,
    "recovered": READY,
    "noticed": TROUBLE,
    "wedged": WEDGE,
    "restarted": RESTART,
    "recycled": RESTART,
    "flapping": "flapping",
    "shed": PUT_ASIDE,
    "clock": "clock",
}
"""What the watchdog says, in the ledger's words; the rest is for its log."""


def note_event(
    home: Home, what: str, service: str = "", detail: str = "", at: float | None = None
) -> None:
    """Note that something happened, now or at a time.

    A ledger that can't be written is the gateway's to name.
    """
    if home.root.is_dir():
        with suppress(LedgerError):
            write_event(home.ledger, LedgerEvent(at or time.time(), what, service, detail))


def note_start(home: Home, service: str, tier: Tier | None, seconds: float | None = None) -> None:
    """Note that a service was started, and what a tier serves from then on.

    Args:
        seconds: How long it took until it was ready; None where nobody waited for that.
    """
    detail = "" if tier is None else what_serves(tier)
    took = "" if seconds is None or not detail else f", ready after {seconds:.1f} s"
    note_event(home, START, service, detail + took)


def what_serves(tier: Tier) -> str:
    """What a tier's speed depends on, as its `START` begins."""
    return f"{tier.model} {tier.quant or '?'}"[: LONGEST_DETAIL - _LONGEST_TOOK]


def is_start_of(event: LedgerEvent, tier: Tier) -> bool:
    """Whether a tier's `START` is of what it serves now."""
    return _TOOK.sub("", event.detail) == what_serves(tier)


def last_start_s(home: Home, service: str, tier: Tier) -> float | None:
    """How long it took last time until a tier was ready; None where nobody noted that.

    Raises:
        LedgerError: When the ledger can't be read.
    """
    for event in last_events(home.ledger, START, service, _REMEMBERED):
        if is_start_of(event, tier):
            took = _TOOK.search(event.detail)
            if took is not None:
                return float(took[1])
    return None


def has_been_ready(home: Home, service: str, since: float) -> bool:
    """Whether a service was seen ready since a time, as far as the ledger can be read."""
    with suppress(LedgerError):
        ready = (START, READY)
        events = read_events(home.ledger, since)
        return any(event.service == service and event.what in ready for event in events)
    return True


def note_watch(home: Home, what: str, service: str | None, since: float | None = None) -> None:
    """Note what the watchdog saw of a service or did; its reasons may quote a log, and stay there.

    Args:
        what: The watchdog's word for it.
        service: None is the machine.
        since: When it began, if that was before now.
    """
    if what in _OF_WATCHDOG and (service or what == "clock"):
        note_event(home, _OF_WATCHDOG[what], service or "", at=since)
