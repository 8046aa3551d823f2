"""What happens to the machine, noted in the ledger next to the requests."""

import time
from contextlib import suppress

from mlx_gateway import availability
from mlx_gateway.availability import PUT_ASIDE, READY, RESTART, TROUBLE
from mlx_gateway.ledger import LONGEST_DETAIL, WEDGE, LedgerError, LedgerEvent, write_event
from mlx_stack.home import Home
from mlx_stack.stack import Tier

START, STOP = availability.START, availability.STOP
UPGRADE = "upgrade"
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


def note_start(home: Home, service: str, tier: Tier | None) -> None:
    """Note that a service was started, and what a tier serves from then on."""
    note_event(home, START, service, "" if tier is None else what_serves(tier))


def what_serves(tier: Tier) -> str:
    """What a tier's speed depends on, as its `START` says it."""
    return f"{tier.model} {tier.quant or '?'}"[:LONGEST_DETAIL]


def note_watch(home: Home, what: str, service: str | None, since: float | None = None) -> None:
    """Note what the watchdog saw of a service or did; its reasons may quote a log, and stay there.

    Args:
        what: The watchdog's word for it.
        service: None is the machine.
        since: When it began, if that was before now.
    """
    if what in _OF_WATCHDOG and (service or what == "clock"):
        note_event(home, _OF_WATCHDOG[what], service or "", at=since)
