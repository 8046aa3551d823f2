"""From nothing to a running stack, in steps that a second run continues."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from mlx_recommend import Intent
from mlx_stack.config import load_config
from mlx_stack.engines.environment import EngineName, require_environment
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.engines.install import InstallEvent
from mlx_stack.engines.manage import install_engines
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.errors import StackError
from mlx_stack.hardware import save_profile
from mlx_stack.home import Home
from mlx_stack.models.disk import find_local
from mlx_stack.models.find import find
from mlx_stack.models.pull import pull
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.init import Addition, Draft, Request, draft_stack, write_draft
from mlx_stack.planning.recommend import Wishes
from mlx_stack.services.outcomes import ServiceOutcome
from mlx_stack.services.up import up
from mlx_stack.setup_progress import Choices, Progress, read_progress, write_progress
from mlx_stack.stack import Stack, Tier, load_stack

if TYPE_CHECKING:
    from mlx_stack.models.events import Event

type StepName = Literal["profile", "stack", "engines", "models", "start"]
type StepOutcome = Literal["done", "already", "skipped", "failed"]

STEPS: tuple[StepName, ...] = ("profile", "stack", "engines", "models", "start")


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as it went.

    Attributes:
        name: Which.
        outcome: What came of it; `already` where nothing had to be done.
        detail: What came of it, one line.
        seconds: How long it took.
    """

    name: StepName
    outcome: StepOutcome
    detail: str
    seconds: float


