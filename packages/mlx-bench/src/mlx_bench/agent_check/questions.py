"""What is asked, and what is right: questions that any model for agents must get right."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from mlx_bench.agent_check.ask import (
    CHAT_STREAMED,
    CHAT_WHOLE,
    MESSAGES_STREAMED,
    MESSAGES_WHOLE,
    WAYS,
    ApiWay,
    CheckCall,
    CheckTurn,
    Request,
    ended_well,
)
from mlx_bench.conformance.server import HttpAnswer

_MARKUP = ("<tool_call", "</tool_call", "<function", "<think", "</think", "<|", "[TOOL_CALLS]")
"""What a parser must have taken out of an answer."""


def _function(name: str, description: str, /, **properties: object) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
    return {"name": name, "description": description, "parameters": schema}


_TEXT = {"type": "string"}
_GUEST = {
    "type": "object",
    "properties": {"name": _TEXT, "email": _TEXT},
    "required": ["name", "email"],
}
_START = {
    "type": "object",
    "properties": {
        "date": {"type": "string", "description": "YYYY-MM-DD"},
        "time": {"type": "string", "description": "HH:MM"},
    },
    "required": ["date", "time"],
}
WEATHER = _function("get_weather", "The current weather in a city.", city=_TEXT)
_CONVERT = _function(
    "convert_currency",
    "Convert an amount of money.",
    amount={"type": "number"},
    source={"type": "string", "description": "ISO code, as USD"},
    target={"type": "string", "description": "ISO code, as EUR"},
)
_EVENT = _function(
    "create_event",
    "Put an event into the calendar.",
    title=_TEXT,
    start=_START,
    guests={"type": "array", "items": _GUEST},
)
_TASKS = _function("list_tasks", "All open tasks of the user.")
_NOTE = _function("save_note", "Save a note.", text=_TEXT)
_MESSAGE = _function("send_message", "Send a message to a person.", to=_TEXT, text=_TEXT)
_ALL = (WEATHER, _CONVERT, _EVENT, _TASKS, _NOTE, _MESSAGE)
LONG_TEXT = (
    'def greet(name):\n    """Say hello, even to "you"."""\n'
    '    path = "C:\\\\temp\\\\hello.txt"\n'
    '    return f"Hello, {name}! It\'s {path}: 100% <done> & {{closed}}"\n\n'
    "The second part is a list: (1) apples, pears and plums; (2) a slash / and a backslash \\; "
    "(3) a question? An exclamation! The end of the note is this sentence about a quiet harbour."
)
"""Quotes, backslashes, braces and line breaks: what careless escaping breaks."""
UNICODE_TEXT = "Grüße aus Kraków 🎉 日本語 👩‍💻 — naïve ½"
_PLACE = {
    "type": "object",
    "properties": {"city": _TEXT, "country": _TEXT, "population": {"type": "integer"}},
    "required": ["city", "country", "population"],
    "additionalProperties": False,
}
_IN_PARIS: CheckCall = ("get_weather", {"city": "Paris"})
_ASKED_IN_PARIS = CheckTurn("What is the weather in Paris right now?")


def _small_talk() -> tuple[CheckTurn, ...]:
    """Thirty turns, some with a tool's call, as a session of an agent has."""
    turns: list[CheckTurn] = []
    for number in range(1, 16):
        if number % 5 == 0:
            turns.append(CheckTurn("What is the weather in Rome right now?"))
            call: CheckCall = ("get_weather", {"city": "Rome"})
            turns.append(CheckTurn(call=call, result='{"temperature_c": 21}'))
            turns.append(CheckTurn("It is 21 degrees in Rome.", is_users=False))
        else:
            turns.append(
                CheckTurn(f"My number {number} is {number * 7}. Just say that you see it.")
            )
            turns.append(CheckTurn(f"I see it: {number * 7}.", is_users=False))
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class CheckQuestion:
    """One thing that an agent needs, and the ways in which it is tried.

    Attributes:
        id: Short, and the same for ever; with the way's it names a case.
        topic: What a verdict calls it when it is missing: `no parallel calls`.
        right: What a right answer is.
        is_right: Whether an answer is one.
        calls: The calls of a right answer, where there is one.
        says: What a right answer may say, where it is a text.
        needs_thinking: Whether it makes sense only with a model that thinks.
    """

    id: str
    topic: str
    right: str
    request: Request
    is_right: Callable[[HttpAnswer], bool]
    ways: tuple[ApiWay, ...]
    calls: tuple[CheckCall, ...] = ()
    says: str = ""
    needs_thinking: bool = False


def _is_clean(answer: HttpAnswer) -> bool:
    return not any(mark in answer.said for mark in _MARKUP)


