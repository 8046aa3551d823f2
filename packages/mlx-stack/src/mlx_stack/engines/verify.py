"""Comparing what is installed with the lock that it was installed from, file by file."""

import base64
import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from os.path import normpath
from pathlib import Path
from typing import Final, Literal

from packaging.markers import Marker, default_environment
from packaging.utils import canonicalize_name

from mlx_stack.engines.environment import LOCK_COPY, Environment, Lock, Pin

type DifferenceKind = Literal[
    "not-whole",  # the installation never finished, or its Python is gone
    "lock-changed",  # the lock in the environment is not the one it was made from
    "records-changed",  # a list of installed files is not what it was after the installation
    "package-missing",
    "package-unexpected",
    "wrong-version",
    "file-missing",
    "file-changed",
    "file-unexpected",
]

_SETTINGS: Final = "pyvenv.cfg"
_OF_ANY_ENVIRONMENT: Final = re.compile(
    r"python[0-9.]*|activate(\.(bat|csh|fish|nu|ps1|xsh))?|activate_this\.py|(deactivate|pydoc)\.bat"
)
"""The programs that uv puts into each environment that it makes; no package lists them."""


@dataclass(frozen=True, slots=True)
class LockDifference:
    """One difference between an environment and its lock.

    Attributes:
        what: The package, or the file relative to the environment.
    """

    kind: DifferenceKind
    what: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class EngineVerification:
    """The result of verifying one environment.

    Attributes:
        packages: How many packages the lock asks for here.
        files: How many files were compared with their hashes.
    """

    environment: Environment
    packages: int
    files: int
    problems: tuple[LockDifference, ...]

    @property
    def ok(self) -> bool:
        """Whether the environment is what the lock says."""
        return not self.problems

    def to_document(self) -> dict[str, object]:
        """The result as JSON."""
        return {
            "name": self.environment.engine,
            "version": self.environment.version,
            "path": str(self.environment.path),
            "ok": self.ok,
            "packages": self.packages,
            "files": self.files,
            "problems": [asdict(problem) for problem in self.problems],
        }


def verify(environment: Environment, *, contents: bool = True) -> EngineVerification:
    """How an environment differs from its lock: in packages, versions, and hashes of files.

    It reads every file, which takes seconds; without `contents`, only the lists of packages.
    Nothing is written, and no program of the environment is run.
    """
    receipt = environment.receipt
    packages = environment.site_packages
    if receipt is None or packages is None or environment.state != "ready":
        problem = LockDifference("not-whole", environment.path.name, environment.state)
        return EngineVerification(environment, 0, 0, (problem,))
    lock = Lock(_read_lock(environment))
    problems: list[LockDifference] = []
    if lock.digest != receipt.lock_sha256 or not environment.path.name.endswith(lock.digest[:8]):
        problems.append(LockDifference("lock-changed", LOCK_COPY))
    if records_digest(packages) != receipt.records_sha256:
        problems.append(LockDifference("records-changed", packages.name))
    settings = environment.path / _SETTINGS
    if not settings.is_file():
        problems.append(LockDifference("file-missing", _SETTINGS))
    elif _sees_other_packages(settings):
        problems.append(
            LockDifference("file-changed", _SETTINGS, "it lets packages from outside in")
        )
    wanted = wanted_versions(lock.pins, _marker_environment(settings))
    problems += compare_versions(wanted, installed_versions(packages))
    files, file_problems = _compare_files(environment.path, packages) if contents else (0, [])
    problems += file_problems
    return EngineVerification(environment, len(wanted), files, tuple(problems))


def packages_problem(environment: Environment, lock: Lock) -> str | None:
    """What an environment's packages have that `lock` doesn't ask for, or lack; None if nothing."""
    packages = environment.site_packages
    if packages is None:
        return "the environment contains no packages"
    wanted = wanted_versions(lock.pins, _marker_environment(environment.path / _SETTINGS))
    found = next(compare_versions(wanted, installed_versions(packages)), None)
    return f"{found.what}: {found.kind}" if found is not None else None


def _sees_other_packages(settings: Path) -> bool:
    """Whether packages of the base Python are let in, which Python does if nothing is said."""
    lines = settings.read_text(encoding="utf-8", errors="replace").lower().splitlines()
    pairs = (line.partition("=") for line in lines)
    said = [
        value.strip() for key, _, value in pairs if key.strip() == "include-system-site-packages"
    ]
    return not said or any(value != "false" for value in said)


