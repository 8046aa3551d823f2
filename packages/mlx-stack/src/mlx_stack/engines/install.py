"""Making an engine's environment: complete or not there, however it is interrupted."""

import re
import shutil
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from mlx_procsup import WaitCancelledError, acquire_lock
from mlx_stack import json_file
from mlx_stack.engines import environment as environments
from mlx_stack.engines.environment import (
    USUAL,
    EngineName,
    Environment,
    Lock,
    Receipt,
    shipped_lock,
)
from mlx_stack.engines.errors import EngineInstallError
from mlx_stack.engines.uv_process import Interruption, Toolchain, not_installed
from mlx_stack.engines.verify import packages_problem, records_digest
from mlx_stack.steps import OnEvent, ignore

type InstallStep = Literal[
    "waiting", "creating", "downloading", "downloaded", "installing", "ready", "asking"
]


@dataclass(frozen=True, slots=True)
class InstallEvent:
    """Something to show while an engine is being installed.

    Attributes:
        step: What has begun, or, for `downloaded` and `ready`, ended; `asking` tests an upgrade.
        detail: The package, with its size if uv says it, or the version; "" for nothing.
    """

    engine: EngineName
    step: InstallStep
    detail: str = ""


_UV_LINES: Final[tuple[tuple[InstallStep, re.Pattern[str]], ...]] = (
    ("downloading", re.compile(r"^Downloading (?P<detail>.+)$")),
    ("downloaded", re.compile(r"^Downloaded (?P<detail>.+)$")),
    ("installing", re.compile(r"^(?:Resolved|Prepared) (?P<detail>\d+ packages?)")),
)


def install(
    engine: EngineName,
    engines: Path,
    toolchain: Toolchain,
    *,
    lock: Lock | None = None,
    on_event: OnEvent[InstallEvent] = ignore,
    reinstall: bool = False,
) -> Environment:
    """The pinned version of `engine`, installed; it is in use if no other version is.

    A complete one stays as it is, so calling this again costs nothing. Of two calls at once, one
    installs and the other waits for it.

    Args:
        reinstall: Make the environment from scratch, bypassing uv's cache, which may share changed
            files.

    Raises:
        EngineInstallError: When it could not be installed; the one in use before still is.
        OSError: When the folder can't be written to.
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
    only: Sequence[EngineName] = USUAL,
    locks: Callable[[EngineName], Lock] = shipped_lock,
    on_event: OnEvent[InstallEvent] = ignore,
    reinstall: bool = False,
) -> tuple[Environment, ...]:
    """The pinned versions of several engines, installed in parallel, as `install` does one.

    The first failure stops the others, and so does an interrupt.

    Args:
        on_event: Called at each step, from other threads.

    Raises:
        EngineInstallError: When one could not be installed.
        OSError: When the folder can't be written to.
    """

    def install_one(engine: EngineName) -> Environment:
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
    on_event: OnEvent[InstallEvent],
    *,
    past_cache: bool,
) -> None:
    def report(line: str) -> None:
        for step, pattern in _UV_LINES:
            if match := pattern.match(line):
                on_event(InstallEvent(environment.engine, step, match["detail"]))

    on_event(InstallEvent(environment.engine, "creating", environment.version))
    (environment.path / environments.MARKER).unlink(missing_ok=True)
    _remove(environment.path)
    what = f"{environment.engine} {environment.version}"
    try:
        fill_folder(
            environment.path, lock, toolchain, what=what, on_line=report, past_cache=past_cache
        )
        receipt = _receipt(environment, lock, what)
        json_file.write(environment.path / environments.MARKER, receipt)
    except BaseException:
        _remove(environment.path)
        raise


def _receipt(environment: Environment, lock: Lock, what: str) -> Receipt:
    """What vouches for an environment, once its packages are those of the lock."""
    packages, wrong = environment.site_packages, packages_problem(environment, lock)
    if packages is None or wrong is not None:
        message = f"{what} could not be installed: uv succeeded, but {wrong}."
        raise EngineInstallError(message, reason="failed")
    return Receipt(
        lock_sha256=lock.digest,
        records_sha256=records_digest(packages),
        installed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def fill_folder(
    folder: Path,
    lock: Lock,
    toolchain: Toolchain,
    *,
    what: str,
    on_line: Callable[[str], None] = ignore,
    past_cache: bool = False,
) -> None:
    """Make a virtual environment that holds exactly the packages of `lock`, and a copy of it.

    Only wheels are taken, and each is checked against its hash: no code of a package runs while
    it is being installed.

    Raises:
        EngineInstallError: When uv failed; what it did so far is still there.
    """
    create = ("venv", "--no-project", "--python", str(toolchain.python), str(folder))
    toolchain.run(create, folder.parent, what, on_line)
    lock_copy = folder / environments.LOCK_COPY
    lock_copy.write_text(lock.text, encoding="utf-8")
    fill = (
        *("pip", "sync", "--require-hashes", "--only-binary", ":all:"),
        *("--python", str(folder / "bin" / "python"), str(lock_copy)),
        *(("--no-cache",) if past_cache else ()),
    )
    toolchain.run(fill, folder, what, on_line)


@contextmanager
def held(
    engines: Path,
    engine: EngineName,
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
    """Remove a folder; what can't be removed has no receipt, so it never counts as complete."""
    shutil.rmtree(path, ignore_errors=True)
