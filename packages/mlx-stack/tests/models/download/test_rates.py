from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.models.download.connection import describe, receive_buffer_bytes
from mlx_stack.models.download.hub_files import redirect_target
from mlx_stack.models.download.rates import Meter
from mlx_stack.models.hub.answers import pause_s, retry_after_s
from mlx_stack.models.hub.environment import origin_of


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


@given(st.integers(1, 60), st.floats(0, 1))
def test_pauses_grow_to_a_limit(failures: int, jitter: float):
    assert 0.1 < pause_s(failures, jitter) <= 10.0
    assert pause_s(failures, 0.5) <= pause_s(failures + 1, 0.5)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "\xb2"}, None),
        ({"Retry-After": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"}, None),
        ({"RateLimit": '"api";r=0;t=55'}, 55.0),
        ({"RateLimit": "nonsense"}, None),
    ],
)
def test_the_wait_that_a_server_asks_for_is_understood(
    headers: dict[str, str], expected: float | None
):
    assert retry_after_s(headers, now=1000.0) == expected


def test_a_wait_until_a_date_is_understood():
    until = format_datetime(datetime(2026, 1, 1, 0, 0, 30, tzinfo=UTC), usegmt=True)
    now = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert retry_after_s({"Retry-After": until}, now) == 30.0
    assert retry_after_s({"Retry-After": until}, now + 100) == 0.0


def test_a_long_way_gets_a_larger_buffer():
    near, far = receive_buffer_bytes(0.0001), receive_buffer_bytes(0.1)
    assert near == 64 * 1024
    assert far == pytest.approx(3_200_000)
    assert receive_buffer_bytes(100.0) == 4 * 1024 * 1024


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://hub.example/a", "https://HUB.example:443/b?c", True),
        ("https://hub.example", "http://hub.example", False),
        ("http://127.0.0.1:8000/a", "http://127.0.0.2:8000/a", False),
        ("http://127.0.0.1:8000/a", "http://127.0.0.1:8001/a", False),
    ],
)
def test_credentials_stay_with_their_origin(one: str, other: str, *, same: bool):
    assert (origin_of(one) == origin_of(other)) is same


def test_failures_of_a_connection_are_told_in_words():
    assert describe(TimeoutError(), "hub") == "no answer from hub"
    assert describe(ConnectionRefusedError(), "hub") == "hub refuses connections"
    assert describe(ConnectionResetError(), "hub") == "hub broke the connection off"
    assert describe(OSError("odd"), "hub") == "no connection to hub: odd"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("https://cdn.example/a%20b?sign=x%2By&z=1", "https://cdn.example/a%20b?sign=x%2By&z=1"),
        ("/other/m", "https://hub.example/other/m"),
        ("https://cdn.example/a b", "https://cdn.example/a%20b"),
        ("https://cdn.example/\xc3\xbc", "https://cdn.example/%C3%BC"),
        ("https://cdn.example:99999/a", None),
        ("https://[cdn/a", None),
        ("file:///etc/passwd", None),
    ],
)
def test_a_redirect_leads_to_a_web_address_or_nowhere(location: str, target: str | None):
    assert redirect_target("https://hub.example/org/m/resolve/c/f", location) == target