def _ignore(_: object) -> None:
    """Whoever isn't interested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    """Who is told of what happens meanwhile.

    Attributes:
        on_begin: A step begins.
        on_step: A step is over.
        on_draft: The stack that will be written; raise to stop before it is.
        on_pull: What a download does.
        on_install: What the installation of the engines does.
        on_service: A service is ready, or has failed.
    """

    on_begin: Callable[[StepName], None] = _ignore
    on_step: Callable[[Step], None] = _ignore
    on_draft: Callable[[Draft], None] = _ignore
    on_pull: "Callable[[Event], None]" = _ignore
    on_install: Callable[[InstallEvent], None] = _ignore
    on_service: Callable[[ServiceOutcome], None] = _ignore


def interrupted_setup(home: Home) -> Progress | None:
    """The setup that stopped before its end, or None.

    Raises:
        InvalidFileError: Its file is damaged.
    """
    return read_progress(home.setup_progress)


def setup(home: Home, choices: Choices, listeners: Listeners | None = None) -> tuple[Step, ...]:
    """Profile, define, install, pull and start; what is done already is left alone.

    A setup that stops, at whatever, is continued by the next one, with the choices of the first
    where the second leaves them open.

    Raises:
        StackError: A step failed; the steps before it are done.
    """
    return tuple(_Setup(home, choices, listeners or Listeners()).run())


class _Setup:
    """One run."""

    def __init__(self, home: Home, choices: Choices, listeners: Listeners) -> None:
        earlier = read_progress(home.setup_progress)
        self._home = home
        self._tell = listeners
        self._done = earlier.done if earlier is not None else ()
        self._choices = choices if earlier is None else choices.over(earlier.choices)
        self._steps: list[Step] = []

    def run(self) -> list[Step]:
        if self._home.stack.exists():
            self._check_is_wanted(load_stack(self._home.stack))
        self._home.create()
        self._remember()
        self._step("profile", self._profile)
        self._step("stack", self._stack)
        if self._choices.starts is False:
            self._skip("engines", "nothing is to be started")
        else:
            self._step("engines", self._engines)
        if self._choices.pulls is False:
            self._skip("models", "nothing is to be downloaded")
        else:
            self._step("models", self._models)
        if self._choices.starts is False:
            self._skip("start", "`mlx-stack up` starts it")
        else:
            self._step("start", self._start)
        if all(step.outcome != "failed" for step in self._steps):
            self._home.setup_progress.unlink(missing_ok=True)
        return self._steps

    def _step(self, name: StepName, run: Callable[[], tuple[StepOutcome, str]]) -> None:
        self._tell.on_begin(name)
        began = time.monotonic()
        outcome, detail = run()
        step = Step(name, outcome, detail, time.monotonic() - began)
        self._steps.append(step)
        if outcome != "failed":
            self._done = tuple(dict.fromkeys((*self._done, name)))
            self._remember()
        self._tell.on_step(step)

    def _skip(self, name: StepName, why: str) -> None:
        step = Step(name, "skipped", why, 0.0)
        self._steps.append(step)
        self._tell.on_step(step)

    def _remember(self) -> None:
        write_progress(self._home.setup_progress, Progress(choices=self._choices, done=self._done))

    def _profile(self) -> tuple[StepOutcome, str]:
        profile = save_profile(self._home).profile
        return "done", profile.profile_id or "an unknown machine"

    def _stack(self) -> tuple[StepOutcome, str]:
        if self._home.stack.exists():
            return "already", self._defined_tiers()
        wishes = Wishes(
            intent=self._choices.intent or Intent.BALANCED, budget_pct=self._choices.budget_pct
        )
        model = self._choices.model
        additions = (Addition(model, "standard"),) if model is not None else ()
        request = Request(wishes=wishes, additions=additions, only_additions=model is not None)
        draft = draft_stack(self._home, request)
        try:
            self._tell.on_draft(draft)
        except StackError:  # a no: the next setup asks again
            self._home.setup_progress.unlink(missing_ok=True)
            raise
        write_draft(self._home, draft)
        return "done", self._defined_tiers()

    def _defined_tiers(self) -> str:
        return _in_words(load_stack(self._home.stack))

    def _check_is_wanted(self, stack: Stack) -> None:
        """Refuse to go on with a stack that lacks the model that was asked for."""
        wanted = self._choices.model
        if wanted is None or "stack" in self._done:
            return
        found = find(OpenStack(self._home), wanted)
        if not any(found.is_served_by(tier) for tier in stack.tiers):
            raise StackError(
                f"A stack is defined already ({_in_words(stack)}), and {wanted} is not in it.",
                hint=f"`mlx-stack init --add {wanted}` adds it; `init --force` begins anew.",
            )

    def _engines(self) -> tuple[StepOutcome, str]:
        missing = [engine for engine in EngineName if not self._is_installed(engine)]
        if not missing:
            return "already", ", ".join(EngineName)
        install_engines(
            self._home, own_toolchain(), only=tuple(missing), on_event=self._tell.on_install
        )
        return "done", ", ".join(missing)

    def _is_installed(self, engine: EngineName) -> bool:
        try:
            require_environment(self._home.engines, engine)
        except EngineMissingError:
            return False
        return True

    def _models(self) -> tuple[StepOutcome, str]:
        model_dir = load_config(self._home).model_dir
        absent = [
            tier
            for tier in load_stack(self._home.stack).tiers
            if (model := find_local(model_dir, tier.source, tier.quant)) is None
            or not model.is_whole
        ]
        for tier in absent:
            name = self._name_for_pull(tier)
            pull(self._home, name, quant=tier.quant, observer=self._tell.on_pull)
        return ("done" if absent else "already"), ", ".join(
            tier.model for tier in absent
        ) or "all are here"

    def _name_for_pull(self, tier: Tier) -> str:
        """The model that was chosen, or the catalog id, where it is the catalog's; or the repo."""
        opened, wanted = OpenStack(self._home), self._choices.model
        repo = find(opened, wanted).repo if wanted is not None else None
        if wanted is not None and repo is not None and repo.repo == tier.source:
            return wanted  # with its revision
        catalog = opened.catalog
        if tier.model in catalog:
            known = [source for _, source in catalog.get(tier.model).sources.items()]
            if any(tier.source in (each.hf_repo, each.convert_from) for each in known):
                return tier.model
        return tier.source

    def _start(self) -> tuple[StepOutcome, str]:
        outcomes = up(OpenStack(self._home), on_outcome=self._tell.on_service)
        failed = [each for each in outcomes.services if each.error is not None]
        if not outcomes.is_success:
            return "failed", "; ".join(f"{each.name}: {each.error}" for each in failed)
        return "done", f"{len(outcomes.services)} services are ready"


def _in_words(stack: Stack) -> str:
    return ", ".join(f"{tier.name}: {tier.model}" for tier in stack.tiers)
