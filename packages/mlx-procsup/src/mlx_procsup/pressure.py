"""How short of memory the machine is, and which service should make room."""

import os
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
    """The machine's memory pressure now; NORMAL if it can't be read.

    On macOS this is the system's own level. Elsewhere it depends on the share of available memory:
    below a tenth is a warning, below 4 % critical.
    """
    if sys.platform == "darwin":
        return _read_darwin()
    memory = psutil.virtual_memory()
    return pressure_of_share(memory.available / memory.total)


def pressure_of_share(available_share: float) -> Pressure:
    """The level for a share of available memory."""
    if available_share < _CRITICAL_SHARE:
        return Pressure.CRITICAL
    return Pressure.WARNING if available_share < _LOW_SHARE else Pressure.NORMAL


@dataclass(frozen=True, slots=True)
class ShedRule:
    """When services are paused to save memory.

    Attributes:
        critical_polls: Pressure must have been critical for this many polls in a row; twice as many
            before a busy service is paused.
        calm_s: Pressure must have been normal for this long before a service is resumed.
    """

    critical_polls: int = 2
    calm_s: float = 300.0


@dataclass(frozen=True, slots=True)
class PressureHistory:
    """What is remembered of the pressure; times are on the monotonic clock.

    Attributes:
        critical_polls: How many times in a row it was critical.
        calm_since: Since when it has been normal; None while it isn't.
    """

    critical_polls: int = 0
    calm_since: float | None = None


@dataclass(frozen=True, slots=True)
class Sheddable:
    """The properties of a service that matter for making room.

    Attributes:
        shed: Whether it is paused; otherwise it runs.
        is_busy: Whether it is working for a client now.
    """

    name: str
    importance: int
    shed: bool
    is_busy: bool = False


type ChooseShed = Callable[[Sequence[Sheddable], bool], str | None]
"""Which of these that run is put aside, if any; True where one that is busy may be."""


def least_important(running: Sequence[Sheddable], may_be_busy: bool) -> str | None:
    """The least important idle service, or the least important busy one if that is allowed."""
    choice = [each for each in running if may_be_busy or not each.is_busy]
    first = min(choice, key=lambda each: (each.is_busy, each.importance), default=None)
    return None if first is None else first.name


def decide_shedding(
    history: PressureHistory,
    pressure: Pressure,
    services: Sequence[Sheddable],
    rule: ShedRule,
    now: float,
    choose: ChooseShed = least_important,
) -> tuple[PressureHistory, str | None, str | None]:
    """What to remember, the service to pause, and the service to resume; one at a time.

    The most important one is resumed first; the last running one isn't paused.

    Args:
        choose: Chooses the service to pause.
    """
    if pressure is Pressure.CRITICAL:
        polls = history.critical_polls + 1
        running = [each for each in services if not each.shed]
        if polls >= rule.critical_polls and len(running) > 1:
            chosen = choose(running, polls >= 2 * rule.critical_polls)
            if chosen is not None:
                return PressureHistory(), chosen, None
        return PressureHistory(critical_polls=polls), None, None
    if pressure is Pressure.WARNING:
        return PressureHistory(), None, None
    since = now if history.calm_since is None else history.calm_since
    waiting = sorted((s for s in services if s.shed), key=lambda s: -s.importance)
    if waiting and now - since >= rule.calm_s:
        return PressureHistory(), None, waiting[0].name
    return PressureHistory(calm_since=since), None, None


def _read_darwin() -> Pressure:
    command = ("sysctl", "-n", "kern.memorystatus_vm_pressure_level")
    try:
        env = {"PATH": f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"}
        done = subprocess.run(command, capture_output=True, timeout=5, check=True, env=env)
        return Pressure(int(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError):
        return Pressure.NORMAL
