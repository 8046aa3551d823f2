"""From nothing to a running stack, in steps that a second run continues."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec
from msgspec.structs import asdict, replace

from mlx_catalog import ModelRole
from mlx_recommend import Intent
from mlx_stack import json_file
from mlx_stack.engines.environment import current_environment
from mlx_stack.engines.install import InstallEvent
from mlx_stack.engines.manage import install_engines, needed_engines
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.error_table import translate
from mlx_stack.errors import StackError
from mlx_stack.format import describe_hardware
from mlx_stack.hardware import save_profile
from mlx_stack.home import Home
from mlx_stack.man_page import man_page
from mlx_stack.models.events import ModelEvent
from mlx_stack.models.find import find, is_present, pull_request
from mlx_stack.models.pull import pull
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import Addition, Draft, draft_stack, write_draft
from mlx_stack.planning.recommend import Constraints
from mlx_stack.planning.tiers import planned_memory
from mlx_stack.services.service import ServiceEvent
from mlx_stack.services.up import up
from mlx_stack.stack import Stack, Tier
from mlx_stack.steps import OnEvent, Step, StepResult, Steps, StepStarted, ignore

type SetupEvent = StepStarted | Draft | InstallEvent | ModelEvent | ServiceEvent | Step
"""What happens during a setup: steps, and within them what each operation tells of itself."""

_HINT = "Remove the file; `mlx-stack setup` then starts over and keeps what is done already."


class Choices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user chose; None where it was left open.

    Attributes:
        budget_pct: The memory that all tiers share, in percent.
        embedder: Whether the plan has an embedder next to the tiers that chat.
    """

    intent: Intent | None = None
    budget_pct: int | None = None
    model: str | None = None
    embedder: bool | None = None
    allows_too_large: bool | None = None
    pulls: bool | None = None
    starts: bool | None = None

    def over(self, earlier: "Choices") -> "Choices":
        """These choices, and where they leave something open the earlier ones."""
        made = {name: value for name, value in asdict(self).items() if value is not None}
        return replace(earlier, **made)


type Review = Callable[[Draft, Choices, StackError | None], Choices | None]
"""Gets a plan, the choices behind it, and why other choices gave no plan; see `setup`."""


