"""Whether a server turns a model's tool call into the API's `tool_calls`."""

import json
from dataclasses import dataclass

from mlx_bench._json_values import as_list, as_object, as_text, object_or_none
from mlx_bench.client import StreamingClient
from mlx_bench.errors import EndpointError

_MAX_TOKENS = 512
_TOOL_NAME = "get_weather"
_REQUEST: dict[str, object] = {
    "messages": [
        {"role": "user", "content": "What is the weather in Paris right now? Use the tool."}
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": _TOOL_NAME,
                "description": "The current weather in a city.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "description": "The city's name."}},
                    "required": ["city"],
                },
            },
        }
    ],
    "tool_choice": "auto",
    "max_tokens": _MAX_TOKENS,
    "temperature": 0,
}


@dataclass(frozen=True, slots=True)
class ToolCheck:
    """The result of the tool-calling check.

    Attributes:
        ok: Whether the answer was one well-formed call of the offered tool.
        detail: What came, in words.
    """

    ok: bool
    detail: str


def check_tool_calling(client: StreamingClient) -> ToolCheck:
    """Ask a question that needs the offered tool, and look at what comes back."""
    body = {"model": client.endpoint.model, "stream": False, **_REQUEST}
    try:
        answer = client.post_json(client.endpoint.completions_url, body)
    except EndpointError as error:
        return ToolCheck(ok=False, detail=error.message)
    return judge_answer(answer)


def judge_answer(answer: dict[str, object]) -> ToolCheck:
    """Whether a chat completion is a call of the offered tool with a city."""
    choices = as_list(answer.get("choices"))
    message = as_object(as_object(choices[0]).get("message")) if choices else {}
    calls = as_list(message.get("tool_calls"))
    if not calls:
        text = as_text(message.get("content")).strip()
        return ToolCheck(
            ok=False, detail=f"no tool call; the answer was: {text[:120] or '(empty)'}"
        )
    function = as_object(as_object(calls[0]).get("function"))
    name = as_text(function.get("name"))
    try:
        arguments = object_or_none(json.loads(as_text(function.get("arguments"))))
    except ValueError:
        arguments = None
    if name != _TOOL_NAME:
        return ToolCheck(ok=False, detail=f"called {name!r} instead of {_TOOL_NAME!r}")
    if arguments is None or not as_text(arguments.get("city")):
        given = as_text(function.get("arguments"))
        return ToolCheck(ok=False, detail=f"called the tool with unusable arguments: {given[:120]}")
    return ToolCheck(ok=True, detail=f"called {name} for {as_text(arguments['city'])}")
