"""What a check found, as a value and as a document; pure."""

from collections.abc import Sequence
from itertools import groupby

import msgspec

from mlx_bench.report import EngineVersion

READY_SHARE = 0.8
"""With a smaller share of right cases, a model isn't ready for agents."""
_MUST = ("T01", "T08")
"""Without calling a tool and reading its result, nothing works."""
COHERENCE, NEEDLE = "coherence", "needle"
SCHEMA_VERSION = 1
_MOST_LACKS = 3


class CheckedCase(msgspec.Struct, frozen=True):
    """How one case went.

    Attributes:
        topic: What is missing where it is wrong.
        is_right: None where the case makes no sense, or could not be tried; `seen` says why.
        seen: What came instead of a right answer.
    """

    id: str
    topic: str
    kind: str
    right_answer: str
    is_right: bool | None
    seen: str = ""


class CheckConditions(msgspec.Struct, frozen=True):
    """What was checked, as far as it is known: what two checks must share to be compared.

    Attributes:
        model_hash: Of the weights and their configuration.
        flags: The engine's command line, without names and addresses.
    """

    model_hash: str | None = None
    engine: EngineVersion = EngineVersion()
    flags: tuple[str, ...] | None = None

    def differences(self, other: "CheckConditions") -> tuple[str, ...]:
        """What this has and the other hasn't, in words."""
        found: list[str] = []
        if self.engine != other.engine:
            found.append(f"engine {_named(self.engine)}, before {_named(other.engine)}")
        if self.flags != other.flags:
            found += _changed_flags(self.flags, other.flags)
        return tuple(found)


def _changed_flags(now: Sequence[str] | None, before: Sequence[str] | None) -> list[str]:
    """The flags that differ between two unequal command lines, in words."""
    if now is None or before is None:
        return ["flags unknown" if now is None else "flags unknown before"]
    mine, theirs = _by_flag(now), _by_flag(before)
    words = [
        f"{flag} {value or 'without a value'}, before {theirs[flag] or 'without one'}"
        if flag in theirs
        else f"now with {f'{flag} {value}'.strip()}"
        for flag, value in mine.items()
        if theirs.get(flag) != value
    ]
    words += [
        f"now without {f'{flag} {value}'.strip()}"
        for flag, value in theirs.items()
        if flag not in mine
    ]
    return words or ["the flags in a different order"]


def _by_flag(words: Sequence[str]) -> dict[str, str]:
    """The values of each flag of a command line, joined where it has several."""
    found: dict[str, list[str]] = {}
    flag = ""
    for word in words:
        if word.startswith("--"):
            flag, is_joined, value = word.partition("=")
            found.setdefault(flag, []).extend([value] if is_joined else [])
        else:
            found.setdefault(flag, []).append(word)
    return {flag: " ".join(values) for flag, values in found.items()}


def _named(engine: EngineVersion) -> str:
    return " ".join(filter(None, (engine.name, engine.version))) or "unknown"


class CheckReport(msgspec.Struct, frozen=True):
    """The result of a check.

    Attributes:
        is_ready: Whether the model is fit for agents here.
        verdict: That in a line: `agent-ready: 19 of 20, no parallel calls`.
        answers: The greedy answers, by the prompts' names.
    """

    target: str
    model: str
    started_at: str
    seconds: float
    conditions: CheckConditions
    is_ready: bool
    verdict: str
    right: int
    tried: int
    cases: tuple[CheckedCase, ...]
    answers: dict[str, str]
    schema_version: int = SCHEMA_VERSION

    def to_document(self) -> dict[str, object]:
        """The JSON document."""
        return msgspec.to_builtins(self)

    @property
    def wrong(self) -> tuple[CheckedCase, ...]:
        """The cases that were wrong."""
        return tuple(case for case in self.cases if case.is_right is False)

    def render(self) -> str:
        """The table, a line a case, and what came instead of a right answer."""
        lines = [f"{self.model} at {self.target}", ""]
        words = {True: "right", False: "WRONG", None: "-"}
        for case in self.cases:
            note = f": {case.seen}" if case.is_right is not False and case.seen else ""
            lines.append(f"{case.id:9} {words[case.is_right]:5}  {case.kind}{note}")
            if case.is_right is False:
                lines.append(f"{'':16} should be: {case.right_answer}")
                lines.append(f"{'':16} was: {case.seen}")
        lines += ["", f"{self.verdict} ({self.seconds:.0f} s)"]
        return "\n".join(lines) + "\n"


def judge(cases: Sequence[CheckedCase]) -> tuple[bool, str]:
    """Whether a model is ready for agents, and that in a line."""
    right = sum(case.is_right is True for case in cases)
    tried = sum(case.is_right is not None for case in cases)
    by_topic = {topic: list(group) for topic, group in groupby(cases, key=lambda case: case.topic)}
    lacks = [words for words in (_lack(topic, group) for topic, group in by_topic.items()) if words]
    fails_a_must = any(case.is_right is not True for case in cases if case.id.startswith(_MUST))
    is_ready = tried > 0 and right >= READY_SHARE * tried and not fails_a_must
    start = "agent-ready" if is_ready else "not agent-ready"
    shown = lacks[:_MOST_LACKS]
    if len(lacks) > _MOST_LACKS:
        shown.append(f"and {len(lacks) - _MOST_LACKS} more")
    return is_ready, ", ".join((f"{start}: {right} of {tried}", *shown))


def _lack(topic: str, cases: Sequence[CheckedCase]) -> str:
    """What is missing of a topic, in a few words; "" where nothing is."""
    wrong = [case for case in cases if case.is_right is False]
    if not wrong:
        return ""
    if cases[0].id == COHERENCE:
        return "different greedy answers"
    if cases[0].id == NEEDLE:
        return "a short memory"
    if len(wrong) == sum(case.is_right is not None for case in cases):
        return f"no {topic}"
    return f"no {topic} in {' or '.join(case.kind.partition(': ')[2] for case in wrong)}"
