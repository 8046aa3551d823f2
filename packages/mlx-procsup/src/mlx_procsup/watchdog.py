"""The loop that keeps services up: looks without the lock, and takes it only to act."""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from mlx_procsup.defaults import LOOK_INTERVAL_S, STOP_GRACE_S
from mlx_procsup.delivery import DeliveryRule, Work
from mlx_procsup.delivery_watch import DeliveryCheck, DeliveryWatch
from mlx_procsup.errors import SupervisionError, describe_exit
from mlx_procsup.hang import HangRule, Observation
from mlx_procsup.identity import reap
from mlx_procsup.located import locate
from mlx_procsup.lock import LockHeldError, LockOwner, acquire_lock
from mlx_procsup.logfiles import last_line, new_matches
from mlx_procsup.looks import LastLook, Wedge, write_last_look
from mlx_procsup.pressure import (
    ChooseShed,
    Pressure,
    PressureHistory,
    Sheddable,
    ShedRule,
    decide_shedding,
    least_important,
    read_pressure,
)
from mlx_procsup.probe import ServiceStatus, probe_all, target_of
from mlx_procsup.restart import Action, Decision, History, RestartPolicy, decide
from mlx_procsup.rotate import RotationRule, rotate_if_larger
from mlx_procsup.service import adopt, clear_the_way, start_service, stop_service
from mlx_procsup.spec import ProcessSpec, StateDirs
from mlx_procsup.stall import StallGuard
from mlx_procsup.state import DOWN_AFTER_S, ServiceState
from mlx_procsup.statefiles import Restart, RunRecord, WantedState, readable_run, write_run
from mlx_procsup.upkeep import Condition, Upkeep, UpkeepRule, look_after

_LOCK_RETRY_S = 1.0
_AFTER_START_S = 2.0
_CLOCK_JUMP_S = 5.0
_KEPT_RESTARTS = 50


@dataclass(frozen=True, slots=True)
class Supervised:
    """A watched service.

    Attributes:
        spec: What it runs.
        importance: The least important service makes room first when memory is short.
        max_memory_bytes: If it holds more, it is recycled; None without a limit.
        sheddable: Whether it may be paused at all.
        delivery: How to find out whether it delivers; None if an answer is all that counts.
        silence_s: How long it may leave questions unanswered, whatever its processor time; None for
            no limit.
        works_in_silence: Whether it may work although it doesn't answer and uses no processor time.
        planned_bytes: The memory that it was planned to hold; None if its memory may grow.
        exhaustion: What its log says when it has run out of a resource that only its end releases.
    """

    spec: ProcessSpec
    importance: int = 0
    max_memory_bytes: int | None = None
    sheddable: bool = True
    delivery: DeliveryCheck | None = field(default=None, compare=False)
    silence_s: float | None = None
    works_in_silence: bool = False
    planned_bytes: int | None = None
    exhaustion: re.Pattern[bytes] | None = None


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """Something that the watchdog saw or did.

    Attributes:
        at: When, in seconds since the epoch.
        what: One word: "noticed", "wedged", "unclear", "started", "restarted", "recycled",
            "exhausted", "flapping", "held-up", "shed", "restored", "rotated", "recovered", "clock".
        reason: The rest of the sentence.
        since: When the reported condition began, if that is known.
    """

    at: float
    service: str | None
    what: str
    reason: str
    since: float | None = None

    def to_document(self) -> dict[str, object]:
        """The event as JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a watchdog works.

    Attributes:
        lock: The lock that it takes to act.
        rotation: When to rotate logs; None leaves them alone.
        choose_shed: Chooses the service to pause when memory is short.
        stall_s: A loop that doesn't turn for this long has stalled.
    """

    lock: Path
    interval_s: float = LOOK_INTERVAL_S
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    hang: HangRule = field(default_factory=HangRule)
    shed: ShedRule = field(default_factory=ShedRule)
    choose_shed: ChooseShed = least_important
    delivery: DeliveryRule = field(default_factory=DeliveryRule)
    upkeep: UpkeepRule = field(default_factory=UpkeepRule)
    stall_s: float = 180.0
    rotation: RotationRule | None = field(default_factory=RotationRule)
    owner: str = "watch"
    probe_timeout_s: float = DOWN_AFTER_S
    grace_s: float = STOP_GRACE_S


