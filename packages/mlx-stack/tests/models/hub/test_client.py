from contextlib import suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.errors import StackError
from mlx_stack.models.hub.client import open_hub, pause_s, retry_after_s
from mlx_stack.models.hub.environment import HubEnvironment


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


def test_an_answer_without_end_is_not_read_to_its_end():
    sent_bytes = 0

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal sent_bytes
            self.send_response(200)
            self.end_headers()
            with suppress(ConnectionError):
                while sent_bytes < 200_000_000:
                    sent_bytes += self.wfile.write(b" " * 100_000)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        environment = HubEnvironment(endpoint=f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(StackError, match="larger than 16 MB"), open_hub(environment) as hub:
            hub.search()
        server.shutdown()
        thread.join()
    assert sent_bytes < 100_000_000
