"""How short of memory the machine is, and which service should make room."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import psutil

_LOW_SHARE = 0.10
_CRITICAL_SHARE = 0.04


class Pressure(IntEnum):
    """Memory pressure in macOS's own levels (`kern.memorystatus_vm_pressure_level`)."""

    NORMAL = 1
    WARNING = 2
    CRITICAL = 4


def read_pressure() -> Pressure:
    """The machine's memory pressure now; NORMAL where it can't be read.

    macOS is asked for its own level. Elsewhere the share of available memory decides: below a
    tenth is a warning, below 4 % critical.
    """
    if sys.platform == "darwin":
        return _read_darwin()
    memory = psutil.virtual_memory()
    return pressure_of_share(memory.available / memory.total)


def pressure_of_share(available_share: float) -> Pressure:
    """The level that a share of available memory means."""
    if available_share < _CRITICAL_SHARE:
        return Pressure.CRITICAL
    return Pressure.WARNING if available_share < _LOW_SHARE else Pressure.NORMAL


@dataclass(frozen=True, slots=True)
class ShedRule:
    """When services are put aside for memory's sake.

    Attributes:
        critical_polls: pressure must have been critical this many polls in a row.
        calm_s: it must have been normal this long before one comes back.
    """

    critical_polls: int = 2
    calm_s: float = 300.0


@dataclass(frozen=True, slots=True)
class PressureCase:
    """What is remembered of the pressure; times on the monotonic clock.

    Attributes:
        critical_polls: how often in a row it was critical.
        calm_since: since when it has been normal; None while it isn't.
    """

    critical_polls: int = 0
    calm_since: float | None = None


@dataclass(frozen=True, slots=True)
class Sheddable:
    """A service as far as making room goes: its importance, and whether it runs or was shed."""

    name: str
    importance: int
    shed: bool


def decide_shedding(
    case: PressureCase,
    pressure: Pressure,
    services: Sequence[Sheddable],
    rule: ShedRule,
    now: float,
) -> tuple[PressureCase, str | None, str | None]:
    """What to remember, the service to shed, and the one to bring back; one at a time.

    The least important one that runs goes first and comes back last; the last one that runs stays.
    """
    if pressure is Pressure.CRITICAL:
        polls = case.critical_polls + 1
        running = sorted((s for s in services if not s.shed), key=lambda s: s.importance)
        if polls >= rule.critical_polls and len(running) > 1:
            return PressureCase(), running[0].name, None
        return PressureCase(critical_polls=polls), None, None
    if pressure is Pressure.WARNING:
        return PressureCase(), None, None
    since = now if case.calm_since is None else case.calm_since
    waiting = sorted((s for s in services if s.shed), key=lambda s: -s.importance)
    if waiting and now - since >= rule.calm_s:
        return PressureCase(), None, waiting[0].name
    return PressureCase(calm_since=since), None, None


def _run(command: tuple[str, ...]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
    return done.stdout


def _read_darwin(run: Callable[[tuple[str, ...]], str] = _run) -> Pressure:
    try:
        return Pressure(int(run(("sysctl", "-n", "kern.memorystatus_vm_pressure_level"))))
    except (OSError, subprocess.SubprocessError, ValueError):
        return Pressure.NORMAL