def is_like(expected: object, given: object) -> bool:
    """Whether arguments mean the same; texts need only hold what is expected, in any case."""
    if isinstance(expected, Mapping) and isinstance(given, Mapping):
        wanted = cast("Mapping[str, object]", expected)
        found = cast("Mapping[str, object]", given)
        return all(key in found and is_like(wanted[key], found[key]) for key in wanted)
    if isinstance(expected, list) and isinstance(given, list):
        parts, others = cast("list[object]", expected), cast("list[object]", given)
        return len(parts) == len(others) and all(map(is_like, parts, others))
    if isinstance(expected, str) and isinstance(given, str):
        return expected.casefold() in given.casefold()
    return expected == given


def _calling(
    id: str,  # noqa: A002 - the field's name
    topic: str,
    right: str,
    request: Request,
    calls: tuple[CheckCall, ...],
    ways: tuple[ApiWay, ...],
    *,
    is_verbatim: bool = False,
) -> CheckQuestion:
    """A question whose right answer is these calls, in any order."""

    def is_right(answer: HttpAnswer) -> bool:
        left = list(answer.calls)
        for name, arguments in calls:
            for found in left:
                is_same = arguments == found[1] if is_verbatim else is_like(arguments, found[1])
                if found[0] == name and is_same:
                    left.remove(found)
                    break
            else:
                return False
        return not left and _is_clean(answer) and ended_well(answer, with_call=True)

    return CheckQuestion(id, topic, right, request, is_right, ways, calls)


def _saying(
    id: str,  # noqa: A002 - the field's name
    topic: str,
    right: str,
    request: Request,
    says: str,
    ways: tuple[ApiWay, ...],
    *,
    word: str = "",
) -> CheckQuestion:
    """A question whose right answer is a text without any call, which holds a word."""

    def is_right(answer: HttpAnswer) -> bool:
        said = answer.said.strip()
        return bool(said) and word in said and not answer.calls and _is_clean(answer)

    return CheckQuestion(id, topic, right, request, is_right, ways, says=says)


def _is_forced(answer: HttpAnswer) -> bool:
    return bool(answer.calls) and all(name == "get_weather" for name, _ in answer.calls)


def _is_place(answer: HttpAnswer) -> bool:
    place = json.loads(answer.said)
    return (
        set(place) == {"city", "country", "population"}
        and isinstance(place["population"], int)
        and "tokyo" in place["city"].casefold()
    )


def _is_stopped(answer: HttpAnswer) -> bool:
    said = answer.said.casefold()
    return "four" in said and "five" not in said and answer.ending in ("stop", "stop_sequence")


def _has_thought(answer: HttpAnswer) -> bool:
    return bool(answer.thinking.strip()) and "42" in answer.said and _is_clean(answer)


def _has_not_thought(answer: HttpAnswer) -> bool:
    return not answer.thinking.strip() and "42" in answer.said and _is_clean(answer)


_WEATHER_IN_PARIS = Request("What is the weather in Paris right now?", tools=(WEATHER,))
ONE_TOOL = _calling(
    "T01",
    "tool calls",
    "one call of get_weather for Paris",
    _WEATHER_IN_PARIS,
    (_IN_PARIS,),
    WAYS,
)
"""The least that a model for agents must do."""
_SUM = Request("What is 17 plus 25? Answer with the number only.", max_tokens=640)

