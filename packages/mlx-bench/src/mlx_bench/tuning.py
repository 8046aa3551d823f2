"""Which settings of a server are worth keeping, by what was measured with each; pure.

One setting at a time is tried, between two measurements of the server as it is. Those that win are
then tried together, which is also what confirms a single one. A setting wins where the interval of
a figure lies beyond those of both baselines, and no other figure's lies on the wrong side of them.
What seems to win and isn't sure is measured again, a few times at most (decision 0102).
"""

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

import msgspec

from mlx_bench.stats import estimate

type SettingValue = bool | int | float | str
type TrialSettings = dict[str, SettingValue]

LEAST_EFFECT = 0.02
"""A smaller difference isn't worth a setting, however sure it is."""
LEAST_SAMPLES = 6
"""With fewer, an interval of the median can't cover 95 %."""
MEMORY_NOISE = 0.02
MOST_TRIALS = 3
"""How often a setting is measured that seems to win and isn't sure."""
BASELINE_FACTOR = 2
"""A baseline is compared with everything, and so has as many times the samples."""
_SEED = 20
_WORDS = MappingProxyType(
    {
        "generation_tps": "decode rate",
        "prompt_tps": "prefill rate",
        "primed_ttft_s": "TTFT of a repeated prompt",
    }
)


class TuningStep(StrEnum):
    """What a trial is for."""

    BASELINE = "baseline"
    SINGLE = "single"
    TOGETHER = "together"
    """What won by itself, once more; together with the others that did."""


class TuningCandidate(msgspec.Struct, frozen=True):
    """A setting to try.

    Attributes:
        factor: What it changes; of each factor, one setting at most is kept.
        changes_answers: Whether it is known to change answers, so that other ones don't rule it
            out.
    """

    factor: str
    settings: TrialSettings
    changes_answers: bool = False
    step: TuningStep = TuningStep.SINGLE

    @property
    def words(self) -> str:
        """`prefill-step-size 4096`."""
        return ", ".join(_in_words(*each) for each in self.settings.items()) or "as it is"


def _in_words(name: str, value: SettingValue) -> str:
    if value is True:
        return name
    return f"no {name}" if value is False else f"{name} {value}"


BASELINE = TuningCandidate("baseline", {}, step=TuningStep.BASELINE)


class Trial(msgspec.Struct, frozen=True):
    """What was measured with a setting.

    Attributes:
        samples: By figure: its name and how many streams there were, `generation_tps/1`.
        answers: Greedy answers, by the prompts' names.
        peak_bytes: The most memory that the server held; None where it can't be seen.
        seconds: How long the trial took, with the server's start.
        error: Why nothing was measured; the server didn't take the setting, or None.
    """

    candidate: TuningCandidate
    samples: dict[str, tuple[float, ...]] = {}
    answers: dict[str, str] = {}
    peak_bytes: int | None = None
    seconds: float = 0.0
    error: str | None = None


class Tuning(msgspec.Struct, frozen=True):
    """What is to be tried, and what was measured so far.

    Attributes:
        limit_bytes: The memory that is planned; None where nobody planned it.
    """

    candidates: tuple[TuningCandidate, ...]
    trials: tuple[Trial, ...] = ()
    limit_bytes: int | None = None

    def of(self, step: TuningStep) -> tuple[Trial, ...]:
        """The trials of a step."""
        return tuple(trial for trial in self.trials if trial.candidate.step is step)

    def trials_of(self, candidate: TuningCandidate) -> tuple[Trial, ...]:
        """The trials of a setting."""
        return tuple(trial for trial in self.trials if trial.candidate == candidate)


