"""Bring this copy of mlx-stack and its engines up to date, however it was installed.

What to do is a pure function of a few facts (`plan_upgrade`); `read_facts` reads them, `upgrade`
runs the commands. No command asks PyPI for `mlx-stack`: that name belongs to another project.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from mlx_stack import __version__
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.steps import OnEvent, ignore

type Command = tuple[str, ...]
type RunCommand = Callable[[Command], int]
type UpgradeOutcome = Literal["planned", "done", "failed", "by-you"]

PACKAGE = "mlx-stack"
_LS_REMOTE_TIMEOUT_S = 15


class Way(StrEnum):
    """How a copy of mlx-stack was installed."""

    UV_TOOL = "uv-tool"
    UVX = "uvx"
    PIPX = "pipx"
    VENV = "venv"
    CHECKOUT = "checkout"
    HOMEBREW = "homebrew"


@dataclass(frozen=True, slots=True)
class InstallFacts:
    """What the place where this copy lies tells about how it got there.

    Attributes:
        prefix: The environment that it runs from.
        url: Where it was installed from, as PEP 610's `direct_url.json` says; None for an index.
        commit: The commit of a Git repository that it was built from.
        subdirectory: Its folder in that repository.
        is_editable: Whether it runs from its sources.
        checkout: The clone that `url` lies in, if it does.
        has_uv_receipt: Whether `uv tool` made the environment.
        has_pipx_metadata: Whether pipx made it.
        has_engines: Whether engines are installed that need an upgrade, too.
        programs: Where uv, pipx, git and brew are, of those that are found.
    """

    prefix: Path
    url: str | None = None
    commit: str | None = None
    subdirectory: str | None = None
    is_editable: bool = False
    checkout: Path | None = None
    has_uv_receipt: bool = False
    has_pipx_metadata: bool = False
    has_engines: bool = False
    programs: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def source(self) -> str | None:
        """Where to install it from again, as uv and pip write it; None if only an index knows."""
        if self.url is None:
            return None
        scheme = "git+" if self.commit else ""
        below = f"#subdirectory={self.subdirectory}" if self.subdirectory else ""
        return f"{scheme}{self.url}{below}"


@dataclass(frozen=True, slots=True)
class UpgradeStep:
    """One step.

    Attributes:
        command: The command line; None if a person has to do it.
        is_ours: Whether `upgrade` runs it; the others are left to the user.
    """

    purpose: str
    command: Command | None
    is_ours: bool = True


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """How this copy was installed, and what upgrades it."""

    way: Way
    source: str | None
    steps: tuple[UpgradeStep, ...]


@dataclass(frozen=True, slots=True)
class UpgradeReport:
    """What was done, or would be.

    Attributes:
        is_current: Whether the repository has nothing newer; None if that isn't known.
        outcomes: What became of each step of the plan.
    """

    plan: UpgradePlan
    version: str
    is_current: bool | None
    outcomes: tuple[UpgradeOutcome, ...]

    @property
    def is_success(self) -> bool:
        """Whether no step failed."""
        return "failed" not in self.outcomes

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        steps = [
            {
                "purpose": step.purpose,
                "command": None if step.command is None else show_command(step.command),
                "outcome": outcome,
            }
            for step, outcome in zip(self.plan.steps, self.outcomes, strict=True)
        ]
        return {
            "way": self.plan.way,
            "version": self.version,
            "source": self.plan.source,
            "is_current": self.is_current,
            "steps": steps,
        }


def show_command(command: Command) -> str:
    """A command line to paste into a shell, which expands `./mlx_*.whl`."""
    return shlex.join(command).replace("'./mlx_*.whl'", "./mlx_*.whl")


def find_way(facts: InstallFacts) -> Way:
    """How this copy was installed."""
    if "Cellar" in facts.prefix.parts:
        return Way.HOMEBREW
    if facts.is_editable:
        return Way.CHECKOUT
    if facts.has_uv_receipt:
        return Way.UV_TOOL
    if facts.has_pipx_metadata:
        return Way.PIPX
    if any(part.startswith(("archive-v", "environments-v")) for part in facts.prefix.parts):
        return Way.UVX
    return Way.VENV


def plan_upgrade(facts: InstallFacts) -> UpgradePlan:
    """What brings this copy up to date.

    Raises:
        StackError: When a program is missing that has to do it.
    """
    way = find_way(facts)
    steps = _STEPS[way](facts)
    if way is not Way.UVX:
        steps += _steps_afterwards(facts)
    return UpgradePlan(way, facts.source, steps)


def _uv_tool(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    uv = _program(facts, "uv")
    if _is_from_a_file(facts):
        install = (uv, "tool", "install", "--force", "--with-requirements", "wheels.txt")
        then = "list them in wheels.txt, and run there"
        return (_from_a_release(then, (*install, "./mlx_stack-VERSION-py3-none-any.whl")),)
    upgrade = (uv, "tool", "upgrade", PACKAGE)
    if facts.commit:
        return (UpgradeStep("Install the newest commit", upgrade),)
    return (*_pull(facts), UpgradeStep("Build it again", (*upgrade, "--reinstall")))


def _uvx(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    command = ("uvx", "--refresh", "--from", facts.source or PACKAGE, PACKAGE)
    return (UpgradeStep("Nothing is installed; run the newest version once with", command, False),)


def _pipx(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    # pip reads no [tool.uv.sources]: from a repository it would ask PyPI for our other packages
    run = (_program(facts, "pipx"), "runpip", PACKAGE, "install", "--upgrade", "./mlx_*.whl")
    return (_from_a_release("run there", run),)


def _venv(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    install = (_program(facts, "uv"), "pip", "install")
    install += ("--python", f"{facts.prefix / 'bin' / 'python'}", "--upgrade")
    if _is_from_a_file(facts):
        return (_from_a_release("run there", (*install, "./mlx_*.whl")),)
    again = (*install, "--reinstall-package", PACKAGE, f"{PACKAGE} @ {facts.source}")
    return (*_pull(facts), UpgradeStep("Install it again", again))


def _checkout(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    root = f"{facts.checkout or facts.prefix.parent}"
    sync = (_program(facts, "uv"), "sync", "--inexact", "--project", root)
    return (*_pull(facts), UpgradeStep("Install what changed", sync))


def _homebrew(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    return (
        UpgradeStep(
            "Replace mlx-stack.rb in your tap with the one from the newest release",
            None,
            is_ours=False,
        ),
        UpgradeStep("Upgrade the formula", (_program(facts, "brew"), "upgrade", PACKAGE), False),
    )


_STEPS: dict[Way, Callable[[InstallFacts], tuple[UpgradeStep, ...]]] = {
    Way.UV_TOOL: _uv_tool,
    Way.UVX: _uvx,
    Way.PIPX: _pipx,
    Way.VENV: _venv,
    Way.CHECKOUT: _checkout,
    Way.HOMEBREW: _homebrew,
}


def _pull(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    """Fetch the newest commits, where the sources lie in a clone."""
    if facts.checkout is None:
        return ()
    command = (_program(facts, "git"), "-C", f"{facts.checkout}", "pull", "--ff-only")
    return (UpgradeStep("Fetch the newest commits", command),)


def _is_from_a_file(facts: InstallFacts) -> bool:
    """Whether it came as a wheel, whose successor has to be downloaded."""
    return facts.source is None or facts.source.endswith(".whl")


def _from_a_release(then: str, command: Command) -> UpgradeStep:
    """All wheels at once, so that no index is asked for any of ours."""
    purpose = f"Download all wheels of the newest release into an empty folder, {then}"
    return UpgradeStep(purpose, command, is_ours=False)


def _steps_afterwards(facts: InstallFacts) -> tuple[UpgradeStep, ...]:
    program = f"{facts.prefix / 'bin' / PACKAGE}"
    engines = UpgradeStep("Upgrade the engines", (program, "engines", "upgrade"))
    return (
        *((engines,) if facts.has_engines else ()),
        UpgradeStep("Restart services whose engine has changed", (PACKAGE, "up"), is_ours=False),
        UpgradeStep(
            "If it starts at login or boot, bring that up to date", (PACKAGE, "install"), False
        ),
    )


def _program(facts: InstallFacts, name: str) -> str:
    if name not in facts.programs:
        raise StackError(
            f"{name} isn't installed, or isn't in PATH; this copy of mlx-stack needs it to upgrade."
        )
    return facts.programs[name]


def read_facts(home: Home, prefix: Path | None = None) -> InstallFacts:
    """What the environment that runs tells about how mlx-stack was installed."""
    prefix = prefix or Path(sys.prefix)
    origin: dict[str, Any] = json.loads(distribution(PACKAGE).read_text("direct_url.json") or "{}")
    url: str | None = origin.get("url")
    version_control: dict[str, str] = origin.get("vcs_info", {})
    folder = Path(unquote(urlsplit(url).path)) if url and url.startswith("file:") else None
    found = {name: shutil.which(name) for name in ("uv", "pipx", "git", "brew")}
    if found["uv"] is None:
        found["uv"] = shutil.which("uv", path=f"{prefix / 'bin'}")
    return InstallFacts(
        prefix=prefix,
        url=url,
        commit=version_control.get("commit_id"),
        subdirectory=origin.get("subdirectory"),
        is_editable=bool(origin.get("dir_info", {}).get("editable")),
        checkout=None if folder is None or version_control else _clone_around(folder),
        has_uv_receipt=(prefix / "uv-receipt.toml").exists(),
        has_pipx_metadata=(prefix / "pipx_metadata.json").exists(),
        has_engines=home.engines.exists(),
        programs={name: path for name, path in found.items() if path is not None},
    )


def _clone_around(folder: Path) -> Path | None:
    return next((each for each in (folder, *folder.parents) if (each / ".git").exists()), None)


def upgrade(
    facts: InstallFacts,
    run: RunCommand,
    *,
    only_check: bool = False,
    on_event: OnEvent[UpgradeStep] = ignore,
) -> UpgradeReport:
    """Run the plan's steps, or with `only_check` none; the first that fails ends it.

    Args:
        run: Runs a command and returns its exit code.
        on_event: Gets each step before it runs.

    Raises:
        StackError: When a program is missing that the plan needs.
    """
    plan = plan_upgrade(facts)
    outcomes: list[UpgradeOutcome] = []
    for step in plan.steps:
        if not step.is_ours or step.command is None:
            outcomes.append("by-you")
        elif only_check or "failed" in outcomes:
            outcomes.append("planned")
        else:
            on_event(step)
            outcomes.append("failed" if run(step.command) else "done")
    is_current = _is_current(facts) if only_check else None
    return UpgradeReport(plan, __version__, is_current, tuple(outcomes))


def _is_current(facts: InstallFacts) -> bool | None:
    """Whether the repository's main branch is at the commit that this copy was built from."""
    if facts.commit is None or facts.url is None or "git" not in facts.programs:
        return None
    try:
        asked = subprocess.run(
            (facts.programs["git"], "ls-remote", facts.url, "HEAD"),
            capture_output=True,
            text=True,
            timeout=_LS_REMOTE_TIMEOUT_S,
            check=False,
            env={**os.environ, "GIT_TERMINAL_PROMPT": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    newest = asked.stdout.partition("\t")[0]
    return newest == facts.commit if asked.returncode == 0 and newest else None


def run_command(command: Command) -> int:
    """Run a command whose output the user sees on stderr; its exit code."""
    return subprocess.run(command, stdout=sys.stderr, check=False).returncode
