"""`<run>/last-look`: when a watchdog last looked, and which services it found wedged.

Only the watchdog writes it. Every other program that wants to know whether a service delivers reads
it here, so that all of them agree on which services are wedged.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlx_procsup.spec import StateDirs
from mlx_procsup.statefiles import read_beginning, write_atomically

_SCHEMA_VERSION = 1
_LATE_S = 60.0
_LATE_INTERVALS = 3


@dataclass(frozen=True, slots=True)
class Wedge:
    """A process that answers but doesn't deliver.

    Attributes:
        since: When it stopped delivering, in seconds since the epoch.
    """

    pid: int
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class LastLook:
    """A watchdog's last note.

    Attributes:
        at: When it last looked at every service, in seconds since the epoch.
        interval_s: How often it intends to look.
        wedged: The wedged services, by name.
    """

    at: float
    interval_s: float
    pid: int
    wedged: Mapping[str, Wedge] = field(default_factory=dict[str, Wedge])

    def is_late(self, now: float) -> bool:
        """Whether the watchdog should have looked again by now."""
        return now - self.at > _LATE_INTERVALS * self.interval_s + _LATE_S

    def wedge_of(self, name: str, pid: int | None, now: float) -> Wedge | None:
        """Why this process of a service is wedged; None if it isn't, or if the note is late."""
        wedge = self.wedged.get(name)
        if wedge is None or wedge.pid != pid or self.is_late(now):
            return None
        return wedge


def write_last_look(dirs: StateDirs, look: LastLook) -> None:
    """Note a look; OSError if the file can't be written."""
    document = {"schema_version": _SCHEMA_VERSION, **asdict(look)}
    write_atomically(dirs.last_look_file, json.dumps(document) + "\n")


def read_last_look(dirs: StateDirs) -> LastLook | None:
    """The last look; None if no watchdog has noted one, or the file is damaged."""
    try:
        return _parse(json.loads(read_beginning(dirs.last_look_file)))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _parse(document: Any) -> LastLook:
    if document["schema_version"] != _SCHEMA_VERSION:
        raise ValueError(f"schema_version {document['schema_version']!r}")
    wedged = {
        str(name): Wedge(int(each["pid"]), str(each["reason"]), _finite(each["since"]))
        for name, each in document["wedged"].items()
    }
    return LastLook(
        _finite(document["at"]), _finite(document["interval_s"]), int(document["pid"]), wedged
    )


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} isn't a finite number")
    return number
