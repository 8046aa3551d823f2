"""Why a turn was read again: through a gateway, with engines that say what they reused."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mlx_gateway.ledger import Ledger
from mlx_gateway.requests import NotedRequest, read_requests

type MakeBench = Any

ONE = """
schema_version: 1
models:
  standard: {upstreams: [{url: "http://127.0.0.1:PORT0", model: qwen3-8b}]}
"""
RULES = [f"Rule {n}: be careful." for n in range(9)]


def counting(cached: int | None) -> Any:
    """An engine whose prompts are as long as their text, and that says what it reused."""

    async def answers(exchange: Any) -> None:
        asked = exchange.document
        text = json.dumps(asked.get("messages", asked.get("input")))
        usage: dict[str, Any] = {"prompt_tokens": len(text), "completion_tokens": 2}
        if cached is not None:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        delta = {"index": 0, "delta": {"content": "yes"}, "finish_reason": "stop"}
        if asked.get("stream"):
            await exchange.events({"choices": [delta]}, {"choices": [], "usage": usage})
            return
        message = {"role": "assistant", "content": "yes"}
        await exchange.json({"choices": [{"index": 0, "message": message}], "usage": usage})

    return answers


def turn(number: int, line: str = "") -> dict[str, Any]:
    """The turn of a conversation whose client writes `line` as the third of its system prompt."""
    rules = "\n".join([*RULES[:2], line, *RULES[2:]])
    said: list[dict[str, str]] = [{"role": "system", "content": rules}]
    for n in range(number):
        said += [{"role": "user", "content": f"question {n}"}]
        said += [{"role": "assistant", "content": "yes"}]
    said += [{"role": "user", "content": f"question {number}"}]
    return {"model": "standard", "messages": said, "stream": True}


async def asked(
    bench: MakeBench, path: Path, cached: int | None, *turns: dict[str, Any]
) -> list[NotedRequest]:
    ledger = Ledger(path)
    async with bench(ONE, counting(cached), ledger=ledger) as it:
        for each in turns:
            headers = {"user-agent": "opencode/1.18"}
            answer = await it.client.ask("/v1/chat/completions", each, headers=headers)
            assert answer.status == 200
    ledger.close()
    return list(read_requests(path)[::-1])


async def test_a_line_that_changes_is_named_with_its_tokens_and_its_time(
    bench: MakeBench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    turns = [turn(n, f"It is {n}.") for n in range(3)]

    first, second, third = await asked(bench, tmp_path / "ledger.db", 20, *turns)

    assert first.prefix == "new"
    for each in (second, third):
        assert each.why_read_again == "line 3 of opencode's system prompt changed"
        assert each.reread_tokens is not None
        assert each.prompt_tokens is not None
        assert 0.4 * each.prompt_tokens < each.reread_tokens <= each.prompt_tokens - 20
        assert each.reread_s is not None
        assert each.ttft_s is not None
        assert 0 < each.reread_s <= each.ttft_s
    assert "standard: line 3 of opencode's system prompt changed" in caplog.text
    assert "question" not in caplog.text
    assert b"question" not in (tmp_path / "ledger.db").read_bytes()


async def test_an_engine_that_does_not_say_what_it_reused_leaves_the_time_open(
    bench: MakeBench, tmp_path: Path
) -> None:
    turns = [turn(n, f"It is {n}.") for n in range(2)]

    _, second = await asked(bench, tmp_path / "ledger.db", None, *turns)

    assert second.reread_tokens
    assert second.reread_s is None


async def test_a_conversation_that_grows_reads_nothing_again(
    bench: MakeBench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    whole = {**turn(2), "stream": False}

    found = await asked(bench, tmp_path / "ledger.db", None, turn(0), turn(1), whole)

    assert [each.prefix for each in found] == ["new", "grown", "grown"]
    assert [each.reread_tokens for each in found] == [0, 0, 0]
    assert "had been read before" not in caplog.text


async def test_what_is_no_turn_has_no_reason(bench: MakeBench, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    async with bench(ONE, counting(None), ledger=ledger) as it:
        await it.client.ask("/v1/embeddings", {"model": "standard", "input": ["a", "b"]})
        await it.client.ask("/v1/chat/completions", {"model": "standard", "messages": 1})
    ledger.close()

    assert [each.prefix for each in read_requests(tmp_path / "ledger.db")] == [None, None]
