"""The PID file and the run file of a service: the only reader and writer of both."""

import json
import math
import os
import tempfile
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

from mlx_procsup.errors import StateFileError
from mlx_procsup.identity import ProcessIdentity
from mlx_procsup.spec import StateDirs

SCHEMA_VERSION = 1
_HIGHEST_PID = 2**31 - 1  # of the kernels' own type, `pid_t`
_LONGER_THAN_ANY_BYTES = 2**20


class WantedState(StrEnum):
    """The user's last wish for a service; a watchdog never acts against it.

    Attributes:
        ON_REQUEST: It doesn't run, and any program that has work for it may start it.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    ON_REQUEST = "on-request"


@dataclass(frozen=True, slots=True)
class Restart:
    """One restart that a watchdog made, at `at` seconds since the epoch."""

    at: float
    reason: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of `run/<name>.json`.

    Attributes:
        identity: The process last started, or None once it was stopped.
        log_offset: The size of its log at that moment, in bytes.
        restarts: What the watchdog did since the user last acted, oldest first.
        flapping: Too many restarts; nothing is tried until the user acts.
        shed_at: Since when it has been paused to make room in memory; None while it isn't.
        fingerprint: What else it depended on when it was started.
        secret: The secret of this start, by which we and the process recognize each other; "" for
            none.
    """

    identity: ProcessIdentity | None = None
    command: tuple[str, ...] = ()
    wanted: WantedState = WantedState.RUNNING
    started_at: float | None = None
    log_offset: int = 0
    restarts: tuple[Restart, ...] = ()
    flapping: bool = False
    last_error: str | None = None
    shed_at: float | None = None
    fingerprint: str = ""
    secret: str = field(default="", repr=False)

    @property
    def should_run(self) -> bool:
        """Whether it is wanted, and not paused."""
        return self.wanted is WantedState.RUNNING and self.shed_at is None


def read_pid(dirs: StateDirs, name: str) -> int | None:
    """The PID file's number; None if there is no file.

    Raises:
        StateFileError: The file contains anything other than one positive integer.
    """
    path = dirs.pid_file(name)
    try:
        content = read_beginning(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateFileError(path, error.strerror or str(error), service=name) from error
    text = content.strip()
    if not (0 < len(text) < 11 and text.isdigit() and _is_pid(int(text))):
        raise StateFileError(path, "doesn't contain a process ID", service=name)
    return int(text)


def write_pid(dirs: StateDirs, name: str, pid: int) -> None:
    """Write `pid` to the PID file; OSError if it can't be written."""
    write_atomically(dirs.pid_file(name), f"{pid}\n")


def remove_pid(dirs: StateDirs, name: str) -> None:
    """Remove the PID file; does nothing if there is none."""
    dirs.pid_file(name).unlink(missing_ok=True)


def read_run(dirs: StateDirs, name: str) -> RunRecord | None:
    """The run file's record; None if there is no file.

    Raises:
        StateFileError: The file can't be read or isn't a run file.
    """
    path = dirs.run_file(name)
    try:
        stat = path.stat()
        return _read_run(path, (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise StateFileError(path, f"can't be read: {error}", service=name) from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise StateFileError(path, f"isn't a run file: {error!r}", service=name) from error


@lru_cache(maxsize=64)
def _read_run(path: Path, version: tuple[int, ...]) -> RunRecord:
    """What a run file says, read once for each version of it: many ask many times."""
    del version
    return _parse(json.loads(read_beginning(path)))


def read_beginning(path: Path) -> bytes:
    """The content of a state file: of anything longer, such as a device, what proves it damaged."""
    with path.open("rb") as file:
        return file.read(_LONGER_THAN_ANY_BYTES)


def readable_run(dirs: StateDirs, name: str) -> RunRecord | None:
    """The run file's record; None if there is no readable file."""
    try:
        return read_run(dirs, name)
    except StateFileError:
        return None


def secret_of(dirs: StateDirs, name: str) -> str:
    """The secret that a service was last started with (`ProcessSpec.start_secret`); "" for none."""
    record = readable_run(dirs, name)
    return record.secret if record is not None else ""


def write_run(dirs: StateDirs, name: str, record: RunRecord) -> None:
    """Write `record` to the run file; OSError if it can't be written."""
    document: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "name": name}
    fields = asdict(record)
    identity = fields.pop("identity")
    document |= identity or dict.fromkeys(("pid", "start_time", "boot_time", "boot_id"))
    document |= fields
    write_atomically(dirs.run_file(name), json.dumps(document, indent=2) + "\n")


def set_wanted(dirs: StateDirs, name: str, wanted: WantedState) -> None:
    """Record what the user wants of a service; earlier problems are forgotten.

    A service that was never started can be wanted, too. A run file that can't be read is replaced;
    one that already says so is left as it is.
    """
    noted = readable_run(dirs, name)
    record = replace(noted or RunRecord(), wanted=wanted, restarts=(), flapping=False, shed_at=None)
    if record != noted:
        dirs.create()
        write_run(dirs, name, record)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content at once: a reader sees the old text or the new, never a part.

    Raises:
        OSError: It can't be written; the error names `path`, whose content is unchanged.
    """
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk names nothing
            error.filename = str(path)
        raise


def _parse(document: Any) -> RunRecord:
    if document["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"schema_version {document['schema_version']!r}")
    identity = None
    if document["pid"] is not None:
        identity = ProcessIdentity(
            pid=_pid(document["pid"]),
            start_time=_finite(document["start_time"]),
            boot_time=_finite(document["boot_time"]),
            boot_id=str(document["boot_id"]),
        )
    restarts = cast("list[dict[str, Any]]", document["restarts"])
    return RunRecord(
        identity=identity,
        command=tuple(str(word) for word in document["command"]),
        wanted=WantedState(document["wanted"]),
        started_at=_number_or_none(document["started_at"]),
        log_offset=int(_finite(document["log_offset"])),
        restarts=tuple(Restart(_finite(r["at"]), str(r["reason"])) for r in restarts),
        flapping=bool(document["flapping"]),
        last_error=_text_or_none(document["last_error"]),
        shed_at=_number_or_none(document["shed_at"]),
        fingerprint=str(document["fingerprint"]),
        secret=str(document.get("secret", "")),  # written by an older version without it
    )


def _pid(value: Any) -> int:
    if type(value) is not int or not _is_pid(value):
        raise ValueError(f"{value!r} isn't a process ID")
    return value


def _is_pid(number: int) -> bool:
    """Whether a process can have this number: 0 and negative ones mean groups of them."""
    return 0 < number <= _HIGHEST_PID


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):  # JSON as Python reads it knows NaN and Infinity
        raise ValueError(f"{value!r} isn't a finite number")
    return number


def _number_or_none(value: Any) -> float | None:
    return None if value is None else _finite(value)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
