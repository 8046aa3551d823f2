"""Why a turn of a conversation is read again, told from hashes alone."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.fields import Fields, read_fields
from mlx_gateway.prompts.conversations import (
    Conversations,
    Prefix,
    TurnChange,
    in_words,
    reread,
)
from mlx_gateway.prompts.segments import read_prompt

WHOSE = ("standard", "laptop", "opencode")
LINES = [f"Rule {n}: be careful." for n in range(10)]
TOOLS = [{"name": f"tool_{n}", "input_schema": {"type": "object"}} for n in range(3)]


def _body(messages: list[str], lines: list[str] = LINES, tools: Any = TOOLS) -> dict[str, Any]:
    said = [{"role": ("user", "assistant")[n % 2], "content": m} for n, m in enumerate(messages)]
    return {"system": "\n".join(lines), "tools": tools, "messages": said}


def _fields(body: dict[str, Any]) -> Fields:
    return read_fields(json.dumps(body).encode())


def compare(
    known: Conversations, whose: tuple[str, ...], fields: Fields, tokens: int | None
) -> TurnChange | None:
    prompt = known.read(fields)
    return None if prompt is None else known.compare(whose, prompt, tokens)


def _seen(known: Conversations, body: dict[str, Any], tokens: int | None = None) -> TurnChange:
    found = compare(known, WHOSE, _fields(body), tokens)
    assert found is not None
    return found


def _turns(count: int) -> list[str]:
    return [f"turn {n}" for n in range(count)]


texts = st.lists(st.uuids().map(str), min_size=1, max_size=12, unique=True)


@given(texts, texts)
def test_a_conversation_that_grows_is_never_read_again(said: list[str], more: list[str]) -> None:
    known = Conversations()

    assert _seen(known, _body(said)).prefix is Prefix.NEW
    for count in range(1, len(more) + 1):
        assert _seen(known, _body([*said, *more[:count]])).prefix is Prefix.GROWN
    assert len(known) == 1


@given(st.data())
def test_the_line_that_changes_each_turn_is_named(data: st.DataObject) -> None:
    known, line = Conversations(), data.draw(st.integers(0, 9))
    _seen(known, _body(_turns(3)))

    for turn in range(4, 8):
        lines = [f"It is {turn}." if n == line else text for n, text in enumerate(LINES)]
        found = _seen(known, _body(_turns(turn), lines))
        assert (found.prefix, found.place) == (Prefix.SYSTEM, line + 1)
        assert 0 < found.again_share < 1
    assert len(known) == 1


@given(st.integers(1, 9), st.integers(1, 3))
def test_a_history_edited_in_the_middle_is_told_by_its_place(place: int, more: int) -> None:
    known = Conversations()
    _seen(known, _body(_turns(10)))
    edited = _turns(10 + more)
    edited[place] = "something else"

    found = _seen(known, _body(edited))

    assert (found.prefix, found.place) == (Prefix.MESSAGE, place + 1)
    whole = sum(map(len, edited)) + sum(map(len, LINES))
    assert found.again_share <= (9 - place) * 20 / whole, "what is new was not read before"
    assert found.again_share > 0 or place == 9


def test_another_tool_is_told_from_another_line() -> None:
    known = Conversations()
    _seen(known, _body(_turns(3)))

    found = _seen(known, _body(_turns(5), tools=[TOOLS[0], {"name": "other"}, TOOLS[2]]))
    assert (found.prefix, found.place) == (Prefix.TOOLS, 2)
    found = _seen(known, _body(_turns(7), tools=[TOOLS[0], {"name": "other"}]))
    assert (found.prefix, found.place) == (Prefix.TOOLS, 3), "it is gone"


def test_what_a_head_lost_is_not_blamed_on_what_follows() -> None:
    known = Conversations()
    _seen(known, _body(_turns(3)))

    found = _seen(known, _body(_turns(5), LINES[:-1]))
    assert (found.prefix, found.place) == (Prefix.SYSTEM, 10), "the last line is gone, no tool"
    found = _seen(known, _body(_turns(7), LINES[:-1], tools=[]))
    assert (found.prefix, found.place) == (Prefix.TOOLS, 1), "all tools are gone, no line"
    found = _seen(known, _body(_turns(9), LINES[:-1]))
    assert (found.prefix, found.place) == (Prefix.TOOLS, 1), "they are back"
    found = _seen(known, _body(_turns(11)))
    assert (found.prefix, found.place) == (Prefix.SYSTEM, 10), "so is the line"


def _tool_with(properties: dict[str, Any], **more: Any) -> list[Any]:
    return [{"name": "find", "input_schema": {"type": "object", "properties": properties}, **more}]


@pytest.mark.parametrize(
    "changed",
    [
        {"file": {"type": "string"}, "id": {"description": "Whose"}},
        {"path": {"type": "integer"}, "id": {"description": "Whose"}},
        {"path": {"type": "string"}, "id": {"description": "Which"}},
    ],
    ids=["a-name", "a-type", "of-the-parameter-id"],
)
def test_a_tool_whose_parameters_changed_is_named(changed: dict[str, Any]) -> None:
    known = Conversations()
    tools = _tool_with({"path": {"type": "string"}, "id": {"description": "Whose"}})
    _seen(known, _body(_turns(3), tools=tools))
    for count in (4, 5):
        marked = [{**tools[0], "cache_control": {"type": "ephemeral"}}] if count == 5 else tools
        assert _seen(known, _body(_turns(count), tools=marked)).prefix is Prefix.GROWN

    found = _seen(known, _body(_turns(7), tools=_tool_with(changed)))
    assert (found.prefix, found.place) == (Prefix.TOOLS, 1)


@pytest.mark.parametrize("passed", [{"new": "a", "id": "1"}, {"old": "a", "id": "2"}])
def test_a_call_in_the_history_with_other_arguments_is_named(passed: dict[str, str]) -> None:
    known = Conversations()
    body, edited = _body(_turns(5)), _body(_turns(7))
    for each, given_to_it in ((body, {"old": "a", "id": "1"}), (edited, passed)):
        call = {"type": "tool_use", "id": "call", "name": "f", "input": given_to_it}
        each["messages"][1]["content"] = [call]
    _seen(known, body)

    found = _seen(known, edited)
    assert (found.prefix, found.place) == (Prefix.MESSAGE, 2)


def test_two_conversations_with_the_same_head_are_two() -> None:
    known = Conversations()
    for first in ("Fix the bug.", "Write a test."):
        assert _seen(known, _body([first])).prefix is Prefix.NEW

    for turn in range(1, 5):
        for first in ("Fix the bug.", "Write a test."):
            said = [first, *(f"{first} {n}" for n in range(turn))]
            assert _seen(known, _body(said)).prefix is Prefix.GROWN
    assert len(known) == 2


def test_conversations_that_begin_with_the_same_words_are_two() -> None:
    known = Conversations()
    _seen(known, _body(["Hello", "Hi", "More", "Yes"]))

    assert _seen(known, _body(["Hello"])).prefix is Prefix.NEW
    assert _seen(known, _body(["Hello", "Hi", "More", "Yes", "And"])).prefix is Prefix.GROWN
    assert _seen(known, _body(["Hello", "Good day", "Less"])).prefix is Prefix.GROWN
    assert len(known) == 2


@given(st.permutations(range(12)))
def test_parallel_sub_agents_do_not_disturb_each_other(order: list[int]) -> None:
    """Three agents of one system prompt, their four turns in any order of arrival."""
    known, turns = Conversations(), [0, 0, 0]
    for each in order:
        agent = each % 3
        turns[agent] += 1
        said = [f"agent {agent}, {n}" for n in range(2 * turns[agent] - 1)]
        wanted = Prefix.NEW if turns[agent] == 1 else Prefix.GROWN
        assert _seen(known, _body(said)).prefix is wanted
    assert len(known) == 3


def test_a_title_of_the_same_first_message_is_no_turn_of_the_conversation() -> None:
    known = Conversations()
    _seen(known, _body(["Fix the bug."]))

    title = _body(["Fix the bug."], lines=["Write a title of five words."], tools=[])
    assert _seen(known, title).prefix is Prefix.NEW
    assert _seen(known, _body(["Fix the bug.", "Done.", "Thanks."])).prefix is Prefix.GROWN


def test_a_history_that_was_compacted_is_shortened_or_new() -> None:
    known = Conversations()
    _seen(known, _body(_turns(9)))
    found = _seen(known, _body(["turn 0", "A summary.", "turn 9"]))
    assert (found.prefix, found.place, found.again_share) == (Prefix.SHORTENED, 2, 0.0)

    _seen(known, _body([f"other {n}" for n in range(9)]))
    assert _seen(known, _body(["A summary of all.", "turn 10"])).prefix is Prefix.NEW


def test_a_window_that_slides_over_the_history_is_shortened_each_turn() -> None:
    known = Conversations()
    _seen(known, _body(_turns(8)))

    found = _seen(known, _body(_turns(10)[2:]))

    assert (found.prefix, found.place) == (Prefix.SHORTENED, 1)
    assert found.again_share > 0


def test_marks_for_another_cache_and_the_form_of_a_message_change_nothing() -> None:
    """Claude Code moves its marks each turn, and sends its last message in another form."""
    known = Conversations()
    marked = {"type": "text", "text": "turn 2", "cache_control": {"type": "ephemeral"}}
    body = _body(_turns(3))
    body["messages"][2]["content"] = [marked]
    _seen(known, body)

    assert _seen(known, _body(_turns(5))).prefix is Prefix.GROWN


def test_other_clients_keys_and_engines_are_other_conversations() -> None:
    known = Conversations()
    fields = _fields(_body(_turns(3)))
    compare(known, WHOSE, fields, None)

    for whose in (
        ("fast", *WHOSE[1:]),
        ("standard", "phone", "opencode"),
        ("standard", "laptop", ""),
    ):
        found = compare(known, whose, fields, None)
        assert found is not None
        assert found.prefix is Prefix.NEW


@given(st.integers(1, 30))
def test_memory_is_bounded_and_the_oldest_conversation_goes(most: int) -> None:
    known = Conversations(most)
    for number in range(most + 5):
        _seen(known, _body([f"conversation {number}"]))
    assert len(known) == most

    assert _seen(known, _body([f"conversation {most + 4}", "more"])).prefix is Prefix.GROWN
    assert _seen(known, _body(["conversation 0", "more"])).prefix is Prefix.NEW


def test_nothing_of_the_text_is_kept_and_no_two_keys_hash_alike() -> None:
    fields = _fields(_body(["my secret"]))
    first, second = (read_prompt(fields, key) for key in (b"one", b"two"))

    assert first is not None
    assert second is not None
    assert "secret" not in repr(first)
    assert {each.digest for each in first.segments}.isdisjoint(
        each.digest for each in second.segments
    )


def test_a_prompt_of_any_length_is_a_bounded_number_of_parts() -> None:
    body = _body(_turns(6_000), lines=[f"line {n}" for n in range(5_000)], tools=TOOLS * 300)

    prompt = read_prompt(_fields(body), b"key")

    assert prompt is not None
    assert len(prompt.segments) == 2_000 + 500 + 4_000
    body["messages"][5_500]["content"] = "something else"
    other = read_prompt(_fields(body), b"key")
    assert other is not None
    assert prompt.trace != other.trace, "what follows is one part"


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "text", "x"]), inner, max_size=3)
        ),
        max_leaves=8,
    )
)
def test_whatever_a_request_holds_is_compared_without_an_error(value: Any) -> None:
    known = Conversations()
    for body in ({"messages": value, "tools": value}, {"input": value, "system": value}):
        fields = _fields(body)
        compare(known, WHOSE, fields, None)
        compare(known, WHOSE, fields, None)


def test_what_is_no_prompt_is_no_turn() -> None:
    assert compare(Conversations(), WHOSE, _fields({"file": "x"}), None) is None
    assert compare(Conversations(), WHOSE, _fields({"messages": []}), None) is None


def test_tokens_are_what_the_engine_did_not_keep() -> None:
    changed = TurnChange(Prefix.SYSTEM, 3, 0.9, earlier_tokens=9_000)

    said = reread(changed, prompt_tokens=10_000, cached_tokens=None, reading_s=20.0)
    assert (said.tokens, said.seconds) == (9_000, None), "what was read isn't known, nor its time"
    said = reread(changed, prompt_tokens=10_000, cached_tokens=1_000, reading_s=20.0)
    assert (said.tokens, said.seconds) == (9_000, 20.0)
    said = reread(changed, prompt_tokens=10_000, cached_tokens=9_500, reading_s=2.0)
    assert said.tokens == 500, "the engine kept it in spite of the change"
    said = reread(changed, prompt_tokens=None, cached_tokens=None, reading_s=2.0)
    assert said.tokens is None


def test_an_engine_that_kept_nothing_of_an_unchanged_prompt_is_named() -> None:
    grown = TurnChange(Prefix.GROWN, earlier_tokens=9_000)

    said = reread(grown, prompt_tokens=10_000, cached_tokens=0, reading_s=20.0)
    assert (said.prefix, said.tokens, said.seconds) == (Prefix.DROPPED, 9_000, 18.0)
    said = reread(grown, prompt_tokens=10_000, cached_tokens=8_960, reading_s=2.0)
    assert (said.prefix, said.tokens) == (Prefix.GROWN, 0), "a block that wasn't full"
    said = reread(grown, prompt_tokens=10_000, cached_tokens=None, reading_s=20.0)
    assert (said.prefix, said.tokens) == (Prefix.GROWN, 0), "nobody knows better"


@pytest.mark.parametrize("prefix", list(Prefix))
def test_every_reason_has_words(prefix: Prefix) -> None:
    assert "opencode" in in_words(prefix, 3, "opencode")
    assert "None" not in in_words(prefix, None, "")
    assert in_words(Prefix.SYSTEM, 3, "opencode", each_turn=True) == (
        "line 3 of opencode's system prompt changes each turn"
    )
