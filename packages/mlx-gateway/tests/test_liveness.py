"""Histories of what was heard of an engine, and what is made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.liveness import NEVER, EngineLife, EngineTimeouts, Wait

TIMEOUTS = EngineTimeouts()
HUNG = EngineLife(NEVER, hangs=True)


@pytest.mark.parametrize(
    ("life", "now", "asks"),
    [
        (EngineLife(), 0.0, True),  # never heard
        (EngineLife(10.0), 10.5, False),  # another request was answered just now
        (EngineLife(10.0), 11.0, True),
        (EngineLife(10.0, hangs=True), 10.1, True),  # until it answers again
    ],
)
def test_an_engine_is_asked_when_nobody_knows(life: EngineLife, now: float, asks: bool) -> None:
    assert life.needs_question(now, TIMEOUTS) is asks


def test_one_that_was_lost_is_asked_more_often() -> None:
    assert EngineLife(is_gone=True).asked_every_s(TIMEOUTS) <= 0.5
    assert HUNG.asked_every_s(TIMEOUTS) == TIMEOUTS.silence_s


@pytest.mark.parametrize(
    ("heard_at", "asked_at", "hangs"), [(NEVER, 5.0, True), (4.0, 5.0, True), (5.5, 5.0, False)]
)
def test_a_question_without_an_answer_counts_unless_something_else_was_heard(
    heard_at: float, asked_at: float, hangs: bool
) -> None:
    assert EngineLife(heard_at).unanswered(asked_at).hangs is hangs


@pytest.mark.parametrize(
    ("story", "waiting", "life", "now", "given_up"),
    [
        ("just sent", Wait(100, 100), EngineLife(), 100.1, False),
        ("silent, not asked yet", Wait(100, 100), EngineLife(), 104, False),
        ("silent, the question unanswered", Wait(100, 100), HUNG, 103.1, True),
        ("the question unanswered, but not for long", Wait(100, 100), HUNG, 102.9, False),
        ("cuts 1 MB of prompt into tokens", Wait(100, 100, 10**6), HUNG, 107, False),
        ("cuts 1 MB of prompt for ever", Wait(100, 100, 10**6), HUNG, 108.1, True),
        ("is busy with its vocabulary", Wait(100, 100, has_form=True), HUNG, 132, False),
        ("is so for ever", Wait(100, 100, has_form=True), HUNG, 134, True),
        ("reads a prompt and answers questions", Wait(100, 100), EngineLife(399), 400, False),
        ("answered once, then no more", Wait(100, 100), EngineLife(101, True), 150, False),
        ("silent to all for a minute", Wait(100, 100), EngineLife(101, True), 162, True),
        ("stopped in the middle", Wait(100, 130), EngineLife(130, True), 189, False),
        ("stopped for a minute", Wait(100, 130), EngineLife(130, True), 191, True),
        ("allowed to be silent", Wait(100, 100, 0, 600), HUNG, 699, False),
        ("silent for longer than allowed", Wait(100, 100, 0, 600), HUNG, 701, True),
    ],
)  # fmt: skip
def test_a_request_is_given_up_when_its_engine_hangs(
    story: str, waiting: Wait, life: EngineLife, now: float, given_up: bool
) -> None:
    assert waiting.is_in_vain(life, now, TIMEOUTS) is given_up, story


@given(
    st.floats(0, 100), st.floats(0, 100), st.integers(0, 10**8), st.floats(0, 1000), st.booleans()
)
def test_an_engine_that_was_heard_just_now_is_never_given_up(
    sent_at: float, later: float, prompt_bytes: int, wait_s: float, hangs: bool
) -> None:
    now = sent_at + later + wait_s
    waiting = Wait(sent_at, sent_at + later, prompt_bytes)

    assert not waiting.is_in_vain(EngineLife(now, hangs), now, TIMEOUTS)


@given(st.floats(0, 1000), st.floats(0, 1000), st.booleans())
def test_waiting_longer_never_brings_an_engine_back(
    first_s: float, more_s: float, was_heard: bool
) -> None:
    waiting, life = Wait(0, 0), EngineLife(0.5 if was_heard else NEVER, hangs=True)

    if waiting.is_in_vain(life, first_s, TIMEOUTS):
        assert waiting.is_in_vain(life, first_s + more_s, TIMEOUTS)
