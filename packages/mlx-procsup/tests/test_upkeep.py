"""Memory that crept up, and what ran out: when an idle service is started again."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup.upkeep import Condition, Upkeep, UpkeepRule, look_after

RULE = UpkeepRule(window_s=3600, windows=2, growth=1.25, idle_s=60, pause_s=1800)
GB = 2**30
HOUR = 3600.0
IDLE = Condition(0, 1, is_idle=True, memory_bytes=5 * GB, planned_bytes=8 * GB)


def hours(seen: Condition, count: float, start: float = 0.0) -> Iterator[Condition]:
    """The same condition, looked at every 30 seconds."""
    for number in range(int(count * HOUR / 30)):
        yield replace(seen, at=start + number * 30.0)


def tell(history: Iterable[Condition], upkeep: Upkeep | None = None) -> list[tuple[float, str]]:
    """When a service was started again, in seconds, and why; each start is a new process."""
    upkeep, started, pid = upkeep or Upkeep(), list[tuple[float, str]](), 1
    for seen in history:
        upkeep, why = look_after(upkeep, replace(seen, pid=seen.pid and pid), RULE)
        if why is not None:
            started.append((seen.at, why))
            upkeep, pid = upkeep.done(seen.at), pid + 1
    return started


def test_a_service_that_holds_what_was_planned_stays_however_it_grew() -> None:
    grown = replace(IDLE, memory_bytes=8 * GB)
    assert tell([*hours(IDLE, 2), *hours(grown, 10, 2 * HOUR)]) == []


def test_a_service_whose_floor_stays_above_the_plan_is_started_again_once() -> None:
    grown = replace(IDLE, memory_bytes=9 * GB)
    back = replace(IDLE, memory_bytes=5 * GB)
    history = [*hours(IDLE, 2), *hours(grown, 3, 2 * HOUR), *hours(back, 10, 5 * HOUR)]
    [(at, why)] = tell(history)
    assert 4 * HOUR <= at <= 4 * HOUR + 60
    assert why == (
        "its memory crept up: never less than 9216 MB in 2 h, more than was planned, "
        "and 5120 MB at first"
    )


def test_a_peak_is_no_floor() -> None:
    peak = replace(IDLE, memory_bytes=20 * GB)
    history = list[Condition]()
    for hour in range(12):
        history += hours(IDLE, 1 / 60, hour * HOUR)
        history += hours(peak, 59 / 60, hour * HOUR + 60)
    assert tell(history) == []


def test_what_held_more_than_planned_from_the_beginning_did_not_grow() -> None:
    assert tell(hours(replace(IDLE, memory_bytes=10 * GB), 12)) == []


def test_what_is_loaded_with_the_first_request_is_no_growth() -> None:
    empty = replace(IDLE, memory_bytes=GB, has_worked=False)
    loaded = replace(IDLE, memory_bytes=9 * GB)
    assert tell([*hours(empty, 5), *hours(loaded, 10, 5 * HOUR)]) == []


def test_memory_that_nobody_planned_or_knows_is_not_judged() -> None:
    unplanned = replace(IDLE, planned_bytes=None)
    grown = replace(unplanned, memory_bytes=50 * GB)
    assert tell([*hours(unplanned, 2), *hours(grown, 10, 2 * HOUR)]) == []
    assert tell(hours(replace(IDLE, memory_bytes=None), 10)) == []


def test_one_that_works_is_left_alone_until_it_has_rested_for_a_while() -> None:
    grown = replace(IDLE, memory_bytes=9 * GB)
    busy = replace(grown, is_idle=False)
    history = [*hours(IDLE, 2), *hours(busy, 5, 2 * HOUR), *hours(grown, 1, 7 * HOUR)]
    [(at, _)] = tell(history)
    assert at == 7 * HOUR + 60


def test_a_line_in_the_log_counts_until_the_service_rests() -> None:
    line = replace(IDLE, is_idle=False, exhausted=2, said="no more buffers")
    history = [
        *hours(IDLE, 1),
        replace(line, at=HOUR),
        replace(line, at=HOUR + 30, exhausted=1, said="still none"),
        *hours(IDLE, 1, HOUR + 60),
    ]
    assert tell(history) == [(HOUR + 120, "its log said 3 times: still none")]


def test_one_that_runs_out_again_and_again_is_not_started_again_all_the_time() -> None:
    always = replace(IDLE, exhausted=1, said="no more buffers")
    times = [at for at, _ in tell(hours(always, 4))]
    assert len(times) == 8
    assert all(later - at >= RULE.pause_s for at, later in pairwise(times))


def test_what_another_process_did_is_forgotten() -> None:
    line = replace(IDLE, is_idle=False, exhausted=1, said="no more buffers")
    first, _ = look_after(Upkeep(), line, RULE)
    second, why = look_after(first, replace(IDLE, at=30, pid=2), RULE)
    assert (second.exhausted, why) == (0, None)
    gone, why = look_after(first, Condition(30, None), RULE)
    assert (gone.exhausted, gone.pid, why) == (0, None, None)


@given(
    st.lists(
        st.builds(
            Condition,
            at=st.just(0.0),
            pid=st.sampled_from([None, 1]),
            is_idle=st.booleans(),
            has_worked=st.booleans(),
            memory_bytes=st.none() | st.integers(0, 100 * GB),
            planned_bytes=st.none() | st.integers(0, 50 * GB),
            exhausted=st.integers(0, 2),
        ),
        max_size=200,
    ),
    st.lists(st.floats(1, 2 * HOUR), min_size=200, max_size=200),
)
def test_no_history_ends_one_that_works_or_two_starts_in_a_row(
    looks: list[Condition], steps: list[float]
) -> None:
    now, upkeep, last = 0.0, Upkeep(), float("-inf")
    for seen, step in zip(looks, steps, strict=False):
        now += step
        upkeep, why = look_after(upkeep, replace(seen, at=now), RULE)
        if why is not None:
            assert seen.is_idle
            assert seen.pid is not None
            assert now - last >= RULE.pause_s
            upkeep, last = upkeep.done(now), now
