"""Histories of services that answer: which of them deliver, and when the others are found."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_procsup.delivery import (
    AnswerKind,
    DeliveryHistory,
    DeliveryRule,
    RequestInFlight,
    TokenAnswer,
    Unreadable,
    Work,
    look,
)
from mlx_procsup.testing.pretended import Watched, watch_pretended

RULE = DeliveryRule()
FOUND_WITHIN_S = 15.0
TOKEN = TokenAnswer(AnswerKind.TOKEN)
SILENCE = (math.inf, TokenAnswer(AnswerKind.NOTHING))


def predict_s(size: int | None) -> float:
    """100 tokens a second, 900 s for what nobody knows."""
    return 900.0 if size is None else size / 100


@dataclass
class Engine:
    """An engine that has been at work for long, told by two functions of time."""

    says: Callable[[float], Work | Unreadable]
    answers: Callable[[float], tuple[float, TokenAnswer]] = lambda _: (0.5, TOKEN)

    def work(self, at: float) -> Work | Unreadable:
        return self.says(at)

    def ask(self, at: float) -> tuple[float, TokenAnswer]:
        return self.answers(at)


def watched(engine: Engine, until_s: float = 4000.0, **options: object) -> Watched:
    return watch_pretended(engine, until_s, predict_s, **options)  # type: ignore[arg-type]


def stuck(
    *running: RequestInFlight, waiting: tuple[RequestInFlight, ...] = (), since: float = 100.0
) -> Engine:
    """One that delivered until `since`, and from then on nothing of these."""

    def says(at: float) -> Work:
        if at < since:
            return Work(written=10)
        return Work(running, waiting, written=10, oldest_s=at - since)

    return Engine(says, lambda at: (0.5, TOKEN) if at < since else SILENCE)


def expected_at(*sizes: int | None, since: float = 100.0) -> float:
    return since + RULE.floor_s + sum(map(predict_s, sizes))


def assert_found(found: Watched, at: float) -> None:
    assert found.wedged_at is not None
    assert at - RULE.doubt_s <= found.wedged_at <= at + FOUND_WITHIN_S


def test_a_dead_generation_thread_is_found_when_its_prompt_should_have_been_read() -> None:
    found = watched(stuck(RequestInFlight("a", 3000)))
    assert_found(found, expected_at(3000))
    assert "1 request in flight made no progress" in found.reason


def test_a_stream_that_stops_in_the_middle_is_found() -> None:
    assert_found(watched(stuck(RequestInFlight("a", 20_000, written=7))), expected_at())


def test_a_deadlock_before_anything_is_scheduled_is_found() -> None:
    waiting = (RequestInFlight("a", 500), RequestInFlight("b", 2000))
    assert_found(watched(stuck(waiting=waiting)), expected_at(2000))


def test_requests_that_pile_up_behind_a_deadlock_buy_it_no_time() -> None:
    def says(at: float) -> Work:
        queued = range(int(max(at - 100, 0) / 2))
        waiting = tuple(RequestInFlight(str(n), 2000) for n in queued)
        return Work((), waiting, written=10, oldest_s=max(at - 102, 0))

    found = watched(Engine(says, lambda at: (0.5, TOKEN) if at < 100 else SILENCE))
    assert_found(found, expected_at(2000, since=102))


def test_an_engine_that_is_idle_and_dead_is_found_by_the_question_for_a_token() -> None:
    found = watched(Engine(lambda _: Work(written=10), lambda _: SILENCE))
    assert_found(found, RULE.ask_every_s + RULE.floor_s)  # type: ignore[operator]
    assert "hasn't answered a request for one token for 60 s" in found.reason


def test_the_question_for_a_token_can_be_switched_off() -> None:
    engine = Engine(lambda _: Work(written=10), lambda _: SILENCE)
    found = watched(engine, rule=replace(RULE, ask_every_s=None))
    assert (found.wedged_at, found.asks) == (None, ())


def test_an_idle_engine_that_answers_is_asked_every_five_minutes_and_no_more() -> None:
    found = watched(Engine(lambda _: Work(written=10)), 3600)
    assert found.wedged_at is None
    assert len(found.asks) == pytest.approx(3600 / 300, abs=1)


def test_an_engine_at_rest_is_not_woken_by_questions() -> None:
    assert watched(Engine(lambda _: Work(rests=True))).asks == ()


def test_a_load_that_takes_minutes_is_left_alone() -> None:
    def says(at: float) -> Work:
        return Work(rests=True) if at < 900 else Work((RequestInFlight("a", 50, written=int(at)),))

    assert watched(Engine(says, lambda _: SILENCE), 1500).wedged_at is None


def test_answers_that_are_all_errors_are_found() -> None:
    """They end at once, so that nothing is ever in flight for long."""
    fails = (0.1, TokenAnswer(AnswerKind.ERROR, "HTTP 500"))
    engine = Engine(lambda at: Work(written=10, failures=int(max(at - 100, 0))), lambda _: fails)
    found = watched(engine)
    assert_found(found, 100 + RULE.failures)
    assert "every request for a token fails: HTTP 500" in found.reason


def test_requests_that_are_at_fault_themselves_are_nobodys_wedge() -> None:
    """A schema that the engine can't obey fails each time; whoever asks otherwise is answered."""
    found = watched(Engine(lambda at: Work(written=10, failures=int(at))), 3000)
    assert found.wedged_at is None


