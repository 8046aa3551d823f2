"""The real engine tells that it serves a request, for as long as it does."""

from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from mlx_stack.services.keep_awake import Activity, is_serving, read_activities

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_a_streamed_answer_is_in_flight_until_its_last_token(serve, tiny_model: Path) -> None:
    url = serve(tiny_model)
    port = urlsplit(url).port
    assert port is not None
    httpx.get(f"{url}/v1/models").raise_for_status()
    idle = read_activities((port,))[port]
    assert not is_serving(None, idle), "asking for the models is not a request for inference"

    question = {
        "model": tiny_model.name,
        "messages": [{"role": "user", "content": "Count."}],
        "max_tokens": 1500,
        "stream": True,
    }
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=question, timeout=120) as answer:
        pieces = answer.iter_lines()
        next(pieces)
        assert is_serving(idle, read_activities((port,))[port])
        assert sum(1 for piece in pieces if piece) > 1

    done = read_activities((port,))[port]
    assert done == Activity(in_flight=0, answered=1)
    assert is_serving(idle, done), "it was answered since the last look"
    assert not is_serving(done, done)