class SetupProgress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A setup that has begun, as `setup.json` has it."""

    schema_version: int = 1
    choices: Choices
    done: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SetupResult:
    """A setup that is over."""

    steps: tuple[Step, ...]
    stack_file: Path

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.outcome != "failed" for step in self.steps)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        steps = [step.to_document() for step in self.steps]
        return {"ok": self.ok, "steps": steps, "stack_file": str(self.stack_file)}


def interrupted_setup(home: Home) -> SetupProgress | None:
    """The setup that stopped before its end, or None.

    Raises:
        InvalidFileError: When its file is damaged or of a newer version.
    """
    return json_file.read(home.setup_progress, SetupProgress, hint=_HINT)


def remember_setup(home: Home, progress: SetupProgress) -> None:
    """Keep how far a setup came, for the next one."""
    json_file.write(home.setup_progress, progress)


def setup(
    home: Home,
    choices: Choices,
    on_event: OnEvent[SetupEvent] = ignore,
    review: Review | None = None,
) -> SetupResult:
    """Profile, define, install, pull and start; what is done already is left alone.

    A setup that stops, at whatever, is continued by the next one, with the choices of the first
    where the second leaves them open.

    Args:
        on_event: Gets what happens.
        review: Asked whether the stack is to be as drafted; it returns None for yes, or other
            choices to draft another. If those can't be, it is asked again, with the reason and the
            plan before. Raising stops before anything is written.

    Raises:
        StackError: When a step failed; the steps before it are done.
    """
    return _Setup(home, choices, on_event, review).run()


class _Setup:
    """One run."""

    def __init__(
        self,
        home: Home,
        choices: Choices,
        on_event: OnEvent[SetupEvent],
        review: Review | None,
    ) -> None:
        earlier = interrupted_setup(home)
        self._home = home
        self._on_event = on_event
        self._review = review
        self._done = earlier.done if earlier is not None else ()
        self._choices = choices if earlier is None else choices.over(earlier.choices)
        self._steps = Steps(on_event)

    def run(self) -> SetupResult:
        starts = self._choices.starts is not False
        if self._home.stack.exists():
            self._check_is_wanted(OpenStack(self._home))
        self._home.create()
        self._remember()
        page = man_page()
        if page is not None:
            with suppress(OSError):
                page.put_in_place()
        self._step("profile", "Looking at the machine", self._profile)
        self._step("stack", "Defining the stack", self._stack)
        if starts:
            self._step("engines", "Installing vllm-mlx and LiteLLM", self._engines)
        else:
            self._steps.skip("engines", "skipped (--no-start)")
        if self._choices.pulls is False:
            self._steps.skip("models", "skipped (--no-pull)")
        else:
            self._step("models", "Downloading the models", self._models)
        if starts:
            self._step("start", "Starting the services", self._start)
        else:
            self._steps.skip("start", "`mlx-stack up` starts it")
        result = SetupResult(tuple(self._steps.done), self._home.stack)
        if result.ok:
            self._home.setup_progress.unlink(missing_ok=True)
        return result

    def _step(self, name: str, purpose: str, run: Callable[[StepResult], None]) -> None:
        with self._steps.step(name, purpose) as step:
            run(step)
        if step.outcome != "failed":
            self._done = tuple(dict.fromkeys((*self._done, name)))
            self._remember()

    def _remember(self) -> None:
        remember_setup(self._home, SetupProgress(choices=self._choices, done=self._done))

    def _profile(self, step: StepResult) -> None:
        profile = save_profile(self._home).profile
        step.detail = describe_hardware(profile.to_document())

    def _stack(self, step: StepResult) -> None:
        if self._home.stack.exists():
            step.outcome = "already"
        else:
            self._define_stack()
        step.detail = _in_words(OpenStack(self._home).stack)

    def _define_stack(self) -> None:
        opened = OpenStack(self._home)
        try:
            draft, problem = self._draft(opened, self._choices), None
            while self._review and (changed := self._review(draft, self._choices, problem)):
                try:
                    draft, problem = self._draft(opened, changed), None
                except Exception as error:
                    problem = translate(error)
                    if problem is None:
                        raise
                else:
                    self._choices = changed
        except StackError:  # no such stack, or the user said no: the next setup asks again
            self._home.setup_progress.unlink(missing_ok=True)
            raise
        write_draft(opened, draft)

    def _draft(self, opened: OpenStack, choices: Choices) -> Draft:
        embeds = choices.embedder is True and choices.model is None
        constraints = Constraints(
            intent=choices.intent or Intent.BALANCED,
            budget_pct=choices.budget_pct,
            roles=(ModelRole.EMBEDDING,) if embeds else (),
        )
        additions = (Addition(choices.model, "standard"),) if choices.model is not None else ()
        draft = draft_stack(
            opened,
            constraints,
            additions=additions,
            only_additions=bool(additions),
            allows_too_large=choices.allows_too_large is True,
        )
        self._on_event(draft)
        return draft

    def _check_is_wanted(self, opened: OpenStack) -> None:
        """Refuse to go on with a stack that lacks the model that was asked for."""
        wanted = self._choices.model
        if wanted is None or "stack" in self._done:
            return
        found = find(opened, wanted)
        if not any(found.is_served_by(tier) for tier in opened.stack.tiers):
            defined = _in_words(opened.stack)
            raise StackError(
                f"A stack is already defined ({defined}), and {wanted} is not in it.",
                hint=f"`mlx-stack init --add {wanted}` adds it; `init --force` starts over.",
            )

    def _engines(self, step: StepResult) -> None:
        folder = self._home.engines
        needed = needed_engines(self._home)
        missing = tuple(each for each in needed if current_environment(folder, each) is None)
        if missing:
            install_engines(self._home, own_toolchain(), only=missing, on_event=self._on_event)
        else:
            step.outcome = "already"
        step.detail = ", ".join(missing or needed)

    def _models(self, step: StepResult) -> None:
        opened = OpenStack(self._home)
        absent = [tier for tier in opened.stack.tiers if not is_present(opened, tier)]
        wanted = self._choices.model
        source = find(opened, wanted).source if wanted is not None else None
        absent.sort(key=lambda tier: _size(opened, tier))
        for left, tier in zip(range(len(absent) - 1, -1, -1), absent, strict=True):
            # as it was typed, it may name a revision
            if wanted is not None and tier.source == source:
                name, quant = wanted, tier.quant
            else:
                name, quant = pull_request(opened, tier)
            pull(opened, name, quant=quant, on_event=self._on_event)
            if left and self._choices.starts is not False:
                # what is here answers while the larger models are downloaded
                up(OpenStack(self._home), passes_over_missing=True, on_event=self._on_event)
        if not absent:
            step.outcome = "already"
        step.detail = ", ".join(tier.model for tier in absent) or "all are here"

    def _start(self, step: StepResult) -> None:
        outcomes = up(OpenStack(self._home), on_event=self._on_event)
        if outcomes.is_success:
            step.detail = f"{len(outcomes.services)} services are ready"
            return
        failed = [each for each in outcomes.services if each.error is not None]
        step.outcome = "failed"
        step.detail = "; ".join(f"{each.name}: {each.error}" for each in failed)


def _size(opened: OpenStack, tier: Tier) -> int:
    """The size of a tier's weights, for downloading the smallest first; 0 where it is unknown."""
    memory = planned_memory(opened, tier)
    return (memory.weights_bytes or 0) if memory is not None else 0


def _in_words(stack: Stack) -> str:
    return ", ".join(f"{tier.name}: {tier.model}" for tier in stack.tiers)
