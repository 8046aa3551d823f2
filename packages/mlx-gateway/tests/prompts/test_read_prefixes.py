"""What an upstream has read of a prompt, by the hashes of its parts."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.fields import read_fields
from mlx_gateway.prompts.read_prefixes import ReadPrefixes, unseen_tokens
from mlx_gateway.prompts.segments import Prompt, read_prompt

KEY = b"k" * 32
texts = st.lists(st.text("abcdefgh ", min_size=4, max_size=200), min_size=1, max_size=12)


def prompt(system: str, messages: list[str]) -> Prompt:
    said = [{"role": "user", "content": each} for each in messages]
    body = {"messages": [{"role": "system", "content": system}, *said]}
    found = read_prompt(read_fields(json.dumps(body).encode()), KEY)
    assert found is not None
    return found


@given(texts, texts)
def test_of_a_conversation_that_goes_on_only_what_is_new_is_unseen(
    past: list[str], more: list[str]
) -> None:
    before, now = prompt("be brief", past), prompt("be brief", past + more)

    new = sum(len(each) for each in more)
    assert unseen_tokens(now, [before.trace]) <= (new + 8 * len(more)) // 4 + 1
    assert unseen_tokens(now, [before.trace, now.trace]) == 0
    assert unseen_tokens(now, []) == now.size // 4


@given(texts, texts)
def test_nobody_knows_more_of_a_prompt_by_knowing_less(past: list[str], other: list[str]) -> None:
    now = prompt("be brief", past)
    others = [prompt("be brief", other).trace, prompt("be long", past).trace]

    assert 0 <= unseen_tokens(now, others) <= unseen_tokens(now, others[:1]) <= now.size // 4


def test_what_stands_behind_another_system_prompt_counts_as_unseen() -> None:
    past = ["a long message " * 40] * 3

    assert unseen_tokens(prompt("one", past), [prompt("two", past).trace]) == (
        prompt("one", past).size // 4
    )


def test_turns_of_one_conversation_take_one_place_and_the_oldest_goes() -> None:
    known = ReadPrefixes(most=2)
    talk = ["first " * 20]
    for turn in range(5):
        talk.append(f"turn {turn} " * 20)
        known.note("a", prompt("s", talk).trace)
    other = prompt("t", ["another " * 20])
    known.note("a", other.trace)

    assert known.unseen_tokens("a", prompt("s", talk)) == 0
    known.note("a", prompt("u", ["a third " * 20]).trace)
    assert known.unseen_tokens("a", other) == 0
    assert known.unseen_tokens("a", prompt("s", talk)) > 0
    known.forget("a")
    assert known.unseen_tokens("a", other) == other.size // 4
