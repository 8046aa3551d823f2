"""The life cycle of the engines: list, install, verify, upgrade, roll back, prune."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlx_procsup import ProbeTarget, ServiceState, acquire_lock, probe_all
from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import Environment, State
from mlx_stack.engines.errors import EngineInUseError
from mlx_stack.engines.install import (
    InstallObserver,
    Toolchain,
    held,
    ignore,
    install_all,
)
from mlx_stack.engines.lockfile import Engine, Lock, shipped_lock
from mlx_stack.engines.verify import Verification, verify
from mlx_stack.errors import StackError
from mlx_stack.home import Home

type Role = Literal["in-use", "previous", "unused"]
type EngineState = Literal["ready", "outdated", "broken", "missing"]
type InstallOutcome = Literal["installed", "already-installed", "repaired"]
type HealthCheck = Callable[[EnginePair], HealthReport]
type Locks = Callable[[Engine], Lock]

ALL: tuple[Engine, ...] = tuple(Engine)


@dataclass(frozen=True, slots=True)
class EnginePair:
    """The environments that are to work together; None for an engine that is not installed."""

    vllm_mlx: Environment | None
    litellm: Environment | None


@dataclass(frozen=True, slots=True)
class HealthReport:
    """A question that was answered.

    Attributes:
        model: Who was asked.
        question: What was asked.
        answer: What came back, word for word.
        seconds: From starting the first process to the end of the answer.
    """

    model: str
    question: str
    answer: str
    seconds: float


@dataclass(frozen=True, slots=True)
class EnvironmentRow:
    """One environment on disk.

    Attributes:
        version: The engine's version.
        role: Whether it is in use, kept for `rollback`, or neither.
        state: `ready`, `incomplete` (never finished) or `broken`.
        path: Its folder.
        disk_bytes: What its files take; uv's cache shares most of them where both are one disk.
        installed_at: When it was finished, in UTC, ISO 8601; None if it never was.
    """

    version: str
    role: Role
    state: State
    path: Path
    disk_bytes: int
    installed_at: str | None


@dataclass(frozen=True, slots=True)
class EngineRow:
    """One engine.

    Attributes:
        name: The engine.
        state: `ready`; `outdated` where another version is in use than this mlx-stack ships;
            `broken` where there are environments and none that works is in use; `missing`.
        version: The version in use, or None.
        shipped_version: The version that this mlx-stack was released with.
        environments: All its environments.
    """

    name: Engine
    state: EngineState
    version: str | None
    shipped_version: str
    environments: tuple[EnvironmentRow, ...]

    def to_json(self) -> dict[str, object]:
        """The engine as JSON."""
        rows = [{**asdict(row), "path": str(row.path)} for row in self.environments]
        return {**asdict(self), "environments": rows}


@dataclass(frozen=True, slots=True)
class Installed:
    """What `install` did for one engine.

    Attributes:
        environment: The pinned version's environment.
        outcome: What was done.
        seconds: How long all of it took.
        in_use: The version in use.
        is_in_use: Whether that is this environment: not so after a rollback, and before an upgrade.
    """

    environment: Environment
    outcome: InstallOutcome
    seconds: float
    in_use: str
    is_in_use: bool


@dataclass(frozen=True, slots=True)
class Switch:
    """An engine whose environment in use has changed, or not.

    Attributes:
        name: The engine.
        before: The version that was in use, or None where there was none.
        after: The version in use now.
        changed: Whether another environment is in use now (the same version, perhaps, with other
            versions of what it depends on).
    """

    name: Engine
    before: str | None
    after: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Switched:
    """What `upgrade` or `rollback` did.

    Attributes:
        switches: Engine by engine.
        health: The answer that the new version gave; None where nothing had to be tried.
        restart: Running services that still run from an environment that is no longer in use.
    """

    switches: tuple[Switch, ...]
    health: HealthReport | None
    restart: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pruned:
    """What `prune` removed.

    Attributes:
        removed: The environments, as they were.
        kept_running: Services that still run from an environment that would have been removed.
    """

    removed: tuple[EnvironmentRow, ...]
    kept_running: tuple[str, ...]


def list_engines(home: Home, *, locks: Locks = shipped_lock) -> tuple[EngineRow, ...]:
    """Every engine with its environments; reads only."""
    return tuple(_engine_row(home.engines, engine, locks(engine)) for engine in Engine)


def install_engines(
    home: Home,
    toolchain: Toolchain,
    *,
    only: Sequence[Engine] = ALL,
    locks: Locks = shipped_lock,
    reinstall: bool = False,
    on_event: InstallObserver = ignore,
) -> tuple[Installed, ...]:
    """Install the pinned versions; what is there and whole stays as it is.

    Args:
        home: Its folder is made where it is missing.
        toolchain: What to install with.
        only: Which engines.
        locks: What to install of each.
        reinstall: Make them anew: the repair of what `verify` finds.
        on_event: Told of each step; from other threads.

    Raises:
        EngineInUseError: A service runs from an environment that was to be made anew.
        LockHeldError: Another command changes the services.
        EngineInstallError: One could not be installed.
    """
    home.create()
    targets = [environments.environment_for(home.engines, each, locks(each)) for each in only]
    whole = {target.engine for target in targets if target.state == "ready"}
    began = time.monotonic()
    if reinstall:
        with acquire_lock(home.lock, "engines install --reinstall"):
            _refuse_if_used(home, targets)
            made = install_all(
                home.engines, toolchain, only=only, locks=locks, on_event=on_event, reinstall=True
            )
    else:
        made = install_all(home.engines, toolchain, only=only, locks=locks, on_event=on_event)
    seconds = time.monotonic() - began

    def outcome(engine: Engine) -> InstallOutcome:
        if engine not in whole:
            return "installed"
        return "repaired" if reinstall else "already-installed"

    used = [environments.require_environment(home.engines, each.engine) for each in made]
    return tuple(
        Installed(each, outcome(each.engine), seconds, current.version, current == each)
        for each, current in zip(made, used, strict=True)
    )


def verify_engines(home: Home, *, only: Sequence[Engine] = ALL) -> tuple[Verification, ...]:
    """Compare each engine in use with its lock, file by file; reads only.

    Raises:
        EngineMissingError: One is not installed.
    """
    used = [environments.require_environment(home.engines, engine) for engine in only]
    return tuple(verify(environment) for environment in used)


def upgrade_engines(
    home: Home,
    toolchain: Toolchain,
    check: HealthCheck,
    *,
    only: Sequence[Engine] = ALL,
    locks: Locks = shipped_lock,
    on_event: InstallObserver = ignore,
) -> Switched:
    """Install the shipped versions beside those in use, try them, and switch to them.

    What was in use stays on disk for `rollback_engines`, and in use where anything fails. Running
    services keep running from it until they are restarted.

    Args:
        home: Its folder is made where it is missing.
        toolchain: What to install with.
        check: Asks the new versions a question; raises where they don't answer it.
        only: Which engines.
        locks: What to install of each.
        on_event: Told of each step of the installation; from other threads.

    Raises:
        EngineInstallError: A new version could not be installed.
        EngineUnhealthyError: A new version doesn't answer.
        LockHeldError: Another command changes the services.
    """
    home.create()
    before = {each: environments.current_environment(home.engines, each) for each in Engine}
    made = install_all(home.engines, toolchain, only=only, locks=locks, on_event=on_event)
    fresh = {each.engine: each for each in made if before[each.engine] != each}
    health = None
    if fresh:
        used = {each: fresh.get(each) or before[each] for each in Engine}
        health = check(EnginePair(used[Engine.VLLM_MLX], used[Engine.LITELLM]))
        with acquire_lock(home.lock, "engines upgrade"):
            for each in fresh.values():
                environments.use_environment(home.engines, each)
    switches = tuple(_switch(each, before[each.engine]) for each in made)
    return Switched(switches, health, services_to_restart(home))


def rollback_engines(home: Home, *, only: Sequence[Engine] = ALL) -> Switched:
    """Switch back to the versions that were in use before; doing it twice changes nothing.

    Raises:
        StackError: There is no version to go back to.
        LockHeldError: Another command changes the services.
    """
    switches: list[Switch] = []
    back = {each: environments.previous_environment(home.engines, each) for each in only}
    if not any(back.values()):
        raise StackError(
            f"There is no version of {' or '.join(only)} to go back to.",
            hint="`mlx-stack engines list` shows what is installed.",
        )
    with acquire_lock(home.lock, "engines rollback"):
        for environment in back.values():
            if environment is not None:
                before = environments.current_environment(home.engines, environment.engine)
                environments.use_environment(home.engines, environment)
                switches.append(_switch(environment, before))
    return Switched(tuple(switches), None, services_to_restart(home))


def prune_engines(
    home: Home, toolchain: Toolchain, *, previous: bool = False, only: Sequence[Engine] = ALL
) -> Pruned:
    """Remove environments that are neither in use nor kept for `rollback`.

    Args:
        home: Where they are.
        toolchain: Its interruption ends the wait for an installation that runs.
        previous: Remove those that are kept for `rollback` as well.
        only: Which engines.
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
    return Pruned(tuple(removed), tuple(sorted(kept)))


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
    used = [environments.current_environment(home.engines, each) for each in Engine]
    folders = [each.path for each in used if each is not None]
    return tuple(
        name
        for name, program in running_programs(home).items()
        if program.is_relative_to(home.engines)
        and not any(program.is_relative_to(folder) for folder in folders)
    )


