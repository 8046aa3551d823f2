"""What clients change in their system prompts each turn, and what becomes of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.fields import read_fields
from mlx_gateway.prompts.stable_head import SHAPES, with_stable_head

BILLING = "x-anthropic-billing-header: cc_version=2.1.100.7b4; cc_entrypoint=cli; cch={};"
PI = "Current date and time: Monday, March 9, 2026 at 06:{}:31 PM PDT"
HOME = "Current time is 15:09:{}. Today's date is 2026-09-09."
MEMORY = "- The current system date is: 2026-08-19T10:11:{}.123Z"
COUNTDOWN = "<total_tokens>149994{} tokens left</total_tokens>"
RULES = "You are a careful agent.\nRead before you write."


def _stable(body: dict[str, Any]) -> dict[str, Any]:
    return json.loads(with_stable_head(read_fields(json.dumps(body).encode())).encode())


def _messages(*blocks: str, said: Any = "Hello") -> dict[str, Any]:
    system = [{"type": "text", "text": each} for each in blocks]
    return {"system": system, "messages": [{"role": "user", "content": said}]}


def _chat(system: str, *more: dict[str, Any]) -> dict[str, Any]:
    first = {"role": "system", "content": system}
    return {"messages": [first, {"role": "user", "content": "Hello"}, *more]}


@pytest.mark.parametrize(
    "header",
    [
        BILLING.format("eb6c6"),
        "x-anthropic-billing-header: cc_version=2.1.38; cc_entrypoint=cli; cch=4873d;",
        "x-anthropic-billing-header: cc_version=9.9.9; cc_entrypoint=sdk-cli;",
        f"{BILLING.format('00000')} cc_workload=cron;",
    ],
)
def test_claude_codes_billing_header_never_reaches_the_model(header: str) -> None:
    assert _stable(_messages(header, RULES)) == _messages(RULES)
    assert _stable(_messages(f"{header}\n{RULES}")) == _messages(RULES)
    assert _stable(_chat(f"{header}\n{RULES}")) == _chat(RULES), "a router made one text of it"
    assert "system" not in _stable(_messages(header))


@pytest.mark.parametrize(
    "text",
    [
        f"Never send {BILLING.format('eb6c6')}",
        f"{RULES}\n{BILLING.format('eb6c6')}",
        "x-anthropic-billing-header: cc_version=2.1.100.7b4; and more words",
        "x-anthropic-billing-header: something else\nYou are a careful agent.",
    ],
)
def test_what_only_looks_like_the_billing_header_stays(text: str) -> None:
    assert _stable(_messages(text, RULES)) == _messages(text, RULES)


def test_claude_codes_countdown_does_not_change_the_head() -> None:
    """vllm-mlx puts every system message at the front, whatever it stood behind."""

    def turn(*left: str) -> dict[str, Any]:
        said: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]
        for each in left:
            said += [{"role": "assistant", "content": "…"}, {"role": "user", "content": "and"}]
            said += [{"role": "system", "content": each}] if each else []
        return {"system": RULES, "messages": said}

    counted = turn(COUNTDOWN.format("36"), COUNTDOWN.format("12"))
    assert _stable(counted) == turn("", "")
    infinite = "<total_tokens>Infinite tokens left</total_tokens>"
    assert _stable({**turn(""), "system": f"{RULES}\n\n{infinite}"}) == turn("")
    both = f"# Environment\n{COUNTDOWN.format('36')}"
    assert _stable(turn(both)) == turn("# Environment"), "the rest of the message stays"


@pytest.mark.parametrize("clock", [PI, HOME, MEMORY])
def test_a_clock_to_the_second_goes_behind_the_users_last_words(clock: str) -> None:
    lines = [clock.format(second) for second in ("10", "34")]
    first, second = (_stable(_chat(f"{RULES}\n{each}\n\nBe brief.")) for each in lines)

    assert first["messages"][0] == second["messages"][0]
    assert first["messages"][0]["content"] == f"{RULES}\n\nBe brief."
    assert [each["messages"][1]["content"] for each in (first, second)] == [
        f"Hello\n\n{each}" for each in lines
    ]


def test_a_clock_goes_behind_the_users_words_in_every_api() -> None:
    line = PI.format("00")
    system = f"{RULES}\n{line}"
    result = {"role": "user", "content": [{"type": "tool_result", "content": "sunny"}]}
    said = [{"type": "text", "text": "Hello"}]

    messages = _stable({**_messages(system, said=said), "max_tokens": 1})["messages"]
    assert messages[0]["content"] == [*said, {"type": "text", "text": line}]
    body = _messages(system, said=said)
    body["messages"] += [{"role": "assistant", "content": "…"}, result]
    assert _stable(body)["messages"][2] == result, "the result of a tool isn't the user's"
    assert _stable(body)["messages"][0]["content"][1]["text"] == line
    assert _stable({"instructions": system, "input": "Hello"}) == {
        "instructions": RULES,
        "input": f"Hello\n\n{line}",
    }
    items = [{"role": "user", "content": [{"type": "input_text", "text": "Hello"}]}]
    item = _stable({"instructions": system, "input": items})["input"][0]
    assert item["content"][1] == {"type": "input_text", "text": line}
    assert _stable({"system": system, "prompt": "Hello"})["prompt"] == f"Hello\n\n{line}"


@pytest.mark.parametrize("clock", [PI, HOME, MEMORY])
def test_a_clock_stays_where_no_word_of_the_user_could_carry_it(clock: str) -> None:
    alone = {"messages": [{"role": "system", "content": clock.format("10")}]}

    assert _stable(alone) == alone


@pytest.mark.parametrize(
    "said",
    [BILLING.format("eb6c6"), COUNTDOWN.format("36"), PI.format("10"), HOME.format("10"),
     MEMORY.format("10")],
)  # fmt: skip
def test_what_the_user_or_a_tool_says_stays_as_it_is(said: str) -> None:
    tool = {"role": "tool", "tool_call_id": "1", "content": said}
    body = {"messages": [{"role": "user", "content": said}, {"role": "assistant"}, tool]}

    assert _stable(body) == body


@pytest.mark.parametrize(
    "text",
    ["Current time is 15:09. Today's date is 2026-09-09.", "Current date: Mon Mar 09 2026",
     f"Say: {HOME.format('10')}", f"{PI.format('10')} (PDT)", "<total_tokens>12</total_tokens>"],
)  # fmt: skip
def test_other_dates_stay_in_the_system_prompt(text: str) -> None:
    assert _stable(_chat(text)) == _chat(text)


@given(
    st.lists(st.text() | st.sampled_from([BILLING, COUNTDOWN, PI, HOME, MEMORY]), max_size=4),
    st.sampled_from([None, 2]),
)
def test_every_other_byte_stays(lines: list[str], indent: int | None) -> None:
    others = [
        {"role": "assistant", "content": "\u00e9", "n": 1e3},
        {"role": "user", "content": "…"},
    ]
    body = {"temperature": 1.50, **_chat("\n".join(lines)), "tools": [{"type": "function"}]}
    body["messages"] += others
    text = json.dumps(body, indent=indent)
    before = read_fields(text.encode())

    after = with_stable_head(before)

    assert after.raw("tools") == before.raw("tools")
    assert after.raw("temperature") == before.raw("temperature")
    assert json.dumps(others[0], indent=indent).split("\n")[0].encode() in after.raw("messages")
    assert with_stable_head(after).encode() == after.encode(), "once is enough"


@given(
    st.recursive(
        st.none() | st.integers() | st.sampled_from([BILLING, HOME, "user", "system"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["role", "content", "text", "type"]), inner)
        ),
        max_leaves=8,
    )
)
def test_a_request_that_makes_no_sense_is_left_to_its_api(value: Any) -> None:
    body = {"messages": value, "system": value, "input": value}

    with_stable_head(read_fields(json.dumps(body).encode()))


def test_each_shape_has_its_own_mark() -> None:
    assert len({shape.mark for shape in SHAPES}) == len({s.client for s in SHAPES}) == len(SHAPES)