class TrialOutcome(StrEnum):
    """What is made of a setting."""

    WINS = "wins"
    NOISE = "within noise"
    WORSE = "worse"
    ANSWERS = "other answers"
    MEMORY = "too much memory"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is made of a trial.

    Attributes:
        gain: How much faster it is, over all figures; 1 is no difference.
        words: Why.
        is_unsure: Whether a figure is better by enough, and either that or what speaks against it
            could be chance.
    """

    outcome: TrialOutcome
    gain: float
    words: str
    is_unsure: bool = False


@dataclass(frozen=True, slots=True)
class _Compared:
    """Figures next to those of the baselines; what is better and worse beyond noise, in words."""

    gain: float
    better: tuple[str, ...]
    worse: tuple[str, ...]
    may_be_better: bool


def next_candidate(tuning: Tuning) -> TuningCandidate | None:
    """What to try next; None when nothing is left to find out."""
    return next(pending(tuning), None)


def pending(tuning: Tuning) -> Iterator[TuningCandidate]:
    """What is left to try, as far as it is known now."""
    baselines = tuning.of(TuningStep.BASELINE)
    if not baselines:
        yield BASELINE
    untried = [each for each in tuning.candidates if not tuning.trials_of(each)]
    yield from untried
    if len(baselines) < 2:
        yield BASELINE
        return
    if untried:
        return
    unsure = [each for each in tuning.candidates if _is_unsure(tuning, each)]
    yield from unsure
    if unsure:
        return
    for each in _to_confirm(tuning):
        if not tuning.trials_of(each) or _is_unsure(tuning, each):
            yield each
            return
        if judge(tuning, each).outcome is TrialOutcome.WINS:
            return


def chosen(tuning: Tuning) -> TuningCandidate | None:
    """The setting to keep; None where the server is best as it is, or it isn't known yet."""
    tried = (each for each in _to_confirm(tuning) if tuning.trials_of(each))
    return next((each for each in tried if judge(tuning, each).outcome is TrialOutcome.WINS), None)


def _to_confirm(tuning: Tuning) -> tuple[TuningCandidate, ...]:
    """What won by itself: all of it together, then one by one, the fastest first."""
    if len(tuning.of(TuningStep.BASELINE)) < 2:
        return ()
    found = [(judge(tuning, each), each) for each in tuning.candidates if tuning.trials_of(each)]
    winners = sorted(
        ((verdict.gain, each) for verdict, each in found if verdict.outcome is TrialOutcome.WINS),
        key=lambda winner: -winner[0],
    )
    best: dict[str, TuningCandidate] = {}
    for _, each in winners:
        best.setdefault(each.factor, each)
    alone = [msgspec.structs.replace(each, step=TuningStep.TOGETHER) for each in best.values()]
    if len(alone) < 2:
        return tuple(alone)
    merged: TrialSettings = {}
    for each in alone:
        merged |= each.settings
    together = TuningCandidate(
        " + ".join(each.factor for each in alone),
        merged,
        changes_answers=any(each.changes_answers for each in alone),
        step=TuningStep.TOGETHER,
    )
    return (together, *alone)


def _is_unsure(tuning: Tuning, candidate: TuningCandidate) -> bool:
    """Whether a setting seems to win, and another trial may tell."""
    verdict = judge(tuning, candidate)
    return verdict.is_unsure and len(tuning.trials_of(candidate)) < MOST_TRIALS


def judge(tuning: Tuning, candidate: TuningCandidate) -> Verdict:
    """What is made of all trials of a setting, next to every baseline that was measured."""
    baselines, trials = tuning.of(TuningStep.BASELINE), tuning.trials_of(candidate)
    errors = [trial.error for trial in trials if trial.error is not None]
    if errors:
        return Verdict(TrialOutcome.REFUSED, 1.0, errors[0])
    found = _compare(_joined(trials), [each.samples for each in baselines])
    different = sorted({name for each in trials for name in _different_answers(each, baselines)})
    if different and not candidate.changes_answers:
        words = f"{len(different)} greedy answers differ ({', '.join(different)})"
        return Verdict(TrialOutcome.ANSWERS, found.gain, words)
    too_much = _too_much_memory(tuning, trials, baselines)
    if too_much:
        return Verdict(TrialOutcome.MEMORY, found.gain, too_much)
    if found.worse:
        words = ", ".join((*found.worse, *found.better))
        return Verdict(TrialOutcome.WORSE, found.gain, words, is_unsure=bool(found.better))
    note = ("it changes answers",) if candidate.changes_answers else ()
    if found.better:
        return Verdict(TrialOutcome.WINS, found.gain, ", ".join((*found.better, *note)))
    words = "no figure lies beyond the baseline's interval"
    return Verdict(TrialOutcome.NOISE, found.gain, words, is_unsure=found.may_be_better)


