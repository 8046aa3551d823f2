"""Making an engine's environment: whole or not there, however it is interrupted."""

import os
import re
import shutil
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from mlx_procsup import WaitCancelledError, acquire_lock
from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import Environment, Receipt
from mlx_stack.engines.lockfile import Engine, Lock, shipped_lock
from mlx_stack.engines.records import records_digest
from mlx_stack.engines.uv_process import Interruption, not_installed, run_uv

type Step = Literal["waiting", "creating", "downloading", "downloaded", "installing", "ready"]


@dataclass(frozen=True, slots=True)
class InstallEvent:
    """Something to show while an engine is being installed.

    Attributes:
        engine: Whose installation it is.
        step: What has begun, or, for `downloaded` and `ready`, ended.
        detail: The package, with its size where uv says it, or the version; "" for nothing.
    """

    engine: Engine
    step: Step
    detail: str = ""


type InstallObserver = Callable[[InstallEvent], None]


def ignore(_: InstallEvent) -> None:
    """An observer that shows nothing."""


_UV_LINES: Final[tuple[tuple[Step, re.Pattern[str]], ...]] = (
    ("downloading", re.compile(r"^Downloading (?P<detail>.+)$")),
    ("downloaded", re.compile(r"^Downloaded (?P<detail>.+)$")),
    ("installing", re.compile(r"^Prepared (?P<detail>\d+ packages?)")),
)


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What environments are made with.

    Attributes:
        uv: The uv program.
        python: The interpreter that environments are based on.
        variables: The caller's environment; indexes, proxies and certificates are taken from it.
        interruption: Stops what is being installed with it.
    """

    uv: Path
    python: Path
    variables: Mapping[str, str]
    interruption: Interruption = field(default_factory=Interruption)


def own_toolchain(variables: Mapping[str, str] = os.environ) -> Toolchain:
    """The uv that mlx-stack depends on, and the Python that it runs on."""
    from uv import find_uv_bin

    return Toolchain(Path(find_uv_bin()), Path(sys.executable), variables)


def install(
    engine: Engine,
    engines: Path,
    toolchain: Toolchain,
    *,
    lock: Lock | None = None,
    on_event: InstallObserver = ignore,
    reinstall: bool = False,
) -> Environment:
    """The pinned version of `engine`, installed; put to use where no other version is.

    What is there already and whole stays as it is, so calling this again costs nothing. Of two
    calls at once, one installs and the other waits for it.

    Args:
        engine: What to install.
        engines: The folder of all engines; made where it is missing.
        toolchain: What to install with.
        lock: What to install; by default the lock that is shipped with mlx-stack.
        on_event: Told of each step.
        reinstall: Make the environment anew, past uv's cache: the repair of changed files, which
            the cache may share.

    Raises:
        EngineInstallError: It could not be installed; what was in use before still is.
        OSError: The folder can't be written to.
    """
    lock = lock or shipped_lock(engine)
    environment = environments.environment_for(engines, engine, lock)
    waiting = InstallEvent(engine, "waiting", "another installation")
    with held(engines, engine, toolchain.interruption, lambda: on_event(waiting)):
        if reinstall or environment.state != "ready":
            _make(environment, lock, toolchain, on_event, past_cache=reinstall)
        if environments.current_environment(engines, engine) is None:
            environments.use_environment(engines, environment)
    on_event(InstallEvent(engine, "ready", environment.version))
    return environment


def install_all(
    engines: Path,
    toolchain: Toolchain,
    *,
    only: Sequence[Engine] = tuple(Engine),
    locks: Callable[[Engine], Lock] = shipped_lock,
    on_event: InstallObserver = ignore,
    reinstall: bool = False,
) -> tuple[Environment, ...]:
    """The pinned versions of several engines, installed side by side, as `install` does one.

    The first failure stops the others, and so does an interrupt.

    Args:
        engines: The folder of all engines.
        toolchain: What to install with.
        only: Which engines.
        locks: What to install of each; by default what is shipped with mlx-stack.
        on_event: Told of each step; from other threads.
        reinstall: As of `install`.

    Raises:
        EngineInstallError: One could not be installed.
        OSError: The folder can't be written to.
    """

    def install_one(engine: Engine) -> Environment:
        with toolchain.interruption.working(engine):
            return install(
                engine,
                engines,
                toolchain,
                lock=locks(engine),
                on_event=on_event,
                reinstall=reinstall,
            )

    with ThreadPoolExecutor(max_workers=max(1, len(only))) as pool:
        try:
            return tuple(pool.map(install_one, only))
        except BaseException:
            # an interrupt can hit the pool before it knows of a thread that it has started
            toolchain.interruption.stop_and_wait()
            raise


def _make(
    environment: Environment,
    lock: Lock,
    toolchain: Toolchain,
    on_event: InstallObserver,
    *,
    past_cache: bool,
) -> None:
    engine = environment.engine
    on_event(InstallEvent(engine, "creating", environment.version))
    (environment.path / environments.MARKER).unlink(missing_ok=True)
    _remove(environment.path)
    what = f"{engine} {environment.version}"
    try:
        lock_copy = create_environment(environment.path, lock, toolchain, what=what)
        on_event(InstallEvent(engine, "installing"))
        sync_packages(
            environment.path,
            lock_copy,
            toolchain,
            what=what,
            on_line=lambda line: _report(line, engine, on_event),
            past_cache=past_cache,
        )
        environments.write_receipt(environment, _receipt(environment, lock))
    except BaseException:
        _remove(environment.path)
        raise


def create_environment(path: Path, lock: Lock, toolchain: Toolchain, *, what: str) -> Path:
    """Make an empty virtual environment that holds a copy of `lock`, whose path is returned."""
    run_uv(
        ("venv", "--no-project", "--python", str(toolchain.python), str(path)),
        uv=toolchain.uv,
        cwd=path.parent,
        environment=toolchain.variables,
        what=what,
        on_line=lambda _: None,
        interruption=toolchain.interruption,
    )
    lock_copy = path / environments.LOCK_COPY
    lock_copy.write_text(lock.text, encoding="utf-8")
    return lock_copy


def sync_packages(
    path: Path,
    lock: Path,
    toolchain: Toolchain,
    *,
    what: str,
    on_line: Callable[[str], None] = lambda _: None,
    past_cache: bool = False,
) -> None:
    """Install exactly the packages of the lock file into the environment at `path`.

    Only wheels are taken, and each is checked against its hash: no code of a package runs while
    it is being installed.
    """
    run_uv(
        (
            *("pip", "sync", "--require-hashes", "--only-binary", ":all:"),
            *("--python", str(path / "bin" / "python"), str(lock)),
            *(("--no-cache",) if past_cache else ()),
        ),
        uv=toolchain.uv,
        cwd=path,
        environment=toolchain.variables,
        what=what,
        on_line=on_line,
        interruption=toolchain.interruption,
    )


def _receipt(environment: Environment, lock: Lock) -> Receipt:
    packages = environment.site_packages
    assert packages is not None  # uv has just filled it
    return Receipt(
        engine=environment.engine,
        version=environment.version,
        lock_sha256=lock.digest,
        records_sha256=records_digest(packages),
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _report(line: str, engine: Engine, on_event: InstallObserver) -> None:
    for step, pattern in _UV_LINES:
        if match := pattern.match(line):
            on_event(InstallEvent(engine, step, match["detail"]))


@contextmanager
def held(
    engines: Path,
    engine: Engine,
    interruption: Interruption,
    on_wait: Callable[[], None] = lambda: None,
) -> Generator[None]:
    """Keep other installations of the engine out; the kernel frees the lock when we die.

    Raises:
        EngineInstallError: When it was interrupted while it waited for another installation.
        LockUnsupportedError: When the disk of the folder has no locks.
    """
    with ExitStack() as stack:
        try:
            lock = acquire_lock(
                engines / engine / ".lock",
                "engines install",
                on_wait=lambda _: on_wait(),
                cancelled=interruption.wanted.is_set,
            )
            stack.enter_context(lock)
        except WaitCancelledError as error:
            why = "interrupted while another installation ran"
            raise not_installed(engine, why) from error
        yield


def _remove(path: Path) -> None:
    """Remove a folder; what can't be removed keeps no receipt, so it is never taken for whole."""
    shutil.rmtree(path, ignore_errors=True)
