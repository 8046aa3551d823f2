"""Histories of what was seen and what happened, and what share of the time they come to."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.availability import Availability, TimeSpan, availability
from mlx_gateway.ledger import LedgerEvent

DAY = 86_400.0
ALWAYS = [(0.0, DAY)]


def event(at: float, what: str, service: str = "standard") -> LedgerEvent:
    return LedgerEvent(at, what, service)


def standard(
    *events: LedgerEvent, seen: Sequence[TimeSpan] = ALWAYS, since: float = 0.0, until: float = DAY
) -> Availability:
    return availability({"standard": seen}, events, since, until)["standard"]


def test_what_was_there_all_the_time_had_no_outage() -> None:
    assert standard() == Availability(0.0, 1.0, 0, 0.0, 0, 0)


def test_an_outage_lasts_from_the_last_token_to_the_first_healthy_look() -> None:
    found = standard(event(1000, "wedge"), event(1100, "restart"), event(1141, "ready"))
    assert (found.outages, found.longest_outage_s, found.restarts) == (1, 141, 1)
    assert found.share == pytest.approx(1 - 141 / DAY, abs=1e-5)


def test_a_crash_and_a_wedge_at_once_are_one_outage() -> None:
    found = standard(event(1000, "wedge"), event(1010, "trouble"), event(1050, "ready"))
    assert (found.outages, found.longest_outage_s) == (1, 50)


def test_what_happened_to_others_is_theirs() -> None:
    assert standard(event(1000, "wedge", "fast")).outages == 0


def test_a_power_cut_leaves_no_event_and_shows_as_a_gap() -> None:
    found = standard(seen=[(0, 40_000), (43_600, DAY)])
    assert found.outages == 1
    assert found.longest_outage_s == pytest.approx(3600, abs=40)


def test_the_time_in_which_it_was_meant_to_be_stopped_is_no_outage() -> None:
    """`down` in the evening, `up` in the morning: half of the day counts, and was there."""
    found = standard(
        event(10_000, "stop"),
        event(50_000, "start"),
        seen=[(0, 10_000), (50_000, DAY)],
    )
    assert found == Availability(0.0, 1.0, 0, 0.0, 0, 0)


def test_a_restart_of_the_gateway_ends_nothing_on_purpose() -> None:
    seen = {"endpoint": [(0.0, 1000.0), (5000.0, DAY)]}
    events = [event(1000, "stop", "endpoint"), event(5000, "ready", "endpoint")]
    assert availability(seen, events, 0, DAY)["endpoint"].outages == 1
    events = [event(1000, "stop", "gateway"), *events, event(5000, "start", "gateway")]
    assert availability(seen, events, 0, DAY)["endpoint"].outages == 0


def test_an_outage_of_which_nobody_saw_the_end_ends_when_it_was_seen_again() -> None:
    found = standard(event(1000, "wedge"), seen=[(0, 1000), (1200, DAY)])
    assert (found.outages, found.longest_outage_s) == (1, 200)


def test_one_that_goes_on_lasts_until_now() -> None:
    found = standard(event(DAY - 100, "wedge"), seen=[(0, DAY)])
    assert (found.outages, found.longest_outage_s) == (1, 100)


def test_only_the_time_that_was_asked_for_counts() -> None:
    found = standard(
        event(1000, "trouble"), event(1100, "restart"), event(5000, "ready"), since=3000
    )
    assert (found.outages, found.longest_outage_s, found.restarts) == (1, 2000, 0)


def test_a_panic_is_counted_where_it_belongs() -> None:
    assert standard(event(1000, "panic")).panics == 1


def test_too_short_a_time_has_no_share() -> None:
    assert standard(seen=[(DAY, DAY)], since=DAY).share is None


spans = st.lists(st.tuples(st.floats(0, DAY), st.floats(0, DAY)), min_size=1).map(
    lambda pairs: [(min(pair), max(pair)) for pair in pairs]
)
kinds = st.sampled_from(["trouble", "wedge", "ready", "start", "stop", "restart", "other"])


@given(spans, st.lists(st.tuples(st.floats(0, DAY), kinds)), st.floats(0, DAY))
def test_a_share_is_one_and_outages_fit_into_the_time(
    seen: list[TimeSpan], happened: list[tuple[float, str]], since: float
) -> None:
    events = [event(at, what) for at, what in sorted(happened)]
    found = standard(*events, seen=seen, since=since)
    assert found.share is None or 0 <= found.share <= 1
    assert 0 <= found.longest_outage_s <= DAY - since
    assert found.outages == 0 or found.share != 1
    assert replace(found, share=None).to_document()["outages"] == found.outages
