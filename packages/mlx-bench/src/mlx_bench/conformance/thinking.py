"""Cases of a model that thinks: its thoughts come apart from its answer, in every API."""

from typing import Any

from mlx_bench.conformance.case import Case
from mlx_bench.conformance.inputs import CALLED, CLAUDE_TOOL, THOUGHT, call_of
from mlx_bench.conformance.server import HttpAnswer

_THINKING = {"type": "enabled", "budget_tokens": 1024}
_AND_CALLS = f"Repeat: <think>I ponder.</think>{call_of().removeprefix('Repeat: ')}"


def _blocks(answer: HttpAnswer) -> list[dict[str, Any]]:
    if answer.is_stream:
        return [each["content_block"] for each in answer.of("content_block_start")]
    return answer.document["content"]


def _thought(answer: HttpAnswer) -> bool:
    return answer.said.strip() == "Yes." and answer.thinking.strip() == "I ponder."


def _is_signed(answer: HttpAnswer) -> bool:
    first = _blocks(answer)[0]
    return _thought(answer) and first["type"] == "thinking" and "signature" in first


def _items(answer: HttpAnswer) -> list[str]:
    done = answer.of("response.completed")[-1]["response"] if answer.is_stream else answer.document
    return [item["type"] for item in done["output"]]


CASES = (
    Case("C32", "a model that thinks", "its thoughts in reasoning_content or reasoning, not in content",
         lambda s: _thought(s.chat(f"Repeat: {THOUGHT}"))),
    Case("C32s", "a model that thinks, streamed", "the same",
         lambda s: _thought(s.chat(f"Repeat: {THOUGHT}", stream=True))),
    Case("A08", "thinking with a budget", "a thinking block with a signature, then the text",
         lambda s: _is_signed(s.message(f"Repeat: {THOUGHT}", thinking=_THINKING, max_tokens=2000))),
    Case("A08s", "thinking with a budget, streamed", "the same", lambda s: _is_signed(s.message(f"Repeat: {THOUGHT}", thinking=_THINKING, max_tokens=2000, stream=True))),
    Case("A08t", "thinking, then a tool call, streamed", "thinking, then one call, its pieces one JSON",
         lambda s: (it := s.message(_AND_CALLS, thinking=_THINKING, max_tokens=2000, tools=[CLAUDE_TOOL], stream=True)).calls == CALLED and [block["type"] for block in _blocks(it)] == ["thinking", "tool_use"]),
    Case("R15", "a model that thinks, streamed", "a reasoning item, then the message", lambda s: _thought(it := s.respond(f"Repeat: {THOUGHT}", stream=True)) and _items(it) == ["reasoning", "message"]),
    Case("O06", "think true", "the thoughts in `thinking`, then the content",
         lambda s: _thought(s.ollama(f"Repeat: {THOUGHT}", think=True))),
)  # fmt: skip
