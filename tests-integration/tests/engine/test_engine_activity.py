"""The real engine tells that it serves a request, for as long as it does."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from mlx_stack.engines.activity import Activity
from mlx_stack.services.keep_awake import RequestWatch, read_activity

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_a_streamed_answer_is_in_flight_until_its_last_token(serve, tiny_model: Path) -> None:
    url = serve(tiny_model)
    port = urlsplit(url).port
    assert port is not None
    requests = RequestWatch(lambda: (port,))
    httpx.get(f"{url}/v1/models").raise_for_status()
    assert not requests.look(), "asking for the models is no work"

    question = {
        "model": tiny_model.name,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 1500,
        "stream": True,
    }
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=question, timeout=120) as answer:
        pieces = answer.iter_lines()
        next(pieces)
        assert requests.look()
        assert sum(1 for piece in pieces if piece) > 1

    assert requests.look(), "it was answered since the last look"
    assert not requests.look()
    assert read_activity(port) == Activity(in_flight=0, answered=1)
