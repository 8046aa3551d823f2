"""The loop that keeps services up: looks without the lock, and takes it only to act."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from mlx_procsup.errors import StateFileError, SupervisionError, describe_exit
from mlx_procsup.identity import reap
from mlx_procsup.judgement import Action, Case, Sight, Verdict, clock_jumped, judge
from mlx_procsup.located import locate
from mlx_procsup.lock import LockHeldError, acquire_lock
from mlx_procsup.logfiles import last_line
from mlx_procsup.pressure import (
    PressureCase,
    Sheddable,
    decide_shedding,
)
from mlx_procsup.probe import ServiceStatus, probe_all, target_of
from mlx_procsup.restart import History, restarted
from mlx_procsup.rotate import rotate_if_larger
from mlx_procsup.spawn import adopt, start_service
from mlx_procsup.spec import StateDirs
from mlx_procsup.state import ServiceState
from mlx_procsup.statefiles import Restart, RunRecord, WantedState, read_run, write_run
from mlx_procsup.supervisor import clear_the_way
from mlx_procsup.terminate import stop_service
from mlx_procsup.watch_settings import Decision, Machine, Supervised, WatchSettings

_LOCK_RETRY_S = 1.0
_AFTER_START_S = 2.0
_CLOCK_JUMP_S = 5.0
_KEPT_RESTARTS = 50


class Watchdog:
    """Keeps services running; call `look` whenever it is due, or `run` for ever."""

    def __init__(
        self,
        dirs: StateDirs,
        settings: WatchSettings,
        load: Callable[[], Sequence[Supervised]],
        tell: Callable[[Decision], None],
        machine: Machine | None = None,
    ) -> None:
        """Prepare a watchdog; nothing is read yet.

        Args:
            dirs: where the services' state is.
            settings: how to work.
            load: gives the services as they are defined now; called before every full look.
            tell: gets every decision.
            machine: clocks and pressure, real ones if left out.
        """
        self._dirs = dirs
        self._settings = settings
        self._load = load
        self._tell = tell
        self._machine = machine or Machine()
        self._services: dict[str, Supervised] = {}
        self._cases: dict[str, Case] = {}
        self._troubled: set[str] = set()
        self._exits: dict[str, int] = {}
        self._due: dict[str, float] = {}
        self._next_look = self._machine.monotonic()
        self._held_up: dict[str, str] = {}
        self._pressure = PressureCase()
        self._clock_gap: float | None = None

    def run(self, pause: Callable[[float], bool]) -> None:
        """Watch until `pause` says to stop.

        Args:
            pause: waits so many seconds, or shorter; True ends the watch. `threading.Event.wait`
                does that.
        """
        while not pause(self._look_safely()):
            pass

    def _look_safely(self) -> float:
        """Look; trouble of the machine's own (a full disk, no more files) ends no watch."""
        try:
            return self.look()
        except (SupervisionError, OSError) as error:
            self._say(None, "held-up", str(error))
            return self._settings.interval_s

    def look(self) -> float:
        """Look at what is due, act on it, and return the seconds until the next look is due."""
        now = self._machine.monotonic()
        if now >= self._next_look:
            self._notice_clock_jump(now)
            self._services = {service.spec.name: service for service in self._load()}
            self._forget_others()
            self._examine(list(self._services.values()), now)
            self._make_room()
            self._rotate_logs()
            self._next_look = now + self._settings.interval_s
        else:
            due = [name for name, at in self._due.items() if at <= now]
            self._examine([self._services[name] for name in due], now)
        wake_at = min([self._next_look, *self._due.values()])
        return max(0.0, wake_at - self._machine.monotonic())

    def _examine(self, services: Sequence[Supervised], now: float) -> None:
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
            self._consider(service, status, now)

    def _consider(self, service: Supervised, status: ServiceStatus, now: float) -> None:
        name = status.name
        case = self._recall(name, status.record)
        sight = _sight(service, status, now)
        if sight.wanted and status.files_problem is not None and self._mend_files(service):
            self._due[name] = now
            return
        before = case
        case, verdict = judge(case, sight, self._settings.restart, self._settings.hang)
        self._cases[name] = case
        self._report_change(before, case, status, verdict)
        match verdict.action:
            case Action.RESTART | Action.RECYCLE:
                self._act(service, status, verdict)
            case Action.FLAPPING:
                if status.record is None or not status.record.flapping:
                    self._give_up(name, verdict)
            case Action.WAIT:
                self._due[name] = verdict.due_at
            case Action.NOTHING:
                pass

    def _recall(self, name: str, record: RunRecord | None) -> Case:
        """What is remembered of a service; what the user reset since is forgotten."""
        remembered = self._cases.get(name)
        if record is None:
            return remembered or Case()
        if remembered is None:
            ago = self._machine.clock() - self._machine.monotonic()
            past = tuple(min(r.at - ago, self._machine.monotonic()) for r in record.restarts)
            return Case(history=History(past, attempts=len(past)), flapping=record.flapping)
        if len(record.restarts) < len(remembered.history.restarts) and not record.restarts:
            return Case()
        return replace(remembered, flapping=record.flapping)

    def _act(self, service: Supervised, status: ServiceStatus, verdict: Verdict) -> None:
        """Restart a service under the lock; whoever else holds it is given way."""
        name = service.spec.name
        try:
            with acquire_lock(self._settings.lock, self._settings.owner, clock=self._machine.clock):
                if self._is_still_wanted(name) and self._is_as_seen(service, status):
                    self._restart(service, verdict)
        except LockHeldError as error:
            self._hold_up(name, f"waits: {error}", self._machine.monotonic() + _LOCK_RETRY_S)
            return
        except (SupervisionError, OSError) as error:
            # Not the service's fault: its restarts are not used up, but the pauses apply.
            now = self._machine.monotonic()
            case = self._cases[name]
            self._cases[name] = replace(case, broken_since=now)
            pause_s = self._settings.restart.backoff_s(case.history.attempts)
            self._hold_up(name, str(error), now + pause_s)
            return
        self._held_up.pop(name, None)

    def _restart(self, service: Supervised, verdict: Verdict) -> None:
        name, spec = service.spec.name, service.spec
        clear_the_way(spec, self._dirs, self._settings.grace_s)
        started = start_service(spec, self._dirs, keep_history=True, clock=self._machine.clock)
        now = self._machine.monotonic()
        self._due[name] = now + _AFTER_START_S
        case = self._cases[name]
        if verdict.action is Action.RECYCLE:
            self._say(name, "recycled", f"{verdict.reason}; now PID {started.pid}")
            return
        record = read_run(self._dirs, name) or RunRecord()
        restart = Restart(self._machine.clock(), verdict.reason)
        restarts = (*record.restarts, restart)[-_KEPT_RESTARTS:]
        write_run(self._dirs, name, replace(record, restarts=restarts))
        self._cases[name] = Case(history=restarted(case.history, now))
        count = len(self._cases[name].history.restarts)
        self._say(name, "restarted", f"{verdict.reason}; now PID {started.pid}, restart {count}")

    def _give_up(self, name: str, verdict: Verdict) -> None:
        reason = f"{verdict.reason}; it stays as it is until you act"
        try:
            with acquire_lock(self._settings.lock, self._settings.owner, clock=self._machine.clock):
                record = read_run(self._dirs, name) or RunRecord()
                if record.wanted is WantedState.RUNNING:
                    write_run(
                        self._dirs, name, replace(record, flapping=True, last_error=verdict.reason)
                    )
                    self._say(name, "flapping", reason)
        except (SupervisionError, OSError) as error:
            self._hold_up(name, str(error), self._machine.monotonic() + _LOCK_RETRY_S)

    def _mend_files(self, service: Supervised) -> bool:
        """Whether the service runs and its files didn't say so; now they do."""
        try:
            with acquire_lock(self._settings.lock, self._settings.owner, clock=self._machine.clock):
                return self._is_still_wanted(service.spec.name) and (
                    adopt(service.spec, self._dirs) is not None
                )
        except (SupervisionError, OSError):
            return False

    def _is_still_wanted(self, name: str) -> bool:
        try:
            record = read_run(self._dirs, name)
        except StateFileError:
            return True
        return record is None or (record.wanted is WantedState.RUNNING and record.shed_at is None)

    def _is_as_seen(self, service: Supervised, status: ServiceStatus) -> bool:
        """Whether nobody has started or stopped the service since it was looked at."""
        found = locate(self._dirs, service.spec.name, service.spec.masked_command())
        seen = None if status.state is ServiceState.CRASHED else status.pid
        return (found.process.pid if found.process is not None else None) == seen

    def _make_room(self) -> None:
        known = {name: self._record(name) for name in self._services}
        services = [
            Sheddable(name, self._services[name].importance, record.shed_at is not None)
            for name, record in known.items()
            if record is not None
            and record.wanted is WantedState.RUNNING
            and self._services[name].sheddable
        ]
        self._pressure, shed, restore = decide_shedding(
            self._pressure,
            self._machine.pressure(),
            services,
            self._settings.shed,
            self._machine.monotonic(),
        )
        if shed is None and restore is None:
            return
        try:
            with acquire_lock(self._settings.lock, self._settings.owner, clock=self._machine.clock):
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
        reason = "put aside: memory pressure was critical"
        stop_service(name, self._dirs, self._settings.grace_s, wanted=None)
        record = read_run(self._dirs, name) or RunRecord()
        write_run(
            self._dirs, name, replace(record, shed_at=self._machine.clock(), last_error=reason)
        )
        self._say(name, "shed", "memory pressure is critical")

    def _rotate_logs(self) -> None:
        if self._settings.rotation is None:
            return
        for log in sorted(self._dirs.logs.glob("*.log")):
            try:
                rotation = rotate_if_larger(log, self._settings.rotation)
            except OSError as error:
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
            self._cases = {name: clock_jumped(case) for name, case in self._cases.items()}
        self._clock_gap = gap

    def _report_change(
        self, before: Case, after: Case, status: ServiceStatus, verdict: Verdict
    ) -> None:
        name = status.name
        if before.broken_since is None and after.broken_since is not None:
            words = [verdict.reason]
            if name in self._exits:
                words.append(describe_exit(self._exits.pop(name)))
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
        record = self._record(name)
        if record is None or record.identity is None:
            return
        exit_code = reap(record.identity.pid)
        if exit_code is not None:
            self._exits[name] = exit_code

    def _record(self, name: str) -> RunRecord | None:
        try:
            return read_run(self._dirs, name)
        except StateFileError:
            return None

    def _forget_others(self) -> None:
        self._troubled &= set(self._services)
        for memory in (self._cases, self._exits, self._due, self._held_up):
            for name in [name for name in memory if name not in self._services]:
                del memory[name]

    def _hold_up(self, name: str, reason: str, due_at: float) -> None:
        """Try again later; say so once, however often it happens."""
        self._due[name] = due_at
        if self._held_up.get(name) != reason:
            self._held_up[name] = reason
            self._say(name, "held-up", reason)

    def _say(self, service: str | None, what: str, reason: str) -> None:
        self._tell(Decision(self._machine.clock(), service, what, reason))


def _sight(service: Supervised, status: ServiceStatus, now: float) -> Sight:
    record = status.record
    wanted = status.state is not ServiceState.STOPPED
    if record is not None:
        wanted = record.wanted is WantedState.RUNNING and record.shed_at is None
    return Sight(
        at=now,
        state=status.state,
        wanted=wanted,
        pid=status.pid,
        cpu_s=status.cpu_s,
        uptime_s=status.uptime_s,
        memory_bytes=status.memory_bytes,
        max_memory_bytes=service.max_memory_bytes,
    )
