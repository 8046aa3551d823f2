"""A conversation as an agent's client keeps it; pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import msgspec

from mlx_bench.agents.workload import AgentTexts
from mlx_bench.completion import Answer, ToolCall

type AgentMessage = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What has been said so far.

    Attributes:
        agent: Whose it is, from 0.
        turn: Which request comes next, from 1.
    """

    texts: AgentTexts
    agent: int
    turn: int = 1
    messages: tuple[AgentMessage, ...] = ()

    @classmethod
    def begin(cls, texts: AgentTexts, agent: int) -> Self:
        """The head that all agents share, and a task of this one's own."""
        head = {"role": "system", "content": texts.system_prompt()}
        task = {"role": "user", "content": texts.task(agent)}
        return cls(texts, agent, 1, (head, task))

    def after(self, answer: Answer) -> Self:
        """The conversation as the next request sends it.

        The answer goes back as clients send it: text and tool calls as they came, without the
        reasoning. A tool's result follows each call; where the model called none, the user says
        what the tool would have.
        """
        calls = [call for call in answer.tool_calls if is_usable(call)]
        said: dict[str, object] = {"role": "assistant", "content": answer.text}
        grown: list[AgentMessage] = [said]
        if calls:
            names = [
                call.id or f"call_{self.turn}_{position}" for position, call in enumerate(calls)
            ]
            said["tool_calls"] = [
                {
                    "id": name,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for name, call in zip(names, calls, strict=True)
            ]
            grown += [
                {
                    "role": "tool",
                    "tool_call_id": name,
                    "content": self.texts.result(self.agent, self.turn, position, len(calls)),
                }
                for position, name in enumerate(names)
            ]
        else:
            result = self.texts.result(self.agent, self.turn)
            grown.append({"role": "user", "content": result})
        messages = (*self.messages, *grown)
        return type(self)(self.texts, self.agent, self.turn + 1, messages)


def is_usable(call: ToolCall) -> bool:
    """Whether a client can run a call: it has a name, and its arguments are a JSON object."""
    try:
        msgspec.json.decode(call.arguments, type=dict[str, object])
    except msgspec.DecodeError:
        return False
    return bool(call.name)
