"""Whether a server turns a model's tool call into the API's `tool_calls`."""

from dataclasses import dataclass

import httpx

from mlx_bench.agent_check.ask import CHAT_WHOLE, ask
from mlx_bench.agent_check.check import server_of
from mlx_bench.agent_check.questions import ONE_TOOL, is_like
from mlx_bench.client import StreamingClient
from mlx_bench.conformance.server import HttpAnswer

_LONGEST_SAID = 120


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
    """Ask the first question of the agents' check, and look at what comes back."""
    server = server_of(client.endpoint, timeout_s=client.timeout_s)
    try:
        return judge_answer(ask(server, CHAT_WHOLE, ONE_TOOL.request))
    except httpx.HTTPError as error:
        return ToolCheck(ok=False, detail=f"no answer: {error}")
    finally:
        server.close()


def judge_answer(answer: HttpAnswer) -> ToolCheck:
    """Whether a chat completion is a call of the offered tool with a city."""
    ((tool, expected),) = ONE_TOOL.calls
    text = " ".join(answer.text.split())[:_LONGEST_SAID]
    if not answer.is_success:
        return ToolCheck(ok=False, detail=f"HTTP {answer.status}: {answer.problem or text}")
    try:
        calls = answer.calls
    except (ValueError, TypeError, KeyError, AttributeError):
        return ToolCheck(ok=False, detail=f"called the tool with unusable arguments: {text}")
    if not calls:
        said = answer.said.strip()[:_LONGEST_SAID] or "(empty)"
        return ToolCheck(ok=False, detail=f"no tool call; the answer was: {said}")
    name, arguments = calls[0]
    if name != tool:
        return ToolCheck(ok=False, detail=f"called {name!r} instead of {tool!r}")
    if not is_like(expected, arguments):
        detail = f"called the tool with unusable arguments: {arguments}"
        return ToolCheck(ok=False, detail=detail[:_LONGEST_SAID])
    return ToolCheck(ok=True, detail=f"called {name} for {arguments['city']}")
