"""Whether a server turns a model's tool call into the API's `tool_calls`."""

from dataclasses import dataclass

import msgspec

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


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _Call(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct):
    message: _Message


class ChatAnswer(msgspec.Struct):
    """What a chat completion says of tool calls."""

    choices: list[_Choice] = []


class _Arguments(msgspec.Struct):
    city: str


def check_tool_calling(client: StreamingClient) -> ToolCheck:
    """Ask a question that needs the offered tool, and look at what comes back."""
    body = {"model": client.endpoint.model, "stream": False, **_REQUEST}
    try:
        answer = client.post(client.endpoint.completions_url, body, ChatAnswer)
    except EndpointError as error:
        return ToolCheck(ok=False, detail=error.message)
    return judge_answer(answer)


def judge_answer(answer: ChatAnswer) -> ToolCheck:
    """Whether a chat completion is a call of the offered tool with a city."""
    message = answer.choices[0].message if answer.choices else _Message()
    if not message.tool_calls:
        said = (message.content or "").strip()[:120] or "(empty)"
        return ToolCheck(ok=False, detail=f"no tool call; the answer was: {said}")
    name, arguments = message.tool_calls[0].function.name, message.tool_calls[0].function.arguments
    if name != _TOOL_NAME:
        return ToolCheck(ok=False, detail=f"called {name!r} instead of {_TOOL_NAME!r}")
    try:
        city = msgspec.json.decode(arguments, type=_Arguments).city
    except msgspec.DecodeError:
        detail = f"called the tool with unusable arguments: {arguments[:120]}"
        return ToolCheck(ok=False, detail=detail)
    return ToolCheck(ok=True, detail=f"called {name} for {city}")
