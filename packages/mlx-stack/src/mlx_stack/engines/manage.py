"""What is done with engines: list, install, verify, upgrade, roll back, prune (decision 0024)."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlx_procsup import ProbeTarget, ServiceState, acquire_lock, probe_all
from mlx_stack.engines import environment as environments
from mlx_stack.engines.by_role import environment_name
from mlx_stack.engines.environment import (
    USUAL,
    EngineName,
    Environment,
    EnvironmentState,
    Lock,
    shipped_lock,
)
from mlx_stack.engines.errors import EngineInUseError
from mlx_stack.engines.install import InstallEvent, held, install_all
from mlx_stack.engines.uv_process import Toolchain
from mlx_stack.engines.verify import EngineVerification, verify
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import UPGRADE, note_event
from mlx_stack.home import Home
from mlx_stack.stack import Tier, load_stack
from mlx_stack.steps import OnEvent, ignore

type EnvironmentRole = Literal["in-use", "previous", "unused"]
type EngineState = Literal["ready", "outdated", "broken", "missing"]
type InstallOutcome = Literal["installed", "already-installed", "repaired"]
type HealthCheck = Callable[[EnginePair], HealthReport]
type LockOfEngine = Callable[[EngineName], Lock]


@dataclass(frozen=True, slots=True)
class EnginePair:
    """The environments that are to work together; None for an engine that is not installed."""

    vllm_mlx: Environment | None
    litellm: Environment | None
    mlx_lm: Environment | None = None

    @property
    def environments(self) -> tuple[Environment, ...]:
        """Those that are there."""
        each = (self.vllm_mlx, self.mlx_lm, self.litellm)
        return tuple(environment for environment in each if environment is not None)


@dataclass(frozen=True, slots=True)
class WorseFigure:
    """What is worse with a new engine or another revision of a model, and by how much, in words."""

    figure: Literal["start", "check", "coherence", "speed", "memory"]
    words: str


@dataclass(frozen=True, slots=True)
class CertifiedTier:
    """How a tier does with something new, next to how it does with what is in use.

    Attributes:
        skipped: Why it was not tried; None where it was.
        verdict: What its check said; None where there is nothing to compare a check with.
        worse: What is worse beyond noise.
    """

    tier: str
    skipped: str | None = None
    verdict: str | None = None
    worse: tuple[WorseFigure, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthReport:
    """A question that was answered.

    Attributes:
        seconds: From starting the first process to the end of the answer.
        tiers: How the stack's tiers do.
    """

    model: str
    question: str
    answer: str
    seconds: float
    tiers: tuple[CertifiedTier, ...] = ()


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    """One environment on disk.

    Attributes:
        role: Whether it is in use, kept for `rollback`, or neither.
        state: `ready`, `incomplete` (never finished) or `broken`.
        disk_bytes: What its files take; on one disk, most are shared with uv's cache.
        installed_at: When it was finished, in UTC, ISO 8601; None if it never was.
    """

    version: str
    role: EnvironmentRole
    state: EnvironmentState
    path: Path
    disk_bytes: int
    installed_at: str | None

    def to_document(self) -> dict[str, object]:
        """The environment as JSON."""
        return {**asdict(self), "path": str(self.path)}


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine.

    Attributes:
        state: `ready`; `outdated` if another version is in use than this mlx-stack ships;
            `broken` if there are environments but none that works is in use; `missing`.
    """

    name: EngineName
    state: EngineState
    version: str | None
    shipped_version: str
    environments: tuple[EnvironmentRow, ...]

    def to_document(self) -> dict[str, object]:
        """The engine as JSON."""
        return {**asdict(self), "environments": [row.to_document() for row in self.environments]}


@dataclass(frozen=True, slots=True)
class EngineList:
    """Every engine that matters here."""

    engines: tuple[EngineRow, ...]
    free_bytes: int

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        rows = [row.to_document() for row in self.engines]
        return {"engines": rows, "free_disk_bytes": self.free_bytes}