def test_an_idle_engine_that_only_fails_is_found_without_anyone_else_asking() -> None:
    fails = (0.1, TokenAnswer(AnswerKind.ERROR, "HTTP 500"))
    found = watched(Engine(lambda _: Work(written=10), lambda _: fails))
    assert_found(found, 300)


@dataclass
class Steps:
    """An engine whose scheduler turns and reads each prompt again from its beginning: a livelock.

    Neither the prompts that it takes up nor its steps are told to the rule: only what moves on.
    """

    request: int = field(default=0)

    def __call__(self, at: float) -> Work:
        if at < 100:
            return Work(written=10)
        return Work(
            (RequestInFlight(f"r{int((at - 100) / 500)}", 1000),), written=10, oldest_s=at - 100
        )


def test_a_livelock_is_found_however_busy_it_is_and_whoever_tries_again() -> None:
    found = watched(Engine(Steps(), lambda at: (0.5, TOKEN) if at < 100 else SILENCE))
    assert_found(found, expected_at(1000))


def prefill(tokens: int, tps: float, step: int | None) -> Callable[[float], Work]:
    """One that reads a prompt from 100 s on at `tps`, and tells of each `step` read, or of none."""

    def says(at: float) -> Work:
        done = (at - 100) * tps
        if at < 100 or done >= tokens:
            return Work(written=10 + (at >= 100))
        read = 0.0 if step is None else done // step * step / tokens
        return Work((RequestInFlight("a", tokens, read),), written=10)

    return says


def honest(tokens: int, tps: float, step: int | None = None) -> Engine:
    """It answers a question after what it reads."""
    ends_at = 100 + tokens / tps
    return Engine(prefill(tokens, tps, step), lambda at: (max(ends_at - at, 0.0) + 0.5, TOKEN))


@pytest.mark.parametrize("step", [None, 2048])
def test_an_honest_prefill_of_100_000_tokens_on_an_m1_is_never_shot(step: int | None) -> None:
    """At 60 tokens a second it takes 28 minutes: slower than the 100 that are predicted here."""
    found = watch_pretended(honest(100_000, 60, step), 4000, lambda size: 3 * predict_s(size))
    assert found.wedged_at is None


def test_a_prefill_that_moves_is_never_shot_however_slowly() -> None:
    """A hundred times slower than the slowest that is predicted."""
    assert watched(honest(20_000, 1, 20), 25_000).wedged_at is None


def test_a_prompt_of_unknown_length_gets_the_time_of_the_longest() -> None:
    assert_found(watched(stuck(RequestInFlight("a"))), expected_at(None))


def test_two_engines_that_compute_at_once_take_twice_as_long() -> None:
    assert watched(stuck(RequestInFlight("a", 10_000)), 250, sharing=2).wedged_at is None
    found = watched(stuck(RequestInFlight("a", 10_000)), sharing=2)
    assert_found(found, expected_at(10_000) + predict_s(10_000))


def test_clients_that_give_up_and_try_again_get_no_engine_shot() -> None:
    """Each leaves after 60 s a prompt that takes 80 s: not one token is ever written."""

    def says(at: float) -> Work:
        return Work((RequestInFlight(f"r{int(at / 60)}", 8000),), written=10)

    assert watched(Engine(says, lambda _: SILENCE), 7200).wedged_at is None


def test_requests_that_vanish_without_a_token_lead_to_a_question() -> None:
    def says(at: float) -> Work:
        return Work((RequestInFlight("a", 8000),) if 100 < at < 150 else (), written=10)

    found = watched(Engine(says, lambda _: SILENCE))
    assert_found(found, 150 + RULE.floor_s)


