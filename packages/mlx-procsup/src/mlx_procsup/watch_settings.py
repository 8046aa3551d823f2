"""What a watchdog is told: whom to watch, how, and what it reads of the machine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from mlx_procsup.judgement import HangRule
from mlx_procsup.pressure import Pressure, ShedRule, read_pressure
from mlx_procsup.restart import RestartPolicy
from mlx_procsup.rotate import RotationRule
from mlx_procsup.spec import ProcessSpec
from mlx_procsup.state import DOWN_AFTER_S
from mlx_procsup.terminate import GRACE_S


@dataclass(frozen=True, slots=True)
class Supervised:
    """A service under watch.

    Attributes:
        spec: what it runs.
        importance: the least important one makes room first when memory is short.
        max_memory_bytes: beyond it, it is recycled; None without a limit.
        sheddable: whether it may be put aside at all.
    """

    spec: ProcessSpec
    importance: int = 0
    max_memory_bytes: int | None = None
    sheddable: bool = True


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that the watchdog saw or did.

    Attributes:
        at: when, in seconds since the epoch.
        service: whom it is about; None for the machine.
        what: one word: "noticed", "restarted", "recycled", "flapping", "held-up", "shed",
            "restored", "rotated", "recovered", "clock".
        reason: the rest of the sentence.
    """

    at: float
    service: str | None
    what: str
    reason: str


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a watchdog works.

    Attributes:
        lock: the lock that it takes to act.
        interval_s: the time between two looks.
        restart: when to restart, and when to give up.
        hang: what counts as hung.
        shed: when to make room in memory.
        rotation: when to rotate logs; None leaves them alone.
        owner: what the lock's owner is called.
        probe_timeout_s: how long a service may take to answer.
        grace_s: how long it may take to obey SIGTERM.
    """

    lock: Path
    interval_s: float = 30.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    hang: HangRule = field(default_factory=HangRule)
    shed: ShedRule = field(default_factory=ShedRule)
    rotation: RotationRule | None = field(default_factory=RotationRule)
    owner: str = "watch"
    probe_timeout_s: float = DOWN_AFTER_S
    grace_s: float = GRACE_S


@dataclass(frozen=True, slots=True)
class Machine:
    """What the watchdog reads of the machine.

    Attributes:
        monotonic: seconds that neither a clock change nor sleep moves.
        clock: seconds since the epoch.
        pressure: the memory pressure.
    """

    monotonic: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time
    pressure: Callable[[], Pressure] = read_pressure
