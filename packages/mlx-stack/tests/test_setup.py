"""The steps of a setup, as far as they need neither engines nor a hub."""

import pytest
from msgspec.structs import replace

from mlx_recommend import Intent
from mlx_stack.errors import InvalidFileError, StackError
from mlx_stack.home import Home
from mlx_stack.planning.init import Draft
from mlx_stack.setup import (
    Choices,
    SetupEvent,
    SetupProgress,
    SetupResult,
    interrupted_setup,
    remember_setup,
    setup,
)
from mlx_stack.stack import load_stack
from mlx_stack.steps import StepStarted

QUIET = Choices(pulls=False, starts=False)


def outcomes(result: SetupResult) -> dict[str, str]:
    return {step.name: step.outcome for step in result.steps}


def test_the_stack_is_defined_and_the_rest_skipped(home: Home):
    told: list[SetupEvent] = []
    result = setup(home, QUIET, told.append)
    assert outcomes(result) == {
        "profile": "done",
        "stack": "done",
        "engines": "skipped",
        "models": "skipped",
        "start": "skipped",
    }
    begun = [event.name for event in told if isinstance(event, StepStarted)]
    assert begun == ["profile", "stack"]
    assert load_stack(home.stack).tiers
    assert interrupted_setup(home) is None


def test_the_choices_of_an_interrupted_setup_hold_where_the_next_leaves_them_open(home: Home):
    earlier = Choices(intent=Intent.AGENT_FLEET, budget_pct=60, pulls=False, starts=False)
    remember_setup(home, SetupProgress(choices=earlier))
    setup(home, Choices(budget_pct=50))
    assert load_stack(home.stack).intent == "agent-fleet"


def test_what_is_stopped_before_the_stack_is_written_is_continued_later(home: Home):
    def stop(event: SetupEvent) -> None:
        if isinstance(event, Draft):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        setup(home, QUIET, stop)
    assert not home.stack.exists()
    progress = interrupted_setup(home)
    assert progress is not None
    assert progress.done == ("profile",)
    assert outcomes(setup(home, Choices()))["stack"] == "done"


def test_a_no_forgets_the_answers(home: Home):
    def refuse(event: SetupEvent) -> None:
        if isinstance(event, Draft):
            raise StackError("no")

    with pytest.raises(StackError):
        setup(home, QUIET, refuse)
    assert interrupted_setup(home) is None


def test_the_plan_is_drafted_again_by_what_the_review_changes(home: Home):
    asked: list[tuple[str, ...]] = []

    def review(draft: Draft, choices: Choices, problem: StackError | None) -> Choices | None:
        assert problem is None
        asked.append(tuple(each.tier.model for each in draft.tiers))
        return None if choices.model else replace(choices, model="qwen3-0.6b")

    setup(home, QUIET, review=review)

    assert asked[1:] == [("qwen3-0.6b",)]
    assert asked[0] != asked[1]
    assert [tier.model for tier in load_stack(home.stack).tiers] == ["qwen3-0.6b"]


def test_an_embedder_is_planned_when_the_review_asks_for_one(home: Home):
    named: list[set[str]] = []

    def review(draft: Draft, choices: Choices, problem: StackError | None) -> Choices | None:
        assert problem is None
        missing = {each.tier for each in draft.missing}
        named.append(missing | {each.tier.name for each in draft.tiers})
        return None if choices.embedder else replace(choices, embedder=True)

    setup(home, QUIET, review=review)

    before, after = named
    assert after - before == {"embedder"}


def test_a_misspelled_model_is_asked_for_again_with_names_like_it(home: Home):
    problems: list[StackError | None] = []
    typed = iter(("qwen3-0.6", "qwen3-0.6b"))

    def review(_: Draft, choices: Choices, problem: StackError | None) -> Choices | None:
        problems.append(problem)
        return None if choices.model else replace(choices, model=next(typed))

    setup(home, QUIET, review=review)

    first, second, third = problems
    assert first is third is None
    assert second is not None
    assert "qwen3-0.6b" in (second.hint or "")
    assert [tier.model for tier in load_stack(home.stack).tiers] == ["qwen3-0.6b"]


def test_one_model_alone_can_be_set_up_and_then_another_is_refused(home: Home):
    setup(home, Choices(model="qwen3-0.6b", pulls=False, starts=False))
    assert [tier.model for tier in load_stack(home.stack).tiers] == ["qwen3-0.6b"]
    with pytest.raises(StackError, match="not in it"):
        setup(home, Choices(model="qwen3-8b", pulls=False, starts=False))
    again = setup(home, Choices(model="qwen3-0.6b", pulls=False, starts=False))
    assert outcomes(again)["stack"] == "already"


@pytest.mark.parametrize(
    "text", ["{", '{"schema_version": 2, "choices": {}}', '{"choices": {"x": 1}}']
)
def test_damaged_progress_names_its_file(home: Home, text: str):
    home.setup_progress.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidFileError, match=r"setup\.json"):
        interrupted_setup(home)
