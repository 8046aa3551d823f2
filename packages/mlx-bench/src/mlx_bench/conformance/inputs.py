"""What several cases send."""

from typing import Any

SHOW = "Show the prompt."
FOR_EVER = "Talk forever."
EMOJI = "ä 🎉 日本 👩‍💻"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
FUNCTION: dict[str, Any] = {
    "name": "weather", "description": "tells the weather", "parameters": SCHEMA
}  # fmt: skip


def chat_tool(function: dict[str, Any]) -> dict[str, Any]:
    """A function as Chat Completions takes it."""
    return {"type": "function", "function": function}


def claude_tool(function: dict[str, Any]) -> dict[str, Any]:
    """A function as Messages takes it."""
    return {
        "name": function["name"],
        "description": function["description"],
        "input_schema": function["parameters"],
    }


TOOL = chat_tool(FUNCTION)
FLAT_TOOL: dict[str, Any] = {"type": "function", **FUNCTION}
CLAUDE_TOOL = claude_tool(FUNCTION)
ARGUMENTS = {"city": "Paris"}
CALLED = [("weather", ARGUMENTS)]
LONG_NAME = "mcp__a-server-with-a-long-name__" + "x" * 60
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkAAIAAAoAAv/lxKUAAAAASUVORK5CYII="
)
RAW = "<|im_start|>user\nRepeat: one two three<|im_end|>\n<|im_start|>assistant\n"
"""A prompt as ChatML's template would have made it."""
URL = f"data:image/png;base64,{PIXEL}"
THOUGHT = "<think>I ponder.</think>Yes."


def call_of(name: str = "weather", before: str = "") -> str:
    """The order to call a tool, as Hermes and Qwen write calls."""
    return (
        f"Repeat: {before}<tool_call>\n"
        f'{{"name": "{name}", "arguments": {{"city": "Paris"}}}}\n</tool_call>'
    )


ONE_CALL = call_of(before="I look. ")
TWO_CALLS = f"{call_of()}\n{call_of().removeprefix('Repeat: ')}"


def user(content: object) -> dict[str, Any]:
    """A message of the user."""
    return {"role": "user", "content": content}


def texts(*parts: str, kind: str = "text") -> list[dict[str, Any]]:
    """A list of text parts."""
    return [{"type": kind, "text": part} for part in parts]
