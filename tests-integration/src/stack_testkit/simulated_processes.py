"""Processes that exist in a test's memory only, for a launchd whose clock the test moves."""

from dataclasses import dataclass, field
from signal import SIGKILL, SIGTERM
from typing import Any


@dataclass(slots=True)
class VirtualClock:
    """Time that passes when it is told to.

    Attributes:
        now_s: Seconds since the test began.
    """

    now_s: float = 0.0

    def monotonic(self) -> float:
        """Give seconds since the test began."""
        return self.now_s

    def sleep(self, seconds: float, /) -> None:
        """Let that many seconds pass at once."""
        self.now_s += seconds


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a program behaves.

    Attributes:
        ends_after_s: It ends by itself after so long; None runs until it is told to stop.
        exit_code: With this code.
        ignores_sigterm: Only SIGKILL ends it.
        unkillable: Nothing ends it: stuck in the kernel.
    """

    ends_after_s: float | None = None
    exit_code: int = 0
    ignores_sigterm: bool = False
    unkillable: bool = False


@dataclass(slots=True)
class SimulatedProcesses:
    """Processes whose behaviour is chosen by their program's path.

    Attributes:
        clock: Their time.
        behaviours: By path; others run until they are told to stop.
    """

    clock: VirtualClock
    behaviours: dict[str, Behaviour] = field(default_factory=dict[str, Behaviour])
    _next_pid: int = 4200
    _alive: dict[int, tuple[float, Behaviour]] = field(
        default_factory=dict[int, tuple[float, Behaviour]]
    )
    _ended: dict[int, tuple[str, int]] = field(default_factory=dict[int, tuple[str, int]])

    @property
    def alive(self) -> frozenset[int]:
        """Give the pids of what runs now."""
        return frozenset(pid for pid in self._alive if self.ended(pid) is None)

    def start(self, job: dict[str, Any]) -> int:
        """Start the job's program and give its pid."""
        self._next_pid += 1
        program = job["entries"].get("Program") or job["entries"]["ProgramArguments"][0]
        behaviour = self.behaviours.get(program, Behaviour())
        self._alive[self._next_pid] = (self.clock.now_s, behaviour)
        return self._next_pid

    def ended(self, pid: int) -> tuple[str, int] | None:
        """Give `("exit", code)` or `("signal", number)` once it has ended."""
        if pid in self._ended:
            return self._ended[pid]
        started_s, behaviour = self._alive[pid]
        if behaviour.ends_after_s is None or self.clock.now_s - started_s < behaviour.ends_after_s:
            return None
        self._ended[pid] = ("exit", behaviour.exit_code)
        return self._ended[pid]

    def terminate(self, pid: int) -> None:
        """Send SIGTERM."""
        behaviour = self._alive[pid][1]
        if not behaviour.ignores_sigterm and not behaviour.unkillable:
            self._ended.setdefault(pid, ("signal", int(SIGTERM)))

    def kill(self, pid: int) -> None:
        """Send SIGKILL."""
        if not self._alive[pid][1].unkillable:
            self._ended.setdefault(pid, ("signal", int(SIGKILL)))

    def power_off(self) -> None:
        """End everything at once, whatever it does about signals."""
        for pid in self._alive:
            self._ended.setdefault(pid, ("signal", int(SIGKILL)))