def test_the_first_token_of_an_engine_may_take_longer() -> None:
    """Its kernels are compiled for it."""
    engine = Engine(lambda _: Work((RequestInFlight("a", 100),)), lambda _: SILENCE)
    assert_found(watched(engine), RULE.floor_s + RULE.first_s + 1)


def test_time_in_which_the_watchdog_slept_proves_nothing() -> None:
    engine = stuck(RequestInFlight("a", 1000))
    found = watched(engine, unwatched=[(130, 3130)])
    assert_found(found, expected_at(1000) + 3000 - RULE.idle_look_s)


def test_after_a_jump_of_the_clock_everything_counts_from_the_beginning() -> None:
    work = Work((RequestInFlight("a", 100),), written=10)
    history = DeliveryHistory()
    for now in range(0, 56, 4):
        history, finding = look(history, work, now, RULE, predict_s)
        assert finding.ask_for_s is None
    history = history.forgiven()
    for now in range(1000, 1052, 4):
        history, finding = look(history, work, now, RULE, predict_s)
        assert finding.ask_for_s is None


def test_a_status_that_claims_requests_which_are_not_there_gets_no_engine_shot() -> None:
    """It counts one for ever that ended long ago, and answers whoever asks."""
    found = watched(Engine(lambda _: Work((RequestInFlight("ghost", 10),), written=10)))
    assert found.wedged_at is None
    assert found.notes == (
        "it reports no progress, but a test request succeeds: its report is ignored",
    )


@pytest.mark.parametrize("reason", ["no answer within 2 s", "HTTP 404", "it answers nonsense"])
def test_a_status_that_tells_nothing_is_said_once_and_shoots_nobody(reason: str) -> None:
    found = watched(Engine(lambda _: Unreadable(reason), lambda _: SILENCE))
    assert found.wedged_at is None
    assert len(found.notes) == 1
    assert reason in found.notes[0]
    assert found.asks == ()


def test_a_look_in_vain_now_and_then_hides_no_wedge() -> None:
    inner = stuck(RequestInFlight("a", 3000)).says

    looks = itertools.count()

    def says(at: float) -> Work | Unreadable:
        return Unreadable("no answer within 2 s") if next(looks) % 2 else inner(at)

    found = watched(Engine(says, lambda _: SILENCE))
    assert found.wedged_at is not None
    assert found.wedged_at <= expected_at(3000) * 1.5


def test_a_question_that_is_at_fault_itself_tells_nothing() -> None:
    refused = (0.1, TokenAnswer(AnswerKind.REFUSED, "HTTP 404"))
    found = watched(Engine(lambda _: Work(written=10), lambda _: refused))
    assert found.wedged_at is None
    assert found.notes == ("it can't be asked for a token: HTTP 404",)


def test_a_wedge_that_begins_to_move_again_is_forgiven() -> None:
    before = DeliveryHistory(
        10,
        Work((RequestInFlight("a", 10),), written=5),
        still_s=70,
        proven_at=0,
        wedged="it is stuck",
    )
    after, _ = look(
        before, Work((RequestInFlight("a", 10, written=1),), written=5), 14, RULE, predict_s
    )
    assert (after.wedged, after.still_s) == (None, 0)


def test_another_process_behind_the_same_name_begins_again() -> None:
    before = DeliveryHistory(
        10, Work((RequestInFlight("a", 10),), written=5), still_s=70, proven_at=0
    )
    after, _ = look(before, Work((RequestInFlight("b", 10),), written=0), 14, RULE, predict_s)
    assert after.still_s == 0


works = st.builds(
    Work,
    running=st.lists(
        st.builds(
            RequestInFlight,
            st.sampled_from("abcdef"),
            st.none() | st.integers(0, 10**6),
            st.floats(0, 1),
            st.integers(0, 10**6),
        ),
        max_size=4,
    ).map(tuple),
    written=st.integers(0, 10**9),
    rests=st.booleans(),
    failures=st.integers(0, 10**6),
)


@given(
    st.lists(st.tuples(st.floats(0, 1e6), works | st.builds(Unreadable, st.text())), max_size=40)
)
def test_whatever_is_said_and_however_clocks_go_nothing_breaks(
    looks: list[tuple[float, Work | Unreadable]],
) -> None:
    history = DeliveryHistory()
    for now, said in looks:
        history, _ = look(history, said, now, RULE, predict_s)
        assert history.still_s >= 0
        assert history.grace_s(RULE) >= RULE.floor_s
        assert history.wedged is None  # nobody was asked, and only an answer proves a wedge
