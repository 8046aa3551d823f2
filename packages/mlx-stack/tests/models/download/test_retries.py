import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.models.download.retries import FileRetries, Pace, TransferPolicy, find_stragglers
from mlx_stack.models.errors import HubUnreachableError, TransientError

POLICY = TransferPolicy()
CUT = TransientError("the server broke the connection off")
MB = 1_000_000


def pace(rate: float, *, age_s: float = 10.0, remaining: int = 50 * MB) -> Pace:
    return Pace(age_s, rate, remaining)


def test_a_file_is_given_up_only_after_attempts_and_patience():
    retries, now = FileRetries(), 100.0
    while now < 130.0 or retries.failures < POLICY.attempts - 1:
        now += retries.failed(CUT, now, 0.5, POLICY)
    with pytest.raises(HubUnreachableError, match="broke the connection off, and so it stayed"):
        retries.failed(CUT, now, 0.5, POLICY)
    assert 30.0 <= now - 100.0 < 45.0


def test_a_byte_makes_up_for_all_failures():
    retries, now = FileRetries(), 0.0
    for _ in range(200):
        now += retries.failed(CUT, now, 0.5, POLICY)
        retries.progressed()
    assert retries.failures == 0


def test_the_server_s_wish_is_kept_and_an_unreasonable_one_ends_the_pull():
    wish = TransientError("HTTP 429", retry_after_s=42.0, is_throttled=True)
    retries = FileRetries()
    assert retries.failed(wish, 0.0, 0.5, POLICY) == 42.0
    assert retries.not_before == 42.0
    tomorrow = TransientError("HTTP 429", retry_after_s=86_400.0)
    with pytest.raises(HubUnreachableError, match="86400 s"):
        retries.failed(tomorrow, 42.0, 0.5, POLICY)


def test_a_connection_far_behind_the_others_is_a_straggler():
    paces = [pace(10 * MB), pace(9 * MB), pace(MB), pace(11 * MB)]
    assert find_stragglers(paces, [], POLICY) == [2]


def test_the_last_one_is_compared_with_what_the_others_did():
    assert find_stragglers([pace(MB)], [10 * MB, 9 * MB, 11 * MB], POLICY) == [0]
    assert find_stragglers([pace(MB)], [], POLICY) == []


def test_a_connection_that_will_be_done_soon_is_left_alone():
    paces = [pace(10 * MB), pace(9 * MB), pace(MB, remaining=MB), pace(11 * MB)]
    assert find_stragglers(paces, [], POLICY) == []


def test_a_new_connection_is_given_time():
    paces = [pace(10 * MB), pace(9 * MB), pace(0, age_s=1.0), pace(11 * MB)]
    assert find_stragglers(paces, [], POLICY) == []


def test_a_connection_that_trickles_is_broken_off_even_alone():
    assert find_stragglers([pace(100, age_s=11.0)], [], POLICY) == [0]
    assert find_stragglers([pace(100, age_s=9.0)], [], POLICY) == []


@given(st.floats(1_000_000, 1e9), st.integers(1, 24))
def test_connections_of_equal_rate_are_never_stragglers(rate: float, count: int):
    assert find_stragglers([pace(rate)] * count, [], POLICY) == []