QUESTIONS: tuple[CheckQuestion, ...] = (
    ONE_TOOL,
    _calling(
        "T02", "choice among several tools", "one call of convert_currency: 250, USD, EUR",
        Request("Convert 250 US dollars to euros.", tools=_ALL),
        (("convert_currency", {"amount": 250, "source": "USD", "target": "EUR"}),),
        (CHAT_STREAMED, MESSAGES_WHOLE),
    ),
    _calling(
        "T03", "parallel calls", "two calls of get_weather in one answer",
        Request("What is the weather in Paris and in Tokyo right now? "
                "Call the tool for both cities at once, in one answer.", tools=(WEATHER,)),
        (_IN_PARIS, ("get_weather", {"city": "Tokyo"})),
        (CHAT_WHOLE, CHAT_STREAMED, MESSAGES_STREAMED),
    ),
    _calling(
        "T04", "nested arguments", "one call of create_event with its start and both guests",
        Request("Put an event titled Planning into my calendar, on 2027-03-05 at 09:30, with "
                "Ana (ana@example.com) and Bo (bo@example.com).", tools=(_EVENT, _TASKS),
                max_tokens=224),
        (("create_event", {
            "title": "Planning", "start": {"date": "2027-03-05", "time": "09:30"},
            "guests": [{"name": "Ana", "email": "ana@example.com"},
                       {"name": "Bo", "email": "bo@example.com"}]}),),
        (CHAT_STREAMED, MESSAGES_WHOLE),
    ),
    _calling(
        "T05", "calls without arguments", "one call of list_tasks with {}",
        Request("List my open tasks.", tools=(_TASKS, _NOTE)), (("list_tasks", {}),),
        (CHAT_WHOLE, MESSAGES_STREAMED),
        is_verbatim=True,
    ),
    _calling(
        "T06", "long texts in arguments", "one call of save_note with every character of the text",
        Request("Save exactly the following text as a note, every character of it, and nothing "
                f"else:\n\n{LONG_TEXT}", tools=(_NOTE, _TASKS), max_tokens=320),
        (("save_note", {"text": LONG_TEXT}),), (CHAT_STREAMED, MESSAGES_STREAMED),
        is_verbatim=True,
    ),
    _calling(
        "T07", "unicode in arguments", "one call of send_message with every character of the text",
        Request(f"Send this message to Zoë, exactly as it stands: {UNICODE_TEXT}",
                tools=(_MESSAGE, _NOTE)),
        (("send_message", {"to": "Zoë", "text": UNICODE_TEXT}),), (CHAT_STREAMED, MESSAGES_WHOLE),
        is_verbatim=True,
    ),
    _saying(
        "T08", "use of tool results", "an answer with the temperature, and no call",
        Request(
            "", tools=(WEATHER,),
            before=(_ASKED_IN_PARIS, CheckTurn(call=_IN_PARIS, result='{"temperature_c": 17}')),
        ),
        "It is 17 degrees in Paris.", (CHAT_WHOLE, CHAT_STREAMED, MESSAGES_STREAMED), word="17",
    ),
    _calling(
        "T09", "calls after 30 turns", "one call of get_weather for Lisbon",
        Request("What is the weather in Lisbon right now?", before=_small_talk(), tools=(WEATHER,)),
        (("get_weather", {"city": "Lisbon"}),), (CHAT_STREAMED, MESSAGES_STREAMED),
    ),
    _saying(
        "T10", "tool_choice none", "a text, and no call", replace(_WEATHER_IN_PARIS, choice="none"),
        "I can't see the weather.", (CHAT_WHOLE, MESSAGES_STREAMED),
    ),
    CheckQuestion(
        "T11", "tool_choice required", "a call of the tool",
        Request("How warm is it in Oslo?", tools=(WEATHER,), choice="required"), _is_forced,
        (CHAT_STREAMED, MESSAGES_WHOLE), (("get_weather", {"city": "Oslo"}),),
    ),
    CheckQuestion(
        "T12", "named tool_choice", "a call of the named tool, and of no other",
        Request("I am in Oslo. What should I wear?", tools=(_TASKS, WEATHER, _NOTE),
                choice="get_weather"), _is_forced,
        (CHAT_WHOLE, MESSAGES_STREAMED), (("get_weather", {"city": "Oslo"}),),
    ),
    CheckQuestion(
        "T13", "JSON schema output", "JSON of that schema, and nothing else",
        Request("Describe the capital of Japan.", schema=_PLACE), _is_place,
        (CHAT_WHOLE, CHAT_STREAMED, MESSAGES_WHOLE),
        says='{"city": "Tokyo", "country": "Japan", "population": 14000000}',
    ),
    CheckQuestion(
        "T14", "stop sequences", "the answer ends before the stop sequence",
        Request("Count from one to ten, spelled out, all on one line, with spaces between them.",
                stop=("zzz", " five")), _is_stopped,
        (CHAT_STREAMED, MESSAGES_WHOLE), says="one two three four five six seven eight nine ten",
    ),
    CheckQuestion(
        "T15", "thinking", "thoughts apart from the answer, which has the number",
        replace(_SUM, thinks=True), _has_thought, (CHAT_STREAMED, MESSAGES_STREAMED),
        says="42", needs_thinking=True,
    ),
    CheckQuestion(
        "T16", "thinking switched off", "no thoughts, and an answer that has the number",
        replace(_SUM, thinks=False), _has_not_thought, (CHAT_WHOLE, MESSAGES_STREAMED),
        says="42", needs_thinking=True,
    ),
    replace(
        _calling("T17", "calls after thinking", "thoughts, then one call of get_weather",
                 replace(_WEATHER_IN_PARIS, thinks=True, max_tokens=640), (_IN_PARIS,),
                 (CHAT_STREAMED, MESSAGES_STREAMED)),
        needs_thinking=True,
    ),
    _saying(
        "T18", "restraint where no tool fits", "a text, and no call",
        Request("Write one short sentence about bread.", tools=_ALL),
        "Bread is good.", (CHAT_WHOLE, MESSAGES_STREAMED),
    ),
)  # fmt: skip
