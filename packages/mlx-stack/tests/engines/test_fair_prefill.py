"""Whose prompt an engine reads first, as a decision about lengths."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.engines.fair_prefill import goes_first, share

LENGTHS = st.lists(st.integers(1, 200_000), max_size=8)


def test_a_short_question_is_read_before_the_rest_of_two_long_prompts():
    assert goes_first([15_000, 600], [9_000, 14_000]) == 1


def test_a_prompt_that_is_nearly_read_is_not_interrupted():
    assert goes_first([600], [100, 14_000]) is None


def test_the_first_prompts_are_read_side_by_side():
    assert goes_first([600, 16_000], []) is None


@given(waiting=LENGTHS, left=LENGTHS)
def test_nobody_waits_for_a_prompt_that_is_longer_than_the_rest_of_theirs(waiting, left):
    first = goes_first(waiting, left)
    if first is not None:
        assert waiting[first] == min(waiting)
        assert waiting[first] <= min(left) // 2


@given(step=st.integers(1, 4096), prompts=st.integers(0, 64))
def test_those_who_read_together_share_a_step_and_none_reads_nothing(step, prompts):
    each = share(step, prompts)
    assert 1 <= each <= step
    assert each * prompts <= max(step, 64 * prompts)
