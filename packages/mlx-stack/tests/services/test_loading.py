"""How far a load is: from how long it took last time, or from what it holds; else nothing."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.gateway.events import START, last_start_s, note_event, note_start
from mlx_stack.home import Home
from mlx_stack.services.loading import LoadProgress, describe_wait, foresee
from mlx_stack.stack import Tier

GB = 10**9


def test_the_time_of_the_last_load_says_most() -> None:
    load = foresee(6, held_bytes=9 * GB, needs_bytes=10 * GB, usual_s=24)

    assert load == LoadProgress(6, 0.25, 18)
    assert load.describe() == "loading for 6 s, 25 %, about 18 s left"


def test_how_long_the_last_load_took_is_of_the_same_model(tmp_path: Path) -> None:
    home = Home(tmp_path)
    fast = Tier(name="fast", model="m", quant="int4", source="m", port=1, vllm_flags={})
    other = Tier(name="fast", model="m", quant="int8", source="m", port=1, vllm_flags={})
    assert last_start_s(home, "fast", fast) is None
    note_start(home, "fast", fast, 24.0)
    note_start(home, "fast", other, 48.0)
    note_start(home, "slow", fast, 3.0)
    note_start(home, "fast", fast)
    note_event(home, START, "fast")

    assert last_start_s(home, "fast", fast) == 24.0
    assert last_start_s(home, "fast", other) == 48.0


def test_a_first_load_is_told_by_the_memory_that_it_holds() -> None:
    assert foresee(6, held_bytes=GB, needs_bytes=4 * GB, usual_s=None) == LoadProgress(6, 0.25, 18)


def test_one_that_takes_longer_than_last_time_promises_no_end() -> None:
    load = foresee(30, held_bytes=2 * GB, needs_bytes=4 * GB, usual_s=24)

    assert load == LoadProgress(30, 0.5)
    assert load.describe() == "loading for 30 s, 50 %"


def test_what_nothing_tells_is_not_guessed() -> None:
    assert foresee(1, held_bytes=None, needs_bytes=4 * GB, usual_s=None) == LoadProgress(1)
    assert foresee(1, held_bytes=10**6, needs_bytes=4 * GB, usual_s=None) == LoadProgress(1)
    assert foresee(9, held_bytes=5 * GB, needs_bytes=4 * GB, usual_s=None) == LoadProgress(9, 0.99)


@given(
    seconds=st.floats(0, 1e5),
    held=st.none() | st.integers(0, 2**40),
    needs=st.integers(0, 2**40),
    usual=st.none() | st.floats(0, 1e5),
)
def test_it_is_never_done_before_it_is_and_never_negative(
    seconds: float, held: int | None, needs: int, usual: float | None
) -> None:
    load = foresee(seconds, held_bytes=held, needs_bytes=needs, usual_s=usual)

    assert load.progress is None or 0 <= load.progress < 1
    assert load.left_s is None or load.left_s >= 0


def test_several_make_room_together() -> None:
    assert describe_wait(["a"]) == "waits until a makes room in memory"
    assert describe_wait(["a", "b"]) == "waits until a and b make room in memory"
