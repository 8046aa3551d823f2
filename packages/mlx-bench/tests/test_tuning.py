"""What is made of trials: which setting wins, what is tried next, what is kept."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_bench.tuning import (
    BASELINE,
    Trial,
    TrialOutcome,
    Tuning,
    TuningCandidate,
    TuningStep,
    chosen,
    judge,
    next_candidate,
    pending,
)

STEP = TuningCandidate("prefill step", {"prefill-step-size": 4096})
INTERVAL = TuningCandidate("stream interval", {"stream-interval": 4})
BITS = TuningCandidate("KV bits", {"kv-cache-quantization": True}, changes_answers=True)
ANSWERS = {"capital": "Paris."}


def trial(candidate: TuningCandidate, factor: float = 1.0, **more: object) -> Trial:
    """Six runs around 50 tokens/s times a factor, within one percent."""
    samples = tuple(50 * factor * (1 + each / 1000) for each in (-9, -4, -1, 2, 5, 8))
    fields: dict[str, object] = {"answers": ANSWERS, "seconds": 10.0, **more}
    return Trial(candidate, samples={"generation_tps/1": samples}, **fields)  # pyright: ignore[reportArgumentType]


def tuning(*trials: Trial, limit_bytes: int | None = None) -> Tuning:
    """Two baselines with these trials between them."""
    singles = (each.candidate for each in trials if each.candidate.step is TuningStep.SINGLE)
    candidates = tuple({str(each.settings): each for each in singles}.values())
    before, after = trial(BASELINE), trial(BASELINE, 1.002)
    return Tuning(candidates, (before, *trials, after), limit_bytes)


@pytest.mark.parametrize(
    ("factor", "outcome"),
    [
        (1.08, TrialOutcome.WINS),
        (0.95, TrialOutcome.WORSE),
        (1.004, TrialOutcome.NOISE),
        (0.996, TrialOutcome.NOISE),
        (1.018, TrialOutcome.NOISE),
    ],
)
def test_only_what_lies_beyond_both_baselines_and_is_worth_it_wins(
    factor: float, outcome: TrialOutcome
) -> None:
    tried = trial(STEP, factor)
    assert judge(tuning(tried), STEP).outcome is outcome


def test_a_time_wins_by_being_shorter() -> None:
    def of(candidate: TuningCandidate, ttft_s: float) -> Trial:
        samples = tuple(ttft_s + each / 10_000 for each in range(6))
        return Trial(candidate, samples={"primed_ttft_s/1": samples})

    tried = of(STEP, 0.5)
    verdict = judge(Tuning((STEP,), (of(BASELINE, 0.8), tried, of(BASELINE, 0.8))), STEP)
    assert verdict.outcome is TrialOutcome.WINS
    assert verdict.words == "TTFT of a repeated prompt -37.5%"
    assert verdict.gain > 1.5


def test_a_faster_answer_does_not_make_up_for_a_slower_one() -> None:
    def of(candidate: TuningCandidate, decode: float, prefill: float) -> Trial:
        figures = {"generation_tps/1": decode, "prompt_tps/1": prefill}
        samples = {name: (rate,) * 6 for name, rate in figures.items()}
        return Trial(candidate, samples=samples)

    tried = of(STEP, 60, 400)
    found = judge(Tuning((STEP,), (of(BASELINE, 50, 500), tried, of(BASELINE, 50, 500))), STEP)
    assert found.outcome is TrialOutcome.WORSE
    assert found.words == "prefill rate -20.0%, decode rate +20.0%"


def test_other_answers_rule_a_setting_out_unless_it_is_said_to_change_them() -> None:
    other = {"capital": "Paris, of course."}
    step, bits = trial(STEP, 1.1, answers=other), trial(BITS, 1.1, answers=other)
    found = tuning(step, bits)
    assert judge(found, STEP).outcome is TrialOutcome.ANSWERS
    assert judge(found, BITS).outcome is TrialOutcome.WINS
    assert "changes answers" in judge(found, BITS).words


def test_an_answer_that_one_baseline_gave_is_no_other_one() -> None:
    shaky = trial(BASELINE, answers={"capital": "Paris, of course."})
    tried = trial(STEP, 1.1)
    found = Tuning((STEP,), (shaky, tried, trial(BASELINE)))
    assert judge(found, STEP).outcome is TrialOutcome.WINS


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [(1300, TrialOutcome.WINS), (1100, TrialOutcome.MEMORY), (None, TrialOutcome.MEMORY)],
)
def test_memory_beyond_the_plan_rules_a_setting_out(
    limit: int | None, outcome: TrialOutcome
) -> None:
    tried = trial(STEP, 1.1, peak_bytes=1200)
    baselines = [trial(BASELINE, peak_bytes=1000)] * 2
    found = Tuning((STEP,), (baselines[0], tried, baselines[1]), limit)
    assert judge(found, STEP).outcome is outcome


def test_a_setting_that_the_server_refuses_is_not_kept() -> None:
    tried = Trial(STEP, error="no such flag")
    verdict = judge(tuning(tried), STEP)
    assert (verdict.outcome, verdict.words) == (TrialOutcome.REFUSED, "no such flag")


def test_the_baseline_is_measured_first_and_again_after_the_settings() -> None:
    found = Tuning((STEP, INTERVAL))
    order: list[TuningCandidate] = []
    while (candidate := next_candidate(found)) is not None:
        order.append(candidate)
        found = Tuning(found.candidates, (*found.trials, trial(candidate)))
    assert order == [BASELINE, STEP, INTERVAL, BASELINE]
    assert len(list(pending(Tuning((STEP, INTERVAL))))) == 4
    assert chosen(found) is None


def play(effects: dict[str, float], *, together: float | None = None) -> TuningCandidate | None:
    """What is kept where each factor does this, and all together do something else."""
    found = Tuning((STEP, INTERVAL))
    while (candidate := next_candidate(found)) is not None:
        factors = candidate.factor.split(" + ")
        product = 1.0
        for factor in factors:
            product *= effects.get(factor, 1.0)
        if len(factors) > 1 and together is not None:
            product = together
        found = Tuning(found.candidates, (*found.trials, trial(candidate, product)))
    return chosen(found)


def test_what_wins_is_kept_together() -> None:
    kept = play({"prefill step": 1.1, "stream interval": 1.2})
    assert kept is not None
    assert kept.settings == {"stream-interval": 4, "prefill-step-size": 4096}


def test_where_both_together_are_slow_the_faster_one_is_kept() -> None:
    kept = play({"prefill step": 1.1, "stream interval": 1.2}, together=0.9)
    assert kept is not None
    assert kept.settings == INTERVAL.settings


def test_a_winner_that_is_not_confirmed_is_not_kept() -> None:
    lucky = trial(STEP, 1.1)
    found = tuning(lucky)
    again = next_candidate(found)
    assert again is not None
    assert again.step is TuningStep.TOGETHER
    assert again.settings == STEP.settings
    ended = Tuning(found.candidates, (*found.trials, trial(again, 1.0)))
    assert next_candidate(ended) is None
    assert chosen(ended) is None


def test_what_seems_to_win_and_is_not_sure_is_measured_again() -> None:
    samples = {"generation_tps/1": (54.0, 54.2, 53.8, 54.1, 40.0, 41.0)}
    found = tuning(Trial(STEP, samples=samples, answers=ANSWERS))
    assert judge(found, STEP).outcome is TrialOutcome.NOISE
    assert next_candidate(found) == STEP
    sure = Tuning(found.candidates, (*found.trials, trial(STEP, 1.08), trial(STEP, 1.08)))
    assert judge(sure, STEP).outcome is TrialOutcome.WINS


def test_what_stays_unsure_is_let_go_of() -> None:
    samples = {"generation_tps/1": (54.0, 54.2, 53.8, 54.1, 40.0, 41.0)}
    unsure = Trial(STEP, samples=samples, answers=ANSWERS)
    found = tuning(unsure, unsure, unsure)
    assert next_candidate(found) is None
    assert chosen(found) is None


def test_of_one_factor_only_the_best_setting_is_kept() -> None:
    slower = trial(TuningCandidate("prefill step", {"prefill-step-size": 1024}), 1.05)
    faster = trial(STEP, 1.1)
    found = next_candidate(tuning(slower, faster))
    assert found is not None
    assert found.settings == STEP.settings


@given(st.floats(0.97, 1.03), st.floats(0.97, 1.03))
def test_whatever_lies_between_the_two_baselines_is_noise(one: float, other: float) -> None:
    tried = trial(STEP, (one + other) / 2)
    found = Tuning((STEP,), (trial(BASELINE, one), tried, trial(BASELINE, other)))
    assert judge(found, STEP).outcome is TrialOutcome.NOISE


def test_settings_that_do_nothing_are_hardly_ever_kept() -> None:
    draw = random.Random(7)
    kept = 0
    for _ in range(40):
        found = Tuning((STEP, INTERVAL))
        while (candidate := next_candidate(found)) is not None:
            drift = draw.gauss(1, 0.005)
            samples = tuple(50 * drift * draw.gauss(1, 0.01) for _ in range(6))
            tried = Trial(candidate, samples={"generation_tps/1": samples})
            found = Tuning(found.candidates, (*found.trials, tried))
        kept += chosen(found) is not None
    assert kept == 0
