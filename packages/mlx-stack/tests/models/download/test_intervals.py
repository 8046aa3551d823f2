import itertools

from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.models.download.intervals import IntervalSet

SIZE = 60
ranges = st.lists(
    st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda pair: (min(pair), max(pair))),
    max_size=12,
)


def offsets(intervals: IntervalSet) -> set[int]:
    return {offset for start, end in intervals for offset in range(start, end)}


@given(ranges)
def test_a_set_of_ranges_holds_just_the_offsets_that_were_added(added: list[tuple[int, int]]):
    intervals = IntervalSet(added)
    expected = {offset for start, end in added for offset in range(start, end)}
    assert offsets(intervals) == expected
    assert intervals.total == len(expected)


@given(ranges)
def test_ranges_that_touch_are_one(added: list[tuple[int, int]]):
    pairs = list(IntervalSet(added))
    assert all(end < start for (_, end), (start, _) in itertools.pairwise(pairs))


@given(ranges)
def test_the_frontier_is_the_first_offset_that_is_missing(added: list[tuple[int, int]]):
    intervals = IntervalSet(added)
    present = offsets(intervals)
    assert intervals.frontier == next(o for o in range(SIZE + 1) if o not in present)


@given(ranges, st.integers(0, SIZE))
def test_holes_are_what_is_missing(added: list[tuple[int, int]], size: int):
    intervals = IntervalSet(added)
    missing = {offset for start, end in intervals.holes(size) for offset in range(start, end)}
    assert missing == set(range(size)) - offsets(intervals)


@given(ranges, st.integers(1, SIZE))
def test_taking_until_nothing_is_left_gives_every_offset_once(
    added: list[tuple[int, int]], most: int
):
    intervals = IntervalSet(added)
    everything = offsets(intervals)
    taken: list[int] = []
    while (piece := intervals.take(most)) is not None:
        assert 0 < piece[1] - piece[0] <= most
        taken += range(*piece)
    assert sorted(taken) == sorted(everything)
    assert intervals.total == 0
