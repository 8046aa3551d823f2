"""Work in named steps: each is timed, and reported when it begins and when it is over."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Literal

type OnEvent[E] = Callable[[E], None]
"""Gets what happens meanwhile: every operation that takes long takes one as `on_event`."""
type StepOutcome = Literal["done", "already", "skipped", "failed"]


def ignore(_event: object) -> None:
    """Do nothing with what happens."""


@dataclass(frozen=True, slots=True)
class StepStarted:
    """A step begins."""

    name: str
    purpose: str


@dataclass(frozen=True, slots=True)
class StepProgress:
    """Something moved within a step; from any thread."""

    text: str


@dataclass(frozen=True, slots=True)
class Step:
    """A step, as it went.

    Attributes:
        outcome: What came of it; `already` where nothing had to be done.
        detail: What came of it, one line; "" where an error says so.
    """

    name: str
    outcome: StepOutcome
    detail: str
    seconds: float

    def to_document(self) -> dict[str, object]:
        """The step as JSON."""
        return {**asdict(self), "seconds": round(self.seconds, 3)}


@dataclass(slots=True)
class StepResult:
    """What came of a step; set while it runs."""

    detail: str = ""
    outcome: StepOutcome = "done"


class Steps:
    """The steps so far."""

    def __init__(self, on_event: OnEvent[StepStarted | Step]) -> None:
        self.done: list[Step] = []
        self._on_event = on_event

    @contextmanager
    def step(self, name: str, purpose: str) -> Generator[StepResult]:
        """Time what happens inside as one step; an exception makes it a failed one."""
        self._on_event(StepStarted(name, purpose))
        began = time.monotonic()
        result = StepResult()
        try:
            yield result
        except BaseException:
            result.detail, result.outcome = "", "failed"
            raise
        finally:
            seconds = time.monotonic() - began
            self._finish(Step(name, result.outcome, result.detail, seconds))

    def skip(self, name: str, why: str) -> None:
        """Note a step that is left out."""
        self._finish(Step(name, "skipped", why, 0.0))

    def _finish(self, step: Step) -> None:
        self.done.append(step)
        self._on_event(step)
