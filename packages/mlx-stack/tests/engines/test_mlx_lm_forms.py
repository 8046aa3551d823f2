"""What an answer of mlx-lm is held to, as far as it is known without the engine."""

import json

import pytest

from mlx_stack.engines.mlx_lm_forms import Thoughts, schema_of

OPEN, CLOSE = (7, 8), (9,)


def test_a_response_format_is_a_schema_or_nothing() -> None:
    assert schema_of(None) is None
    assert schema_of({"type": "text"}) is None
    assert schema_of({"type": "json_object"}) == '{"type": "object"}'
    schema = {"type": "integer"}
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert json.loads(schema_of(asked) or "") == schema


@pytest.mark.parametrize(
    "asked",
    [
        "json",
        {},
        {"type": "xml"},
        {"type": "json_schema"},
        {"type": "json_schema", "json_schema": {"schema": "{}"}},
        {"type": "json_schema", "json_schema": {"schema": {"enum": ["x" * 300_000]}}},
    ],
)
def test_what_is_no_form_is_refused(asked: object) -> None:
    with pytest.raises(ValueError, match="response_format"):
        schema_of(asked)


def after(*answer: int, prompt: tuple[int, ...] = ()) -> tuple[Thoughts, list[bool]]:
    thoughts = Thoughts(OPEN, CLOSE)
    thoughts.begin([*prompt])
    return thoughts, [thoughts.take(token) for token in answer]


def test_thoughts_before_an_answer_are_free() -> None:
    thoughts, taken = after(7, 8, 1, 2)
    assert (thoughts.are_open, taken) == (True, [True] * 4)
    thoughts, taken = after(7, 8, 1, 9, 3)
    assert (thoughts.are_open, taken) == (False, [True] * 4 + [False])


def test_an_answer_may_begin_without_thoughts_and_has_none_later() -> None:
    thoughts, _ = after()
    assert (thoughts.are_open, thoughts.next_opening) == (False, 7)
    thoughts, taken = after(1, 7)
    assert (taken, thoughts.next_opening) == ([False, False], None)
    opening, _ = after(7)
    assert (opening.are_opening, opening.next_opening) == (True, 8)
    assert not after()[0].are_opening
    assert after(7, 8, 9)[0].next_opening is None


def test_a_prompt_that_has_begun_a_thought_is_continued_by_it() -> None:
    thoughts, taken = after(1, 9, 3, prompt=(1, 7, 8, 9, 2, 7, 8))
    assert (thoughts.are_open, taken) == (False, [True, True, False])
    assert not after(prompt=(7, 8, 9))[0].are_open


def test_a_model_without_thoughts_answers_at_once() -> None:
    thoughts = Thoughts(None, None)
    thoughts.begin([1, 2])
    assert (thoughts.are_open, thoughts.next_opening, thoughts.take(1)) == (False, None, False)
