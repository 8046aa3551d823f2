"""Prompts of an exact token count, against servers that count in their own ways."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_bench.errors import ParametersError
from mlx_bench.workload import WORDS, Exactness, Parameters, PromptMaker, calibrate_prompts

OVERHEAD = 23


class WordCounter:
    """Counts like a tokenizer in which some words are two tokens."""

    def __init__(self, double: set[str] | None = None) -> None:
        self.double = double or set()
        self.asked = 0

    def __call__(self, prompt: str) -> int:
        self.asked += 1
        return self.count(prompt)

    def count(self, prompt: str) -> int:
        return OVERHEAD + sum(1 + (word in self.double) for word in prompt.split())


def test_two_requests_are_enough_where_every_word_is_a_token() -> None:
    counter = WordCounter()
    prompts = calibrate_prompts(counter)
    assert prompts.exactness is Exactness.EXACT
    assert counter.asked == 2


@settings(max_examples=40)
@given(
    target=st.integers(60, 5000),
    index=st.integers(0, 50),
    double=st.sets(st.sampled_from(WORDS), max_size=5),
)
def test_prompts_have_exactly_the_tokens_asked_for(
    target: int, index: int, double: set[str]
) -> None:
    counter = WordCounter(double)
    prompts = calibrate_prompts(counter)
    if prompts.exactness is Exactness.EXACT:
        assert counter.count(prompts.make(target, seed=1, index=index)) == target


def test_words_of_several_tokens_are_found_and_left_out() -> None:
    counter = WordCounter({WORDS[20], WORDS[70]})
    prompts = calibrate_prompts(counter)
    assert prompts.exactness is Exactness.EXACT
    assert not counter.double & set(prompts.words)
    assert counter.count(prompts.make(500, seed=0, index=0)) == 500


def test_a_server_that_counts_characters_gets_nearly_the_length() -> None:
    prompts = calibrate_prompts(lambda prompt: len(prompt) // 4)
    assert prompts.exactness is Exactness.PROPORTIONAL
    made = len(prompts.make(2000, seed=0, index=0)) // 4
    assert made == pytest.approx(2000, rel=0.1)


@pytest.mark.parametrize("answer", [None, 0, 42])
def test_a_server_that_does_not_count_leaves_an_assumption(answer: int | None) -> None:
    prompts = calibrate_prompts(lambda _: answer)
    assert prompts.exactness is Exactness.ASSUMED


def test_every_prompt_begins_differently_and_the_seed_repeats_them() -> None:
    prompts = PromptMaker()
    made = [prompts.make(300, seed=5, index=index) for index in range(40)]
    assert len({text[:60] for text in made}) == 40
    assert made[3] == PromptMaker().make(300, seed=5, index=3)
    assert made[3] != PromptMaker().make(300, seed=6, index=3)


def test_a_prompt_shorter_than_the_template_still_has_a_word() -> None:
    prompts = PromptMaker(overhead=50, exactness=Exactness.EXACT)
    assert prompts.word_count(10) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"iterations": 0},
        {"prompt_tokens": ()},
        {"concurrency": (0,)},
        {"generation_tokens": 0},
        {"warm_up": -1},
        {"precision": 1.5},
    ],
)
def test_parameters_that_make_no_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ParametersError):
        Parameters(**wrong)  # pyright: ignore[reportArgumentType]
