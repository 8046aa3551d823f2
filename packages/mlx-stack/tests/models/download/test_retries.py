import pytest

from mlx_stack.models.download.retries import FileRetries, Meter, TransferPolicy
from mlx_stack.models.errors import HubUnreachableError, TransientError

POLICY = TransferPolicy()
CUT = TransientError("the server closed the connection")


def test_a_file_is_given_up_only_after_attempts_and_patience():
    retries, now = FileRetries(), 100.0
    while now < 130.0 or retries.failures < POLICY.attempts - 1:
        now += retries.failed(CUT, now, 0.5, POLICY)
    with pytest.raises(HubUnreachableError, match="closed the connection, and didn't recover"):
        retries.failed(CUT, now, 0.5, POLICY)
    assert 30.0 <= now - 100.0 < 45.0


def test_a_block_makes_up_for_all_failures():
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


def test_the_rate_is_that_of_the_last_seconds():
    meter = Meter(0.0, window_s=5.0)
    for second in range(1, 11):
        meter.add(second, 1000)
    for second in range(11, 21):
        meter.add(second, 5000)
    assert meter.rate(20.0) == pytest.approx(5000, rel=0.3)
    assert meter.total == 60_000


def test_a_stalled_connection_comes_to_a_rate_of_nothing():
    meter = Meter(0.0, window_s=5.0)
    for tenth in range(1, 31):
        meter.add(tenth / 10, 100_000)
    rates = [meter.rate(second) for second in (3.0, 6.0, 12.0, 60.0)]
    assert rates[0] is not None
    assert rates[0] > 900_000
    assert rates[3] is not None
    assert rates[3] < 60_000


def test_there_is_no_rate_in_the_first_instant():
    meter = Meter(0.0)
    meter.add(0.01, 1000)
    assert meter.rate(0.01) is None
