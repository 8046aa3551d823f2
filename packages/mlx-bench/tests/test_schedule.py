"""When the calibration server emits tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.calibration.schedule import (
    Failure,
    Schedule,
    parse_schedule,
    plan_events,
    spell_schedule,
    true_rate_tps,
)
from mlx_bench.errors import ParametersError

schedules = st.builds(
    Schedule,
    ttft_ms=st.floats(0, 2000),
    tps=st.floats(1, 500),
    jitter=st.floats(0, 0.5),
    burst=st.integers(1, 6),
    grouped=st.integers(1, 4),
    failure=st.sampled_from(Failure),
    refuse=st.sampled_from(["", "seed"]),
)


@given(schedules)
def test_a_schedule_survives_being_a_model_name(schedule: Schedule) -> None:
    assert parse_schedule(spell_schedule(schedule)) == schedule


@given(schedules, st.integers(1, 60))
def test_every_token_is_sent_once_and_the_first_exactly_at_the_ttft(
    schedule: Schedule, tokens: int
) -> None:
    events = plan_events(schedule, tokens=tokens, uncached_tokens=0)
    assert sum(event.tokens for event in events) == tokens
    assert events[0].at_s == pytest.approx(schedule.ttft_ms / 1000)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)


def test_an_even_schedule_has_the_rate_it_says() -> None:
    events = plan_events(Schedule(tps=200), tokens=100, uncached_tokens=0)
    assert true_rate_tps(events) == pytest.approx(200)


def test_prefill_adds_to_the_ttft_what_is_not_cached() -> None:
    schedule = Schedule(ttft_ms=100, prefill_tps=1000)
    assert plan_events(schedule, tokens=1, uncached_tokens=500)[0].at_s == pytest.approx(0.6)


def test_one_token_has_no_rate() -> None:
    assert true_rate_tps(plan_events(Schedule(), tokens=1, uncached_tokens=0)) is None


@pytest.mark.parametrize("text", ["speed=3", "tps", "tps=fast", "tps=0", "jitter=2", "burst=0"])
def test_a_schedule_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ParametersError):
        parse_schedule(text)
