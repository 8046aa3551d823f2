"""The environments of engines on disk: where they are, which one is in use, which are whole.

engines/<engine>/<version>-<8 digits of the lock's hash>/    a virtual environment, in which
    mlx-stack.json   is written last: without it, the environment is not whole
    mlx-stack.lock   is the lock that it was made from
engines/<engine>/current      a link to the one in use
engines/<engine>/previous     a link to the one in use before, for `rollback`
engines/<engine>/.lock        held while one is being made
"""

import json
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from mlx_stack import atomic_file
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.engines.lockfile import Engine, Lock

type State = Literal["ready", "incomplete", "broken"]

MARKER = "mlx-stack.json"
LOCK_COPY = "mlx-stack.lock"
CURRENT = "current"
PREVIOUS = "previous"


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is written down once an environment is whole.

    Attributes:
        engine: The engine's name.
        version: Its version.
        lock_sha256: The digest of the lock that it was made from.
        records_sha256: The digest of the lists of installed files, see `verify`.
        installed_at: When, in UTC, ISO 8601.
        schema_version: 1.
    """

    engine: str
    version: str
    lock_sha256: str
    records_sha256: str
    installed_at: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Environment:
    """The isolated environment of one version of an engine.

    Attributes:
        engine: Whose environment it is.
        path: Its folder, absolute; its name is the version and part of the lock's hash.
    """

    engine: Engine
    path: Path

    @property
    def version(self) -> str:
        """The engine's version."""
        return self.path.name.rpartition("-")[0]

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.path / "bin" / "python"

    def program(self, name: str) -> Path:
        """A program that one of its packages brings."""
        return self.path / "bin" / name

    @property
    def site_packages(self) -> Path | None:
        """Where its packages are, or None where the folder holds no environment."""
        return next(iter(sorted(self.path.glob("lib/python3*/site-packages"))), None)

    @property
    def state(self) -> State:
        """`ready`, `incomplete` (never finished) or `broken` (its Python is gone, say)."""
        if read_receipt(self) is None:
            return "incomplete"
        usable = self.python.exists() and self.site_packages is not None
        return "ready" if usable else "broken"

    def disk_bytes(self) -> int:
        """What its files take on disk; most are shared with uv's cache where both are one disk."""
        return sum(_allocated(path) for path in (self.path, *self.path.rglob("*")))


def environment_for(engines: Path, engine: Engine, lock: Lock) -> Environment:
    """The environment that `lock` makes, whether it exists or not."""
    name = f"{lock.version_of(engine)}-{lock.digest[:8]}"
    return Environment(engine, engines / engine / name)


def list_environments(engines: Path, engine: Engine) -> tuple[Environment, ...]:
    """All environments of an engine, whole or not, by name."""
    return tuple(Environment(engine, path) for path in sorted(_folders(engines / engine)))


def current_environment(engines: Path, engine: Engine) -> Environment | None:
    """The environment in use, or None where there is none that works."""
    return _linked(engines, engine, CURRENT)


def previous_environment(engines: Path, engine: Engine) -> Environment | None:
    """The one that was in use before, or None where there is none that works."""
    return _linked(engines, engine, PREVIOUS)


def require_environment(engines: Path, engine: Engine) -> Environment:
    """The environment in use.

    Raises:
        EngineMissingError: There is none that works.
    """
    environment = current_environment(engines, engine)
    if environment is None:
        raise EngineMissingError(engine)
    return environment


def use_environment(engines: Path, environment: Environment) -> None:
    """Switch to `environment` atomically, and remember the one before it for `rollback`."""
    before = current_environment(engines, environment.engine)
    if before == environment:
        return
    if before is not None:
        _link(before.path.parent / PREVIOUS, before.path.name)
    _link(environment.path.parent / CURRENT, environment.path.name)


def remove_environment(environment: Environment) -> None:
    """Remove an environment; one that was kept for `rollback` is no longer.

    It is never taken for whole on the way: its receipt goes first.

    Raises:
        OSError: A part of it can't be removed.
    """
    (environment.path / MARKER).unlink(missing_ok=True)
    link = environment.path.parent / PREVIOUS
    if link.is_symlink() and link.readlink() == Path(environment.path.name):
        link.unlink()
    shutil.rmtree(environment.path)


def read_receipt(environment: Environment) -> Receipt | None:
    """What was written down when the environment was finished; None if it never was."""
    try:
        text = (environment.path / MARKER).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return msgspec.json.decode(text, type=Receipt)
    except msgspec.DecodeError:  # damaged: nothing vouches for the environment
        return None


def write_receipt(environment: Environment, receipt: Receipt) -> None:
    """Declare the environment whole."""
    text = json.dumps(msgspec.to_builtins(receipt), indent=2) + "\n"
    atomic_file.write_text(environment.path / MARKER, text)


def _linked(engines: Path, engine: Engine, link: str) -> Environment | None:
    try:
        name = (engines / engine / link).readlink()
    except FileNotFoundError:
        return None
    environment = Environment(engine, engines / engine / name)
    return environment if environment.state == "ready" else None


def _link(link: Path, target: str) -> None:
    """Point `link` at `target`, at no time at nothing."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _folders(directory: Path) -> Iterator[Path]:
    try:
        entries = list(directory.iterdir())
    except FileNotFoundError:
        return
    for path in entries:
        if not path.is_symlink() and path.is_dir():
            yield path


def _allocated(path: Path) -> int:
    status = path.lstat()
    return 0 if stat.S_ISLNK(status.st_mode) else status.st_blocks * 512