def free_disk_bytes(home: Home) -> int:
    """What is left on the disk of the engines, for those who wonder whether one more fits."""
    folder = next(path for path in (home.engines, *home.engines.parents) if path.exists())
    return shutil.disk_usage(folder).free


def _engine_row(engines: Path, engine: Engine, shipped: Lock) -> EngineRow:
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


def _environment_rows(engines: Path, engine: Engine) -> tuple[EnvironmentRow, ...]:
    current = environments.current_environment(engines, engine)
    previous = environments.previous_environment(engines, engine)

    def row(environment: Environment) -> EnvironmentRow:
        receipt = environments.read_receipt(environment)
        role: Role = "unused"
        if environment == current:
            role = "in-use"
        elif environment == previous:
            role = "previous"
        return EnvironmentRow(
            version=environment.version,
            role=role,
            state=environment.state,
            path=environment.path,
            disk_bytes=environment.disk_bytes(),
            installed_at=None if receipt is None else receipt.installed_at,
        )

    return tuple(row(each) for each in environments.list_environments(engines, engine))


def _switch(after: Environment, before: Environment | None) -> Switch:
    version = None if before is None else before.version
    return Switch(after.engine, version, after.version, changed=before != after)


def _refuse_if_used(home: Home, targets: Sequence[Environment]) -> None:
    running = running_programs(home)
    users = sorted({name for target in targets for name in _users(running, target.path)})
    if users:
        raise EngineInUseError(users)


def _users(running: dict[str, Path], folder: Path) -> list[str]:
    return [name for name, program in running.items() if program.is_relative_to(folder)]