@dataclass(frozen=True, slots=True)
class InstalledEngine:
    """What `install` did for one engine.

    Attributes:
        in_use: The environment in use: another one after a rollback, and before an upgrade.
    """

    environment: Environment
    outcome: InstallOutcome
    seconds: float
    in_use: Environment

    @property
    def is_in_use(self) -> bool:
        """Whether the pinned version is in use."""
        return self.in_use == self.environment

    def to_document(self) -> dict[str, object]:
        """What was done, as JSON."""
        return {
            "name": self.environment.engine,
            "version": self.environment.version,
            "outcome": self.outcome,
            "in_use": self.is_in_use,
            "path": str(self.environment.path),
            "disk_bytes": self.environment.disk_bytes(),
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class EngineResults[Result: (InstalledEngine, EngineVerification)]:
    """What a command did, engine by engine."""

    engines: tuple[Result, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"engines": [each.to_document() for each in self.engines]}


@dataclass(frozen=True, slots=True)
class EngineSwitch:
    """An engine whose environment in use has changed, or not.

    Attributes:
        changed: Whether another environment is in use now, perhaps of the same version with other
            versions of its dependencies.
    """

    name: EngineName
    before: str | None
    after: str
    changed: bool


@dataclass(frozen=True, slots=True)
class SwitchedEngines:
    """What `upgrade` or `rollback` did.

    Attributes:
        health: The answer that the new version gave; None if nothing had to be tried.
        restart: Running services that still run from an environment that is no longer in use.
    """

    switches: tuple[EngineSwitch, ...]
    health: HealthReport | None
    restart: tuple[str, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "engines": [asdict(each) for each in self.switches],
            "health": None if self.health is None else asdict(self.health),
            "restart": list(self.restart),
        }


@dataclass(frozen=True, slots=True)
class PrunedEngines:
    """What `prune` removed.

    Attributes:
        kept_running: Services that still run from an environment that would have been removed.
    """

    removed: tuple[EnvironmentRow, ...]
    kept_running: tuple[str, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        removed = [row.to_document() for row in self.removed]
        return {"removed": removed, "kept_for_services": list(self.kept_running)}


def engines_here(home: Home) -> tuple[EngineName, ...]:
    """The engines that matter here: the usual ones, those that tiers need, and installed ones."""
    needed = needed_engines(home)
    return tuple(
        engine
        for engine in EngineName
        if engine in needed or environments.list_environments(home.engines, engine)
    )


def needed_engines(home: Home, tier: str | None = None) -> tuple[EngineName, ...]:
    """The usual engines, and those that tiers of the stack, or this one, ask for besides."""
    tiers: tuple[Tier, ...] = ()
    with suppress(StackError):  # without a stack, or with a damaged one, none is asked for
        tiers = load_stack(home.stack).tiers
    asked = {environment_name(each) for each in tiers if tier in (None, each.name)}
    return tuple(engine for engine in EngineName if engine in USUAL or engine in asked)


def missing_engines(home: Home, tier: str | None = None) -> tuple[EngineName, ...]:
    """Those besides the usual ones that tiers, or this one, ask for, and that aren't installed."""
    return tuple(
        engine
        for engine in needed_engines(home, tier)
        if engine not in USUAL and environments.current_environment(home.engines, engine) is None
    )


def list_engines(home: Home, *, locks: LockOfEngine = shipped_lock) -> EngineList:
    """Every engine that matters here with its environments; reads only."""
    here = engines_here(home)
    rows = tuple(_engine_row(home.engines, engine, locks(engine)) for engine in here)
    folder = next(path for path in (home.engines, *home.engines.parents) if path.exists())
    return EngineList(rows, shutil.disk_usage(folder).free)


def install_engines(
    home: Home,
    toolchain: Toolchain,
    *,
    only: Sequence[EngineName] = USUAL,
    locks: LockOfEngine = shipped_lock,
    reinstall: bool = False,
    on_event: OnEvent[InstallEvent] = ignore,
) -> EngineResults[InstalledEngine]:
    """Install the pinned versions; those that are complete stay as they are.

    Args:
        reinstall: Make them from scratch, which repairs what `verify` finds.
        on_event: Called at each step, from other threads.

    Raises:
        EngineInUseError: When a service runs from an environment that was to be reinstalled.
        LockHeldError: When another command changes the services.
        EngineInstallError: When one could not be installed.
    """
    home.create()
    targets = [environments.environment_for(home.engines, each, locks(each)) for each in only]
    ready = {target.engine for target in targets if target.state == "ready"}
    began = time.monotonic()
    command = "engines install --reinstall"
    with acquire_lock(home.lock, command) if reinstall else nullcontext():
        if reinstall:
            _refuse_if_used(home, targets)
        made = install_all(
            home.engines, toolchain, only=only, locks=locks, on_event=on_event, reinstall=reinstall
        )
    seconds = time.monotonic() - began

    def result(made: Environment) -> InstalledEngine:
        outcome: InstallOutcome = "installed"
        if made.engine in ready:
            outcome = "repaired" if reinstall else "already-installed"
        in_use = environments.require_environment(home.engines, made.engine)
        return InstalledEngine(made, outcome, seconds, in_use)

    return EngineResults(tuple(result(each) for each in made))


def verify_engines(
    home: Home, *, only: Sequence[EngineName] = USUAL
) -> EngineResults[EngineVerification]:
    """How each engine in use differs from its lock, file by file; reads only.

    Raises:
        EngineMissingError: When one is not installed.
    """
    used = [environments.require_environment(home.engines, engine) for engine in only]
    return EngineResults(tuple(verify(environment) for environment in used))


def upgrade_engines(
    home: Home,
    toolchain: Toolchain,
    check: HealthCheck,
    *,
    only: Sequence[EngineName] = USUAL,
    locks: LockOfEngine = shipped_lock,
    on_event: OnEvent[InstallEvent] = ignore,
) -> SwitchedEngines:
    """Install the shipped versions next to those in use, test them, and switch to them.

    What was in use stays on disk for `rollback_engines`, and in use if anything fails. Running
    services keep running from it until they are restarted.

    Args:
        check: Asks the new versions a question; raises if they don't answer it.

    Raises:
        EngineInstallError: When a new version could not be installed.
        EngineUnhealthyError: When a new version doesn't answer.
        LockHeldError: When another command changes the services.
    """
    home.create()
    before = {each: environments.current_environment(home.engines, each) for each in EngineName}
    made = install_all(home.engines, toolchain, only=only, locks=locks, on_event=on_event)
    fresh = {each.engine: each for each in made if before[each.engine] != each}
    health = None
    if fresh:
        used = {**before, **fresh}
        for engine in fresh:
            on_event(InstallEvent(engine, "asking", "a question"))
        health = check(
            EnginePair(used[EngineName.VLLM_MLX], used[EngineName.LITELLM], used[EngineName.MLX_LM])
        )
        with acquire_lock(home.lock, "engines upgrade"):
            for each in fresh.values():
                environments.use_environment(home.engines, each)
    switches = tuple(_switch(each, before[each.engine]) for each in made)
    return _switched(home, switches, health)


def rollback_engines(home: Home, *, only: Sequence[EngineName] = USUAL) -> SwitchedEngines:
    """Switch back to the versions that were in use before; doing it twice changes nothing.

    Raises:
        StackError: When there is no version to go back to.
        LockHeldError: When another command changes the services.
    """
    found = (environments.previous_environment(home.engines, engine) for engine in only)
    back = [environment for environment in found if environment is not None]
    if not back:
        raise StackError(
            f"There is no version of {' or '.join(only)} to go back to.",
            hint="`mlx-stack engines list` shows what is installed.",
        )
    switches: list[EngineSwitch] = []
    with acquire_lock(home.lock, "engines rollback"):
        for environment in back:
            before = environments.current_environment(home.engines, environment.engine)
            environments.use_environment(home.engines, environment)
            switches.append(_switch(environment, before))
    return _switched(home, tuple(switches), None)


def prune_engines(
    home: Home, toolchain: Toolchain, *, previous: bool = False, only: Sequence[EngineName] = USUAL
) -> PrunedEngines:
    """Remove environments that are neither in use nor kept for `rollback`.

    Args:
        toolchain: Its interruption ends the wait for a running installation.
        previous: Remove those that are kept for `rollback` as well.
    """
    removed: list[EnvironmentRow] = []
    kept: set[str] = set()
    running = running_programs(home)
    for engine in only:
        if not (home.engines / engine).is_dir():
            continue
        with held(home.engines, engine, toolchain.interruption):
            for row in _environment_rows(home.engines, engine):
                if row.role == "in-use" or (row.role == "previous" and not previous):
                    continue
                users = _users(running, row.path)
                kept.update(users)
                if not users:
                    environments.remove_environment(Environment(engine, row.path))
                    removed.append(row)
    return PrunedEngines(tuple(removed), tuple(sorted(kept)))


def running_programs(home: Home) -> dict[str, Path]:
    """The program of each service that runs, by the service's name."""
    dirs = home.state_dirs
    statuses = probe_all([ProbeTarget(name) for name in dirs.names()], dirs)
    return {
        status.name: Path(status.record.command[0])
        for status in statuses
        if status.state not in (ServiceState.STOPPED, ServiceState.CRASHED)
        and status.record is not None
        and status.record.command
    }


def services_to_restart(home: Home) -> tuple[str, ...]:
    """Running services whose program belongs to an environment that is no longer in use."""
    used = [environments.current_environment(home.engines, each) for each in EngineName]
    folders = [each.path for each in used if each is not None]
    return tuple(
        name
        for name, program in running_programs(home).items()
        if program.is_relative_to(home.engines)
        and not any(program.is_relative_to(folder) for folder in folders)
    )


def _engine_row(engines: Path, engine: EngineName, shipped: Lock) -> EngineRow:
    current = environments.current_environment(engines, engine)
    rows = _environment_rows(engines, engine)
    state: EngineState = "missing"
    if current is not None:
        is_shipped = current == environments.environment_for(engines, engine, shipped)
        state = "ready" if is_shipped else "outdated"
    elif rows:
        state = "broken"
    version = None if current is None else current.version
    return EngineRow(engine, state, version, shipped.version_of(engine), rows)


def _environment_rows(engines: Path, engine: EngineName) -> tuple[EnvironmentRow, ...]:
    current = environments.current_environment(engines, engine)
    previous = environments.previous_environment(engines, engine)

    def row(environment: Environment) -> EnvironmentRow:
        receipt = environment.receipt
        role: EnvironmentRole = "previous" if environment == previous else "unused"
        if environment == current:
            role = "in-use"
        return EnvironmentRow(
            version=environment.version,
            role=role,
            state=environment.state,
            path=environment.path,
            disk_bytes=environment.disk_bytes(),
            installed_at=None if receipt is None else receipt.installed_at,
        )

    return tuple(row(each) for each in environments.list_environments(engines, engine))


def _switch(after: Environment, before: Environment | None) -> EngineSwitch:
    version = None if before is None else before.version
    return EngineSwitch(after.engine, version, after.version, changed=before != after)


def _switched(
    home: Home, switches: tuple[EngineSwitch, ...], health: HealthReport | None
) -> SwitchedEngines:
    for each in switches:
        if each.changed:
            words = f"{each.name} {each.before or 'none'} → {each.after}"
            note_event(home, UPGRADE, detail=words)
    return SwitchedEngines(switches, health, services_to_restart(home))


def _refuse_if_used(home: Home, targets: Sequence[Environment]) -> None:
    running = running_programs(home)
    users = sorted({name for target in targets for name in _users(running, target.path)})
    if users:
        raise EngineInUseError(users)


def _users(running: dict[str, Path], folder: Path) -> list[str]:
    return [name for name, program in running.items() if program.is_relative_to(folder)]