def wanted_versions(pins: Iterable[Pin], markers: Mapping[str, str]) -> dict[str, str]:
    """The packages of a universal lock on the machine that `markers` describes."""
    return {
        canonicalize_name(pin.name): pin.version
        for pin in pins
        if not pin.marker or Marker(pin.marker).evaluate(dict(markers))
    }


def installed_versions(site_packages: Path) -> dict[str, str]:
    """The distributions in a folder of packages, by normalized name."""
    versions: dict[str, str] = {}
    for folder in site_packages.glob("*.dist-info"):
        name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
        versions[canonicalize_name(name)] = version
    return versions


def compare_versions(
    wanted: Mapping[str, str], installed: Mapping[str, str]
) -> Iterator[LockDifference]:
    """The packages that are missing, of another version, or not in the lock."""
    for name, version in sorted(wanted.items()):
        found = installed.get(name)
        if found is None:
            yield LockDifference("package-missing", name, version)
        elif found != version:
            yield LockDifference("wrong-version", name, f"{found} instead of {version}")
    for name in sorted(installed.keys() - wanted.keys()):
        yield LockDifference("package-unexpected", name, installed[name])


def _compare_files(root: Path, site_packages: Path) -> tuple[int, list[LockDifference]]:
    """How many files were compared, and what is wrong; paths are strings, for speed."""
    recorded = {
        normpath(f"{site_packages}/{path}"): digest
        for record in record_files(site_packages)
        for path, digest in _read_record(record)
    }
    hashed = {path: digest for path, digest in recorded.items() if digest}
    with ThreadPoolExecutor() as pool:
        found = dict(zip(hashed, pool.map(_digest, hashed), strict=True))
    problems = [
        LockDifference(
            "file-missing" if digest is None else "file-changed", path.removeprefix(f"{root}/")
        )
        for path, digest in sorted(found.items())
        if digest != hashed[path]
    ]
    programs = (path for path in root.glob("bin/*") if not _OF_ANY_ENVIRONMENT.fullmatch(path.name))
    found_here = {*_code_files(site_packages), *map(str, programs)}
    problems += [
        LockDifference("file-unexpected", path.removeprefix(f"{root}/"))
        for path in sorted(found_here - recorded.keys())
    ]
    return len(hashed), problems


def _code_files(site_packages: Path) -> Iterator[str]:
    """The files that some package should list; byte code is made when they run."""
    for folder, folders, files in site_packages.walk():
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        yield from (f"{folder}/{name}" for name in files)


def record_files(site_packages: Path) -> tuple[Path, ...]:
    """Each distribution's list of installed files, in a fixed order."""
    return tuple(sorted(site_packages.glob("*.dist-info/RECORD")))


def records_digest(site_packages: Path) -> str:
    """One SHA-256 over all RECORDs: kept elsewhere, it shows whether one of them was changed."""
    digest = hashlib.sha256()
    for record in record_files(site_packages):
        digest.update(f"{record.parent.name}\0".encode())
        digest.update(hashlib.sha256(record.read_bytes()).digest())
    return digest.hexdigest()


def _read_record(record: Path) -> Iterator[tuple[str, str]]:
    """Each file's path and SHA-256; "" for those without one, the RECORD itself and byte code.

    https://packaging.python.org/en/latest/specifications/recording-installed-packages/
    """
    with record.open(encoding="utf-8", newline="") as file:
        for path, recorded, *_ in csv.reader(file):
            algorithm, _, value = recorded.partition("=")
            padded = value + "=" * (-len(value) % 4)
            yield path, base64.urlsafe_b64decode(padded).hex() if algorithm == "sha256" else ""


def _digest(path: str) -> str | None:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _read_lock(environment: Environment) -> str:
    try:
        return (environment.path / LOCK_COPY).read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""  # no lock has its digest


def _marker_environment(settings: Path) -> dict[str, str]:
    """This machine's markers, with the Python of the environment in place of ours."""
    markers = {name: str(value) for name, value in default_environment().items()}
    try:
        lines = settings.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:  # reported separately
        lines = []
    for line in lines:
        key, _, value = line.partition("=")
        if key.strip() == "version_info":
            full = ".".join(value.strip().split(".")[:3])
            markers["python_full_version"] = full
            markers["python_version"] = ".".join(full.split(".")[:2])
    return markers
