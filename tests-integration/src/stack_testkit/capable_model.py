"""A model fit for agents, for the fake engine: it knows the answers to what `--check` asks.

What it says is looked up by the last thing that the user said; whether it may call tools, where it
must stop and whether it may think it reads from the request, as a model and its engine would.
Faults of models and of engines' parsers can be planted:

    no-parallel     only the first of several calls is made
    tag-leak        a streamed call comes as the text that the parser should have read
    no-schema       JSON is asked for in vain
    deaf            a stop sequence stops nothing
    nonsense        every text is nonsense
    other-words     texts say the same in other words
    thinks          (no fault) it thinks unless that is switched off
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_bench.agent_check.questions import QUESTIONS, CheckQuestion

FAULTS = ("no-parallel", "tag-leak", "no-schema", "deaf", "nonsense", "other-words", "thinks")
_NUMBER = re.compile(r"The number of the lighthouse is (\d+)\.")
_LONG_STORY = "Tell a very long story with these words."
_TEXTS = {
    "What is the capital of France?": "The capital of France is Paris.",
    "What is 12 plus 30?": "12 plus 30 is 42.",
    "Name the seven days": "Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
    "What is the opposite of hot?": "Cold",
    "Which planet": "Earth",
    "Write a Python function add": "def add(a, b):\n    return a + b",
    "How does one say `good morning`": "Buenos días",
    "Begin a story about a lighthouse": "The light of the old tower had not burned for years.",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What the model says, as its engine's parser understands it."""

    text: str = ""
    thinking: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    stopped_by: str | None = None


def answer(request: Mapping[str, Any], faults: Sequence[str] = ()) -> Said:
    """What the model says to a request of either API."""
    messages = request["messages"]
    last, wrote = messages[-1], _text(messages[-1]["content"])
    is_result = last["role"] == "tool" or (not wrote and isinstance(last["content"], list))
    question = next(
        (each for each in QUESTIONS if each.request.text == ("" if is_result else wrote)), None
    )
    tools = [each.get("function", each)["name"] for each in request.get("tools") or ()]
    calls = _calls(question, request, tools)
    text = "" if calls else _said(question, wrote, request, faults)
    if "no-parallel" in faults:
        calls = calls[:1]
    if "tag-leak" in faults and calls and request.get("stream"):
        text, calls = f"<tool_call>{json.dumps(calls[0])}</tool_call>", ()
    stops = [*(request.get("stop") or ()), *(request.get("stop_sequences") or ())]
    found = [] if "deaf" in faults else [stop for stop in stops if stop in text]
    stopped_by = min(found, key=text.index) if found else None
    if stopped_by is not None:
        text = text[: text.index(stopped_by)]
    thinking = "I think about it." if "thinks" in faults and _may_think(request) else ""
    return Said(text, thinking, calls, stopped_by)


def _may_think(request: Mapping[str, Any]) -> bool:
    options: Any = request.get("chat_template_kwargs") or {"enable_thinking": None}
    off = request.get("thinking") == {"type": "disabled"}
    return options.get("enable_thinking") is not False and not off


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _calls(
    question: CheckQuestion | None, request: Mapping[str, Any], tools: Sequence[str]
) -> tuple[tuple[str, dict[str, Any]], ...]:
    if question is None or request.get("tool_choice") in ("none", {"type": "none"}):
        return ()
    return tuple(call for call in question.calls if call[0] in tools)


def _said(
    question: CheckQuestion | None, wrote: str, request: Mapping[str, Any], faults: Sequence[str]
) -> str:
    if "nonsense" in faults:
        return "the the the the the"
    number = _NUMBER.search(wrote)
    if number is not None:
        return number[1]
    if wrote.endswith(_LONG_STORY):
        return " ".join(f"word{at}" for at in range(400))
    for beginning, text in _TEXTS.items():
        if wrote.startswith(beginning):
            return f"Well: {text}" if "other-words" in faults else text
    if question is None:
        return "Hello!"
    has_form = request.get("response_format") or request.get("output_config")
    if has_form and "no-schema" in faults:
        return f"Here it is: {question.says}"
    return question.says or "I can't do that."


def chat(said: Said) -> dict[str, Any]:
    """The message of a whole answer of Chat Completions."""
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    if said.calls:
        message["tool_calls"] = [_call(at, *call) for at, call in enumerate(said.calls)]
    return message


def chat_deltas(said: Said) -> Iterator[tuple[str, dict[str, Any]]]:
    """The deltas of a streamed answer, each with the words that it stands for."""
    for name, text in (("reasoning_content", said.thinking), ("content", said.text)):
        for piece in _pieces(text):
            yield piece, {name: piece}
    for at, (name, arguments) in enumerate(said.calls):
        first = {**_call(at, name, {}), "index": at}
        first["function"] = {"name": name, "arguments": ""}
        yield name, {"tool_calls": [first]}
        for piece in _pieces(json.dumps(arguments, ensure_ascii=False)):
            yield piece, {"tool_calls": [{"index": at, "function": {"arguments": piece}}]}


def _call(at: int, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"call_{at}", "type": "function", "function": function}


def blocks(said: Said) -> list[dict[str, Any]]:
    """The blocks of a whole answer of Messages."""
    found: list[dict[str, Any]] = []
    if said.thinking:
        found.append({"type": "thinking", "thinking": said.thinking})
    if said.text:
        found.append({"type": "text", "text": said.text})
    for at, (name, arguments) in enumerate(said.calls):
        found.append({"type": "tool_use", "id": f"call_{at}", "name": name, "input": arguments})
    return found


def block_events(said: Said) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of a streamed answer of Messages between its first and its last."""
    kinds = {"thinking": "thinking_delta", "text": "text_delta"}
    for index, block in enumerate(blocks(said)):
        kind = block["type"]
        nothing: object = {} if kind == "tool_use" else ""
        empty = {**block, "input" if kind == "tool_use" else kind: nothing}
        yield "content_block_start", {"index": index, "content_block": empty}
        if kind == "tool_use":
            text = json.dumps(block["input"], ensure_ascii=False)
            deltas = [{"type": "input_json_delta", "partial_json": each} for each in _pieces(text)]
        else:
            deltas = [{"type": kinds[kind], kind: each} for each in _pieces(block[kind])]
        for delta in deltas:
            yield "content_block_delta", {"index": index, "delta": delta}
        yield "content_block_stop", {"index": index}


def words_of(said: Said) -> list[str]:
    """What is written, a token each."""
    texts = [said.thinking, said.text, *(json.dumps(call) for call in said.calls)]
    return [piece for text in texts for piece in _pieces(text)]


def _pieces(text: str) -> list[str]:
    """A text in pieces of about a token: a word with the space before it."""
    return re.findall(r"\s*\S{1,6}|\s+", text)
