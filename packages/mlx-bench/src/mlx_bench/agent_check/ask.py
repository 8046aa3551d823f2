"""One question in four ways: two APIs, each streamed and whole."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlx_bench.conformance.inputs import chat_tool, claude_tool, user
from mlx_bench.conformance.server import MESSAGES, HttpAnswer, Server

type CheckCall = tuple[str, dict[str, Any]]
type CheckMessage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiWay:
    """An API, and whether its answer comes as a stream."""

    id: str
    is_messages: bool
    streams: bool

    @property
    def words(self) -> str:
        """`Chat Completions, streamed`."""
        api = "Messages" if self.is_messages else "Chat Completions"
        return f"{api}, streamed" if self.streams else api


CHAT_WHOLE = ApiWay("c", is_messages=False, streams=False)
CHAT_STREAMED = ApiWay("cs", is_messages=False, streams=True)
MESSAGES_WHOLE = ApiWay("m", is_messages=True, streams=False)
MESSAGES_STREAMED = ApiWay("ms", is_messages=True, streams=True)
WAYS = (CHAT_WHOLE, CHAT_STREAMED, MESSAGES_WHOLE, MESSAGES_STREAMED)


@dataclass(frozen=True, slots=True)
class CheckTurn:
    """A part of a conversation: what the user said, a call that was made, or an answer.

    Attributes:
        result: What the call brought.
    """

    said: str = ""
    is_users: bool = True
    call: CheckCall | None = None
    result: str = ""


@dataclass(frozen=True, slots=True)
class Request:
    """A question, whichever API carries it.

    Attributes:
        text: What the user says last; "" where the conversation ends with a tool's result.
        before: What was said before.
        tools: Functions as Chat Completions describes them.
        choice: `auto`, `none`, `required` or a tool's name.
        schema: What the answer must look like, or None.
        thinks: Whether the model is to think; None sends nothing of it.
    """

    text: str
    before: tuple[CheckTurn, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()
    choice: str = "auto"
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int = 160
    thinks: bool | None = field(default=None)


def ask(server: Server, way: ApiWay, request: Request) -> HttpAnswer:
    """The answer to a question that is asked in this way, at temperature 0."""
    fields = _messages_fields(request) if way.is_messages else _chat_fields(request)
    fields |= {"temperature": 0, "max_tokens": request.max_tokens}
    if way.streams:
        fields["stream"] = True
    if request.thinks is not None:
        fields["chat_template_kwargs"] = {"enable_thinking": request.thinks}
    said = _claude_turns(request) if way.is_messages else _chat_turns(request)
    return server.message(said, **fields) if way.is_messages else server.chat(said, **fields)


def _chat_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [chat_tool(dict(tool)) for tool in request.tools]
        usual = request.choice in ("auto", "none", "required")
        named = {"type": "function", "function": {"name": request.choice}}
        fields["tool_choice"] = request.choice if usual else named
    if request.schema is not None:
        schema = {"name": "answer", "schema": request.schema, "strict": True}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stop:
        fields["stop"] = list(request.stop)
    return fields


def _messages_fields(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [claude_tool(dict(tool)) for tool in request.tools]
        kinds = {"auto": "auto", "none": "none", "required": "any"}
        named = {"type": "tool", "name": request.choice}
        known = request.choice in kinds
        fields["tool_choice"] = {"type": kinds[request.choice]} if known else named
    if request.schema is not None:
        form = {"type": "json_schema", "schema": request.schema}
        fields["output_config"] = {"format": form}
    if request.stop:
        fields["stop_sequences"] = list(request.stop)
    if request.thinks is not None:
        budget = {"type": "enabled", "budget_tokens": 1024}
        fields["thinking"] = budget if request.thinks else {"type": "disabled"}
    return fields


def _chat_turns(request: Request) -> list[CheckMessage]:
    turns: list[CheckMessage] = []
    for number, turn in enumerate(request.before):
        if turn.call is None:
            turns.append(_said(turn))
            continue
        name, arguments = turn.call
        function = {"name": name, "arguments": json.dumps(arguments)}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        turns.append({"role": "assistant", "content": turn.said or None, "tool_calls": [call]})
        turns.append({"role": "tool", "tool_call_id": call["id"], "content": turn.result})
    return [*turns, *_asked(request.text)]


def _claude_turns(request: Request) -> list[CheckMessage]:
    turns: list[CheckMessage] = []
    for number, turn in enumerate(request.before):
        if turn.call is None:
            turns.append(_said(turn))
            continue
        name, arguments = turn.call
        use = {"type": "tool_use", "id": f"call_{number}", "name": name, "input": arguments}
        turns.append({"role": "assistant", "content": [use]})
        result = {"type": "tool_result", "tool_use_id": use["id"], "content": turn.result}
        turns.append(user([result]))
    return [*turns, *_asked(request.text)]


def _said(turn: CheckTurn) -> CheckMessage:
    return {"role": "user" if turn.is_users else "assistant", "content": turn.said}


def _asked(text: str) -> Sequence[CheckMessage]:
    return [user(text)] if text else []


def ended_well(answer: HttpAnswer, *, with_call: bool) -> bool:
    """Whether the answer says that it ended as it did: with a call, or by itself."""
    if answer.path == MESSAGES:
        return answer.ending == ("tool_use" if with_call else "end_turn")
    return answer.ending == ("tool_calls" if with_call else "stop")
