"""What the fake engine answers at `/v1/messages`, as vllm-mlx does: events of Anthropic's API.

A message `Call NAME {…}` is answered with a call of that tool, a tool's result with `Seen: ` and
the result, anything else with itself. Where thoughts are asked for, they come first.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

_CALL = "Call "


def called_tool(text: str) -> tuple[str, dict[str, Any]] | None:
    """The tool and its arguments that a message asks for with `Call NAME {…}`, or None."""
    if not text.startswith(_CALL):
        return None
    name, _, arguments = text.removeprefix(_CALL).partition(" ")
    return name, json.loads(arguments)


def last_text(messages: Sequence[Any]) -> str:
    """The text of the last message; of a tool's result, `Seen: ` and the result."""
    content = messages[-1]["content"]
    if isinstance(content, str):
        return content
    for block in content:
        if block["type"] == "tool_result":
            return f"Seen: {block['content']}"
    return " ".join(block["text"] for block in content if block["type"] == "text")


def events(request: Any) -> Iterator[tuple[str, dict[str, object]]]:
    """The events of an answer, each with its name."""
    text = last_text(request["messages"])
    call = called_tool(text)
    usage = {"input_tokens": 0, "output_tokens": 0}
    message: dict[str, object] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    yield "message_start", {"message": message}
    blocks: list[tuple[dict[str, object], dict[str, object]]] = []
    if request.get("thinking", {}).get("type") == "enabled":
        delta: dict[str, object] = {"type": "thinking_delta", "thinking": "Hm."}
        blocks.append(({"type": "thinking", "thinking": ""}, delta))
    if call is None:
        blocks.append(({"type": "text", "text": ""}, {"type": "text_delta", "text": text}))
    else:
        start: dict[str, object] = {
            "type": "tool_use",
            "id": "call_1",
            "name": call[0],
            "input": {},
        }
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call[1])}
        blocks.append((start, delta))
    for (start, delta), index in zip(blocks, itertools.count()):
        yield "content_block_start", {"index": index, "content_block": start}
        yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}
    reason = "end_turn" if call is None else "tool_use"
    ending = {"stop_reason": reason, "stop_sequence": None}
    yield "message_delta", {"delta": ending, "usage": {"output_tokens": 3}}
    yield "message_stop", {}