def _joined(trials: Iterable[Trial]) -> dict[str, tuple[float, ...]]:
    """The samples of several trials, by figure."""
    joined: dict[str, tuple[float, ...]] = {}
    for trial in trials:
        for figure, samples in trial.samples.items():
            joined[figure] = (*joined.get(figure, ()), *samples)
    return joined


def lower_is_better(figure: str) -> bool:
    """Whether a figure is a time, not a rate."""
    return figure.partition("/")[0].endswith("_s")


def _compare(
    now: Mapping[str, tuple[float, ...]], before: list[dict[str, tuple[float, ...]]]
) -> _Compared:
    gains: list[float] = []
    better: list[str] = []
    worse: list[str] = []
    may_be_better = False
    for figure, samples in now.items():
        sessions = [each[figure] for each in before if each.get(figure)]
        pooled = [sample for session in sessions for sample in session]
        if not samples or min(*samples, *pooled, 1) <= 0:
            continue
        ratio = statistics.median(samples) / statistics.median(pooled) if pooled else 1.0
        sign = -1 if lower_is_better(figure) else 1
        gains.append(ratio**sign)
        side = sign * _side(samples, sessions)
        if abs(ratio - 1) < LEAST_EFFECT:
            continue
        if side == 0:
            may_be_better = may_be_better or gains[-1] > 1
            continue
        name, _, streams = figure.partition("/")
        at = "" if streams == "1" else f" of {streams} streams"
        words = f"{_WORDS.get(name, name)}{at} {ratio - 1:+.1%}"
        (better if side > 0 else worse).append(words)
    gain = statistics.geometric_mean(gains) if gains else 1.0
    return _Compared(gain, tuple(better), tuple(worse), may_be_better)


def _side(samples: tuple[float, ...], sessions: list[tuple[float, ...]]) -> int:
    """1 where the interval lies above all of the sessions' intervals, -1 below, else 0."""
    mine = estimate(samples, seed=_SEED)
    theirs = [estimate(session, seed=_SEED) for session in sessions]
    lows = [each.low for each in theirs if each.low is not None]
    highs = [each.high for each in theirs if each.high is not None]
    if mine.low is None or mine.high is None or not lows or not highs:
        return 0
    return 1 if mine.low > max(highs) else -1 if mine.high < min(lows) else 0


def _different_answers(trial: Trial, baselines: tuple[Trial, ...]) -> list[str]:
    """The prompts that no baseline answered as the trial did."""
    return [
        name
        for name, answer in trial.answers.items()
        if baselines and all(answer != each.answers.get(name) for each in baselines)
    ]


def _too_much_memory(
    tuning: Tuning, trials: tuple[Trial, ...], baselines: tuple[Trial, ...]
) -> str:
    """What is held beyond the plan, or beyond what is held anyway; "" where that isn't known."""
    before = max((each.peak_bytes or 0 for each in baselines), default=0)
    peak = max((each.peak_bytes or 0 for each in trials), default=0)
    limit = max(tuning.limit_bytes or 0, int(before * (1 + MEMORY_NOISE)))
    if not before or peak <= limit:
        return ""
    return f"{peak / 1e9:.2f} GB at its peak; {limit / 1e9:.2f} GB are planned"
