"""Engines on disk: locks, environments, and which one is in use (decisions 0020 and 0021).

engines/<engine>/<version>-<8 digits of the lock's hash>/    a virtual environment, in which
    mlx-stack.json   is written last: without it, the environment is incomplete
    mlx-stack.lock   is the lock that it was made from
engines/<engine>/current      a link to the one in use
engines/<engine>/previous     a link to the one in use before, for `rollback`
engines/<engine>/.lock        held while one is being made
"""

import hashlib
import os
import re
import shutil
import stat
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec

from mlx_stack import json_file
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.errors import InvalidFileError

MARKER = "mlx-stack.json"
LOCK_COPY = "mlx-stack.lock"
_CURRENT = "current"
_PREVIOUS = "previous"
_PIN = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>\S+)(?: ; (?P<marker>.+?))?(?: \\)?$")


class EngineName(StrEnum):
    """The programs that are installed into isolated environments."""

    VLLM_MLX = "vllm-mlx"
    LITELLM = "litellm"
    MLX_LM = "mlx-lm"


USUAL = (EngineName.VLLM_MLX, EngineName.LITELLM)
"""Those that every stack needs; another is installed once a tier needs it."""


type LockName = EngineName | Literal["embedded-model"]
type EnvironmentState = Literal["ready", "incomplete", "broken"]


@dataclass(frozen=True, slots=True)
class Pin:
    """One package of a lock.

    Attributes:
        name: The distribution's normalized name.
        marker: Where it is needed, as an environment marker; "" is everywhere.
    """

    name: str
    version: str
    marker: str


@dataclass(frozen=True, slots=True)
class Lock:
    """A universal lock: a requirements file with one version and the hashes of each package."""

    text: str

    @property
    def digest(self) -> str:
        """The SHA-256 of the content, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The packages, for all platforms."""
        matches = filter(None, map(_PIN.match, self.text.splitlines()))
        return tuple(
            Pin(match["name"], match["version"], match["marker"] or "") for match in matches
        )

    def version_of(self, name: str) -> str:
        """The version that `name` is pinned to.

        Raises:
            KeyError: When it isn't in the lock.
        """
        return {pin.name: pin.version for pin in self.pins}[name]


def shipped_lock(name: LockName) -> Lock:
    """The lock of that name in this version of mlx-stack."""
    file = resources.files("mlx_stack.engines") / "locks" / f"{name}.txt"
    return Lock(file.read_text(encoding="utf-8"))


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What is recorded once an environment is complete.

    Attributes:
        lock_sha256: The digest of the lock that it was made from.
        records_sha256: The digest of the lists of installed files, see `verify`.
        installed_at: When, in UTC, ISO 8601.
    """

    lock_sha256: str
    records_sha256: str
    installed_at: str
    schema_version: int = 1


@dataclass(frozen=True, slots=True)
class Environment:
    """The isolated environment of one version of an engine.

    Attributes:
        path: Its folder, absolute; its name is the version and part of the lock's hash.
    """

    engine: EngineName
    path: Path

    @property
    def version(self) -> str:
        """The engine's version."""
        return self.path.name.rpartition("-")[0]

    def version_of(self, package: str) -> str | None:
        """The version of a package in it, by the lock that it was made from; None if unknown."""
        try:
            return Lock((self.path / LOCK_COPY).read_text(encoding="utf-8")).version_of(package)
        except (OSError, UnicodeDecodeError, KeyError):
            return None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.program("python")

    def program(self, name: str) -> Path:
        """A program of one of its packages."""
        return self.path / "bin" / name

    @property
    def site_packages(self) -> Path | None:
        """Where its packages are, or None if the folder isn't an environment."""
        return next(iter(sorted(self.path.glob("lib/python3*/site-packages"))), None)

    @property
    def receipt(self) -> Receipt | None:
        """What was recorded when it was complete; None if it never was, or that is damaged."""
        try:
            return json_file.read(self.path / MARKER, Receipt, hint="")
        except InvalidFileError:
            return None

    @property
    def state(self) -> EnvironmentState:
        """`ready`, `incomplete` (never finished) or `broken` (say, its Python is gone)."""
        if self.receipt is None:
            return "incomplete"
        usable = self.python.exists() and self.site_packages is not None
        return "ready" if usable else "broken"

    def disk_bytes(self) -> int:
        """What its files take on disk; on one disk, most are shared with uv's cache."""
        statuses = [path.lstat() for path in (self.path, *self.path.rglob("*"))]
        return sum(each.st_blocks * 512 for each in statuses if not stat.S_ISLNK(each.st_mode))


def environment_for(engines: Path, engine: EngineName, lock: Lock) -> Environment:
    """The environment that `lock` makes, whether it exists or not."""
    name = f"{lock.version_of(engine)}-{lock.digest[:8]}"
    return Environment(engine, engines / engine / name)


def list_environments(engines: Path, engine: EngineName) -> tuple[Environment, ...]:
    """All environments of an engine, complete or not, by name."""
    folder = engines / engine
    if not folder.exists():
        return ()
    paths = (path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return tuple(Environment(engine, path) for path in sorted(paths))


def unused_environments(engines: Path, engine: EngineName) -> tuple[Environment, ...]:
    """Those that are neither in use nor kept for a rollback."""
    kept = (current_environment(engines, engine), previous_environment(engines, engine))
    return tuple(each for each in list_environments(engines, engine) if each not in kept)


def current_environment(engines: Path, engine: EngineName) -> Environment | None:
    """The environment in use, or None if there is none that works."""
    return _linked(engines, engine, _CURRENT)


def previous_environment(engines: Path, engine: EngineName) -> Environment | None:
    """The one that was in use before, or None if there is none that works."""
    return _linked(engines, engine, _PREVIOUS)


def require_environment(engines: Path, engine: EngineName) -> Environment:
    """The environment in use.

    Raises:
        EngineMissingError: When there is none that works.
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
        _link(before.path.parent / _PREVIOUS, before.path.name)
    _link(environment.path.parent / _CURRENT, environment.path.name)


def lend_environment(engines: Path, environment: Environment) -> None:
    """Make `environment`, which stays where it is, the one in use of another folder of engines."""
    folder = engines / environment.engine
    folder.mkdir(parents=True)
    _link(folder / _CURRENT, str(environment.path))


def remove_environment(environment: Environment) -> None:
    """Remove an environment, which `rollback` then no longer finds.

    Its receipt goes first, so that a partly removed one counts as incomplete.

    Raises:
        OSError: When a part of it can't be removed.
    """
    (environment.path / MARKER).unlink(missing_ok=True)
    link = environment.path.parent / _PREVIOUS
    if link.is_symlink() and link.readlink() == Path(environment.path.name):
        link.unlink()
    shutil.rmtree(environment.path)


def _linked(engines: Path, engine: EngineName, link: str) -> Environment | None:
    try:
        name = (engines / engine / link).readlink()
    except FileNotFoundError:
        return None
    environment = Environment(engine, engines / engine / name)
    return environment if environment.state == "ready" else None


def _link(link: Path, target: str) -> None:
    """Point `link` at `target`, without a moment in which it doesn't exist."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)
