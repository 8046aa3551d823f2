"""The real engine under more than one request, on demand, and over a whole conversation."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import httpx
import pytest

from mlx_stack.engines.vllm_mlx import Serving

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

PATIENCE_S = 120
LONG_PROMPT = "the quick brown fox jumps over the lazy dog " * 400


def body(model: Path, *contents: str, **fields) -> dict[str, object]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return {"model": model.name, "temperature": 0, "messages": messages, **fields}


def ask(url: str, request: dict[str, object]) -> str:
    response = httpx.post(f"{url}/v1/chat/completions", json=request, timeout=PATIENCE_S)
    response.raise_for_status()
    return response.json()["choices"][0]["message"]["content"]


@contextmanager
def asking_for_models(url: str) -> Iterator[list[float]]:
    """Ask for `/v1/models` ten times a second meanwhile; the seconds that each answer took."""
    seconds: list[float] = []
    done = Event()

    def ask_again_and_again() -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            while not done.wait(0.1):
                began = time.perf_counter()
                client.get(f"{url}/v1/models").raise_for_status()
                seconds.append(time.perf_counter() - began)

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(ask_again_and_again)
        try:
            yield seconds
        finally:
            done.set()
        watching.result()


@pytest.fixture(scope="module", params=[1, 4])
def engine(request, serve_all, tiny_model) -> str:
    """An engine that answers so many requests at once."""
    return serve_all(tiny_model, name=f"tier-{request.param}", concurrency=request.param)


def test_requests_that_come_at_once_are_all_answered(engine, tiny_model):
    questions = [body(tiny_model, f"Question {number}", max_tokens=200) for number in range(3)]
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda question: ask(engine, question), questions))
    assert all(answers)


def test_a_busy_engine_still_tells_that_it_is_alive(engine, tiny_model):
    with asking_for_models(engine) as seconds:
        ask(engine, body(tiny_model, LONG_PROMPT, max_tokens=500))
    assert len(seconds) > 5
    assert max(seconds) < 1


def test_the_next_turn_of_a_conversation_reuses_the_turns_before_and_says_the_same(
    serve, tiny_model
):
    kept = serve(tiny_model, traits=Serving(reuses_prefixes=True))
    first = body(tiny_model, LONG_PROMPT, max_tokens=8)
    answer = ask(kept, first)
    second = body(tiny_model, LONG_PROMPT, answer, "And then?", max_tokens=8)
    with_cache = ask(kept, second)

    fresh = serve(tiny_model, name="fresh")
    assert ask(fresh, second) == with_cache
    cache = httpx.get(f"{kept}/v1/status").json()["cache"]
    assert cache["hits"] == 1
    assert cache["tokens_saved"] > 3000


def test_conversations_are_not_written_to_the_disk(serve, tiny_model, tmp_path, stop):
    url = serve(tiny_model, traits=Serving(reuses_prefixes=True))
    ask(url, body(tiny_model, LONG_PROMPT, max_tokens=8))
    result = stop("standard")
    assert result.outcome.value == "stopped"
    log = (tmp_path / "logs" / "standard.log").read_text()
    assert "Failed to save cache to disk" in log
    assert "Saved prefix cache" not in log