@dataclass(frozen=True, slots=True)
class MachineReader:
    """What the watchdog reads from the machine.

    Attributes:
        monotonic: Seconds that neither a clock change nor sleep moves.
    """

    monotonic: Callable[[], float] = time.monotonic
    clock: Callable[[], float] = time.time
    pressure: Callable[[], Pressure] = read_pressure


class Watchdog:
    """Keeps services running; call `look` whenever it is due, or `run` to run indefinitely."""

    def __init__(
        self,
        dirs: StateDirs,
        settings: WatchSettings,
        load: Callable[[], Sequence[Supervised]],
        on_event: Callable[[WatchEvent], None],
        machine: MachineReader | None = None,
    ) -> None:
        """Prepare a watchdog; nothing is read yet.

        Args:
            on_event: Called with everything that it sees and does.
            machine: Clocks and pressure; the real ones by default.
        """
        self._dirs = dirs
        self._settings = settings
        self._load = load
        self._on_event = on_event
        self._machine = machine or MachineReader()
        self._services: dict[str, Supervised] = {}
        self._histories: dict[str, History] = {}
        self._troubled: set[str] = set()
        self._exits: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._statuses: dict[str, ServiceStatus] = {}
        self._upkeep: dict[str, Upkeep] = {}
        self._log_read: dict[str, int] = {}
        self._next_look = self._machine.monotonic()
        self._held_up: dict[str, str] = {}
        self._pressure = PressureHistory()
        self._clock_gap: float | None = None
        self._deliveries = DeliveryWatch(
            settings.delivery, lambda name, words: self._say(name, "unclear", words)
        )
        self._looked_at: float | None = None
        self._turn: Callable[[], None] = lambda: None

    def run(
        self, pause: Callable[[float], bool], on_stall: Callable[[float], None] | None = None
    ) -> None:
        """Watch until `pause` says to stop.

        Args:
            pause: Waits for the given number of seconds, or less; returning True ends the watch.
                `threading.Event.wait` does that.
            on_stall: Called from another thread when the watch has stalled, with the seconds since
                it last did anything, so that the caller can restart it.
        """
        guard = StallGuard(
            self._settings.stall_s + self._settings.interval_s, on_stall or (lambda _: None)
        )
        self._turn = guard.turn
        with guard.watching():
            while not pause(self._look_safely()):
                guard.turn()

    def _look_safely(self) -> float:
        """Look; trouble of the machine's own (a full disk, no more files) ends no watch."""
        try:
            return self.look()
        except (SupervisionError, OSError) as error:
            self._say(None, "held-up", str(error))
            return self._settings.interval_s

    def look(self) -> float:
        """Look at the services that are due, act, and return the seconds until the next look."""
        now = self._machine.monotonic()
        is_full = now >= self._next_look
        if is_full:
            self._notice_clock_jump(now)
            self._services = {service.spec.name: service for service in self._load()}
            self._forget_others()
            self._examine(list(self._services.values()), now)
            self._make_room()
            self._keep_up(now)
            self._rotate_logs()
            self._next_look = now + self._settings.interval_s
            self._looked_at = self._machine.clock()
            self._note_look()
        else:
            due = [name for name, at in self._due.items() if at <= now]
            self._examine([self._services[name] for name in due], now)
        self._look_at_deliveries(early=is_full)  # two looks at once cost less than one by one
        delivery_at = self._deliveries.due_at()
        wake_at = min([self._next_look, *self._due.values()])
        if delivery_at is not None:
            wake_at = min(wake_at, delivery_at)
        return max(0.0, wake_at - self._machine.monotonic())

    def _examine(self, services: Sequence[Supervised], now: float) -> None:
        if not services:
            return  # a probe reads the table of all processes
        for service in services:
            self._due.pop(service.spec.name, None)
            self._reap(service.spec.name)
        statuses = probe_all(
            [target_of(service.spec) for service in services],
            self._dirs,
            timeout_s=self._settings.probe_timeout_s,
            clock=self._machine.clock,
        )
        for service, status in zip(services, statuses, strict=True):
            self._turn()
            self._statuses[status.name] = status
            is_alive = status.state not in (ServiceState.STOPPED, ServiceState.CRASHED)
            self._deliveries.set(
                status.name,
                service.delivery,
                status.pid if is_alive else None,
                now,
                answers=is_alive and status.state is not ServiceState.DOWN,
            )
            self._consider(service, status, now)

    def _look_at_deliveries(self, *, early: bool) -> None:
        now = self._machine.monotonic()
        changed = self._deliveries.look(now, early=early)
        if changed:
            self._note_look()
            self._examine([self._services[name] for name in changed], now)

    def _note_look(self) -> None:
        """Write down when we looked, and who is wedged; a full disk ends no watch."""
        if self._looked_at is None:
            return
        ago = self._machine.clock() - self._machine.monotonic()
        wedged = {
            name: Wedge(record.identity.pid, found[0], found[1] + ago)
            for name in self._services
            if (found := self._deliveries.wedged(name)) is not None
            and (record := readable_run(self._dirs, name)) is not None
            and record.identity is not None
        }
        look = LastLook(self._looked_at, self._settings.interval_s, os.getpid(), wedged)
        with suppress(OSError):
            write_last_look(self._dirs, look)

    def _consider(self, service: Supervised, status: ServiceStatus, now: float) -> None:
        name = status.name
        before = self._recall(name, status.record)
        wedged = self._deliveries.wedged(name)
        seen = _observe(service, status, now, wedged[0] if wedged is not None else None)
        if seen.is_wanted and status.files_problem is not None and self._repair_files(service):
            self._due[name] = now
            return
        history, decision = decide(before, seen, self._settings.restart, self._settings.hang)
        self._histories[name] = history
        self._report_change(before, history, status, decision)
        match decision.action:
            case Action.START | Action.RESTART | Action.RECYCLE:
                self._act(service, status, decision)
            case Action.GIVE_UP:
                if status.record is None or not status.record.flapping:
                    self._give_up(name, decision)
            case Action.WAIT:
                self._due[name] = decision.due_at
            case Action.NOTHING:
                if history.silent_since is not None and seen.silence_s is not None:
                    ends_at = history.silent_since + seen.silence_s
                    self._due[name] = max(now + _AFTER_START_S, ends_at)

    def _recall(self, name: str, record: RunRecord | None) -> History:
        """What is remembered of a service; what the user reset since is forgotten."""
        remembered = self._histories.get(name)
        if record is None:
            return remembered or History()
        if remembered is None:
            now = self._machine.monotonic()
            ago = self._machine.clock() - now
            past = tuple(min(r.at - ago, now) for r in record.restarts)
            return History(past, attempts=len(past), is_flapping=record.flapping)
        if len(record.restarts) < len(remembered.restarts) and not record.restarts:
            return History()
        return replace(remembered, is_flapping=record.flapping)

    def _act(self, service: Supervised, status: ServiceStatus, decision: Decision) -> None:
        """Start a service under the lock; another holder of it is given way."""
        name = service.spec.name
        try:
            with self._locked():
                if self._is_still_wanted(name) and self._is_as_seen(service, status):
                    self._start(service, decision)
        except LockHeldError as error:
            self._hold_up(name, f"waits: {error}", self._machine.monotonic() + _LOCK_RETRY_S)
            return
        except (SupervisionError, OSError) as error:
            # Not the service's fault: its restarts are not used up, but the pauses apply.
            now = self._machine.monotonic()
            history = self._histories[name]
            self._histories[name] = replace(history, broken_since=now)
            pause_s = self._settings.restart.backoff_s(history.attempts)
            self._hold_up(name, str(error), now + pause_s)
            return
        self._held_up.pop(name, None)

    def _start(self, service: Supervised, decision: Decision) -> None:
        name, spec = service.spec.name, service.spec
        clear_the_way(spec, self._dirs, self._settings.grace_s)
        started = start_service(spec, self._dirs, keep_history=True, clock=self._machine.clock)
        now = self._machine.monotonic()
        self._due[name] = now + _AFTER_START_S
        reason = f"{decision.reason}; now PID {started.pid}"
        if decision.action is Action.RECYCLE:
            self._upkeep[name] = Upkeep(done_at=now)
            self._say(name, "recycled", reason)
            return
        if decision.action is Action.START:
            self._histories[name] = History()
            self._say(name, "started", reason)
            return
        record = readable_run(self._dirs, name) or RunRecord()
        restart = Restart(self._machine.clock(), decision.reason)
        restarts = (*record.restarts, restart)[-_KEPT_RESTARTS:]
        write_run(self._dirs, name, replace(record, restarts=restarts))
        history = self._histories[name].restarted(now)
        self._histories[name] = history
        self._say(name, "restarted", f"{reason}, restart {len(history.restarts)}")

    def _give_up(self, name: str, decision: Decision) -> None:
        reason = f"{decision.reason}; it stays as it is until you step in"
        try:
            with self._locked():
                record = readable_run(self._dirs, name) or RunRecord()
                if record.wanted is WantedState.RUNNING:
                    record = replace(record, flapping=True, last_error=decision.reason)
                    write_run(self._dirs, name, record)
                    self._say(name, "flapping", reason)
        except (SupervisionError, OSError) as error:
            self._hold_up(name, str(error), self._machine.monotonic() + _LOCK_RETRY_S)

    def _repair_files(self, service: Supervised) -> bool:
        """Whether the service runs and its files didn't say so; now they do."""
        try:
            with self._locked():
                is_wanted = self._is_still_wanted(service.spec.name)
                return is_wanted and adopt(service.spec, self._dirs) is not None
        except (SupervisionError, OSError):
            return False

    def _locked(self) -> AbstractContextManager[LockOwner]:
        settings = self._settings
        return acquire_lock(settings.lock, settings.owner, clock=self._machine.clock)

    def _is_still_wanted(self, name: str) -> bool:
        record = readable_run(self._dirs, name)
        return record is None or record.should_run

    def _is_as_seen(self, service: Supervised, status: ServiceStatus) -> bool:
        """Whether the service was neither started nor stopped since it was looked at."""
        found = locate(self._dirs, service.spec.name, service.spec.masked_command())
        seen = None if status.state is ServiceState.CRASHED else status.pid
        return (found.process.pid if found.process is not None else None) == seen

    def _make_room(self) -> None:
        known = {name: readable_run(self._dirs, name) for name in self._services}
        services = [
            Sheddable(
                name,
                self._services[name].importance,
                shed=record.shed_at is not None,
                is_busy=self._deliveries.is_busy(name),
            )
            for name, record in known.items()
            if record is not None
            and record.wanted is WantedState.RUNNING
            and self._services[name].sheddable
            and (record.identity is not None or record.shed_at is not None)
        ]
        self._pressure, shed, restore = decide_shedding(
            self._pressure,
            self._machine.pressure(),
            services,
            self._settings.shed,
            self._machine.monotonic(),
            self._settings.choose_shed,
        )
        if shed is None and restore is None:
            return
        try:
            with self._locked():
                if shed is not None:
                    self._shed(shed)
                if restore is not None:
                    start_service(self._services[restore].spec, self._dirs, keep_history=True)
                    self._say(restore, "restored", "memory pressure has been normal for a while")
        except (SupervisionError, OSError) as error:
            self._say(shed or restore, "held-up", str(error))

    def _shed(self, name: str) -> None:
        if not self._is_still_wanted(name):
            return
        reason = "paused: memory pressure was critical"
        stop_service(name, self._dirs, self._settings.grace_s, wanted=None)
        record = readable_run(self._dirs, name) or RunRecord()
        record = replace(record, shed_at=self._machine.clock(), last_error=reason)
        write_run(self._dirs, name, record)
        self._say(name, "shed", "memory pressure is critical")

    def _keep_up(self, now: float) -> None:
        """Start idle services again that have grown, or have run out of something."""
        for name, service in self._services.items():
            status = self._statuses.get(name)
            if service.delivery is None or status is None:
                continue
            before = self._upkeep.get(name, Upkeep())
            after, why = look_after(
                before, self._condition(service, status, now), self._settings.upkeep
            )
            self._upkeep[name] = after
            if after.exhausted and not (after.pid == before.pid and before.exhausted):
                words = f"{after.said}: it will be restarted when it is idle"
                self._say(name, "exhausted", words)
            if why is not None and self._is_idle_now(service):
                self._act(service, status, Decision(Action.RECYCLE, why, now))

    def _condition(self, service: Supervised, status: ServiceStatus, now: float) -> Condition:
        name, record = status.name, status.record
        history = self._deliveries.history(name)
        if history is None or record is None or not record.should_run:
            return Condition(now, None)
        said: list[str] = []
        if service.exhaustion is not None:
            is_known = self._upkeep.get(name, Upkeep()).pid == status.pid
            start = self._log_read.get(name, 0) if is_known else record.log_offset
            with suppress(OSError):
                said, self._log_read[name] = new_matches(
                    self._dirs.log_file(name), service.exhaustion, start
                )
        last = history.last
        held = (status.memory_bytes, last.held_bytes if last is not None else None)
        return Condition(
            at=now,
            pid=status.pid,
            is_idle=last is not None and not last.in_flight and history.wedged is None,
            has_worked=history.has_delivered,
            memory_bytes=max((each for each in held if each is not None), default=None),
            planned_bytes=service.planned_bytes,
            exhausted=len(said),
            said=said[-1] if said else "",
        )

    def _is_idle_now(self, service: Supervised) -> bool:
        """Whether it says so now: the last look was a while ago."""
        said = service.delivery.look() if service.delivery is not None else None
        return isinstance(said, Work) and not said.in_flight

    def _rotate_logs(self) -> None:
        if self._settings.rotation is None:
            return
        for log in sorted(self._dirs.logs.glob("*.log")):
            self._turn()
            try:
                rotation = rotate_if_larger(log, self._settings.rotation)
            except (SupervisionError, OSError) as error:
                self._say(log.stem, "held-up", f"its log can't be rotated: {error}")
                continue
            if rotation is not None:
                size_mb = rotation.archived_bytes / 1e6
                self._say(log.stem, "rotated", f"{size_mb:.1f} MB into {rotation.archive.name}")

    def _notice_clock_jump(self, now: float) -> None:
        gap = self._machine.clock() - now
        if self._clock_gap is not None and abs(gap - self._clock_gap) > _CLOCK_JUMP_S:
            moved_s = gap - self._clock_gap
            self._say(None, "clock", f"moved by {moved_s:+.0f} s, or the machine slept")
            # who didn't answer then gets another chance
            self._histories = {
                name: replace(h, down=(), silent_since=None) for name, h in self._histories.items()
            }
            self._deliveries.forgive()
        self._clock_gap = gap

    def _report_change(
        self, before: History, after: History, status: ServiceStatus, decision: Decision
    ) -> None:
        name = status.name
        if before.broken_since is None and after.broken_since is not None:
            words = [decision.reason]
            wedged = self._deliveries.wedged(name)
            if wedged is not None:
                ago = self._machine.clock() - self._machine.monotonic()
                self._say(name, "wedged", decision.reason, since=wedged[1] + ago)
                self._troubled.add(name)
                return
            if name in self._exits:
                words.append(describe_exit(self._exits.pop(name)))
            if status.state is not ServiceState.STOPPED:  # whose log is an earlier run's
                offset = status.record.log_offset if status.record is not None else 0
                said = last_line(self._dirs.log_file(name), offset)
                words += [f"it said: {said}"] if said else []
            self._say(name, "noticed", "; ".join(words))
            self._troubled.add(name)
        if status.state is ServiceState.HEALTHY and name in self._troubled:
            self._troubled.remove(name)
            self._say(name, "recovered", f"healthy as PID {status.pid}")

    def _reap(self, name: str) -> None:
        """Collect a child of ours that died: until then it is a zombie."""
        record = readable_run(self._dirs, name)
        if record is None or record.identity is None:
            return
        exit_code = reap(record.identity.pid)
        if exit_code is not None:
            self._exits[name] = exit_code

    def _forget_others(self) -> None:
        self._deliveries.keep_only(self._services)
        self._troubled &= set(self._services)
        known = self._histories, self._exits, self._due, self._held_up, self._statuses
        for memory in (*known, self._upkeep, self._log_read):
            for name in [name for name in memory if name not in self._services]:
                del memory[name]

    def _hold_up(self, name: str, reason: str, due_at: float) -> None:
        """Try again later; say so once, however often it happens."""
        self._due[name] = due_at
        if self._held_up.get(name) != reason:
            self._held_up[name] = reason
            self._say(name, "held-up", reason)

    def _say(self, service: str | None, what: str, reason: str, since: float | None = None) -> None:
        self._on_event(WatchEvent(self._machine.clock(), service, what, reason, since))


def _observe(
    service: Supervised, status: ServiceStatus, now: float, wedged: str | None
) -> Observation:
    record = status.record
    is_stopped = status.state is ServiceState.STOPPED
    return Observation(
        at=now,
        state=status.state,
        is_wanted=record.should_run if record is not None else not is_stopped,
        was_started=not is_stopped or record is None or record.started_at is not None,
        cpu_s=status.cpu_s,
        uptime_s=status.uptime_s,
        memory_bytes=status.memory_bytes,
        max_memory_bytes=service.max_memory_bytes,
        wedged=wedged,
        silence_s=service.silence_s,
        works_in_silence=service.works_in_silence,
    )
