"""Requests that are sent together."""

import threading
from collections.abc import Iterator

import pytest

from mlx_bench.errors import ParametersError
from mlx_bench.wave import start_together


@pytest.fixture
def no_room_for_threads() -> Iterator[None]:
    """Threads whose stacks alone would fill a process."""
    usual = threading.stack_size((1 << 47) - (1 << 16))
    yield
    threading.stack_size(usual)


@pytest.mark.usefixtures("no_room_for_threads")
def test_more_requests_than_the_machine_starts_are_refused_and_none_is_sent() -> None:
    sent: list[str] = []

    with pytest.raises(ParametersError, match="only 0 of 3 requests at once") as refused:
        start_together([lambda: sent.append("one")] * 3)

    assert refused.value.hint == "Ask for fewer at once."
    assert not sent


def test_all_requests_are_sent_once_all_are_ready() -> None:
    sent: list[int] = []

    for thread in start_together([lambda: sent.append(1)] * 20):
        thread.join()

    assert sent == [1] * 20
