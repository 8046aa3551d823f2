"""The state of the stack and what to do next: the answer of `mlx-stack` alone (decision 0070)."""

import shutil
from dataclasses import dataclass
from typing import Literal

import mlx_stack
from mlx_stack import models, services
from mlx_stack.errors import MissingError
from mlx_stack.home import Home

type Situation = Literal["no-stack", "stopped", "partly-running", "running", "unwell"]


@dataclass(frozen=True, slots=True)
class NextStep:
    """A command worth typing now."""

    command: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Overview:
    """Where the user is.

    Attributes:
        services: What the stack defines, as `status` has it; empty without a stack.
        steps: What to do next, the likeliest first.
    """

    situation: Situation
    services: tuple["services.status.ServiceRow", ...]
    gateway_url: str | None
    steps: tuple[NextStep, ...]


SET_UP = (
    NextStep("mlx-stack setup", "guided setup"),
    NextStep("mlx-stack recommend", "what this machine can run; changes nothing"),
    NextStep("mlx-stack demo", "try it first with a small bundled model"),
)
USE = (
    NextStep('mlx-stack ask "Hello"', "ask a model something"),
    NextStep("mlx-stack connect", "use them from Claude Code, opencode, Zed and others"),
    NextStep("mlx-stack status", "more detail"),
)
SURVIVE_REBOOTS = NextStep("mlx-stack install", "keep it alive through crashes and reboots")
SURVIVE_CRASHES = NextStep("mlx-stack watch --daemon", "restart what crashes or hangs")


def read_overview(home: Home) -> Overview:
    """Where the user of `home` is.

    Raises:
        InvalidFileError: When the stack file or the configuration is damaged.
    """
    if not home.stack.exists():
        continues = home.setup_progress.exists()
        first = NextStep("mlx-stack setup", "resume the interrupted setup")
        steps = (first, *SET_UP[1:]) if continues else SET_UP
        return Overview("no-stack", (), None, steps)
    opened = mlx_stack.open_stack.OpenStack(home)
    report = services.status.read_status(opened)
    situation = situation_of(report.services)
    missing = () if situation == "running" else _missing(opened)
    survive = SURVIVE_REBOOTS if shutil.which("launchctl") else SURVIVE_CRASHES
    steps = next_steps(situation, report.services, missing, survive=survive)
    return Overview(situation, report.services, report.gateway_url, steps)


_NOT_HERE_OR_WATCHING = ("watchdog", "replica", "rank")


def situation_of(services: tuple["services.status.ServiceRow", ...]) -> Situation:
    """The situation that the states of the tiers and the gateway add up to."""
    rows = [
        row
        for row in services
        if row.kind not in _NOT_HERE_OR_WATCHING and row.is_defined and not _rests(row)
    ]
    states = {row.state for row in rows}
    if states == {"stopped"}:
        return "stopped"
    if states == {"healthy"}:
        return "running"
    if states <= {"stopped", "healthy"} and not any(row.flapping for row in rows):
        return "partly-running"
    return "unwell"


def _rests(row: "services.status.ServiceRow") -> bool:
    """Whether a service is as it should be without a process: a request starts it."""
    return row.is_at_rest or (row.kind == "litellm" and row.state == "stopped")


def next_steps(
    situation: Situation,
    services: tuple["services.status.ServiceRow", ...],
    missing: tuple[NextStep, ...],
    *,
    survive: NextStep,
) -> tuple[NextStep, ...]:
    """What to do about a stack in `situation`.

    Args:
        missing: Commands that get what the stack needs and doesn't have.
        survive: How a stack is kept alive here.
    """
    watched = any(row.kind == "watchdog" and row.state == "healthy" for row in services)
    if situation == "running":
        return USE if watched else (*USE, survive)
    if situation in ("stopped", "partly-running"):
        start = NextStep("mlx-stack up", "start what is not running")
        return (*missing, start, NextStep("mlx-stack doctor", "find what could go wrong"))
    bad = next(
        row
        for row in services
        if row.kind not in _NOT_HERE_OR_WATCHING
        and (row.state not in ("healthy", "stopped") or row.flapping)
    )
    return (
        NextStep(f"mlx-stack logs {bad.name}", f"the last output of {bad.name}"),
        *missing,
        NextStep("mlx-stack up", "restart what crashed"),
        NextStep("mlx-stack doctor", "find what is wrong"),
    )


def _missing(opened: "mlx_stack.open_stack.OpenStack") -> tuple[NextStep, ...]:
    """The commands that get what is not on this disk: the engines, or models."""
    try:
        assembly = services.assembly.assemble(opened, gateway_key="")
    except MissingError:
        return (NextStep("mlx-stack doctor --fix", "install the engines"),)
    missing = assembly.missing
    lacking = {name for name, error in missing.items() if isinstance(error, MissingError)}
    models_for = [each for each in assembly.stack.tiers if each.name in missing.keys() - lacking]
    names = {models.find.pull_name(opened, tier) for tier in models_for}
    pulls = (
        NextStep(f"mlx-stack pull {name}", "download a model that a tier needs")
        for name in sorted(filter(None, names))
    )
    install = NextStep("mlx-stack doctor --fix", "install an engine that a tier needs")
    return (install, *pulls) if lacking else tuple(pulls)
