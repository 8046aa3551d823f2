"""The watchdog on real processes, its clock in our hands."""

import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from mlx_procsup import (
    AnswerKind,
    LastLook,
    MachineReader,
    Pressure,
    ProcessSpec,
    RequestInFlight,
    RestartPolicy,
    RotationRule,
    ServiceState,
    ShedRule,
    StartOutcome,
    StartPlan,
    StateDirs,
    Supervised,
    TokenAnswer,
    UpkeepRule,
    Watchdog,
    WatchEvent,
    WatchSettings,
    Wedge,
    Work,
    acquire_lock,
    identify,
    probe_service,
    read_last_look,
    read_pid,
    read_run,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
)
from mlx_procsup.hang import HangRule
from mlx_procsup.service import bring_up
from mlx_procsup.testing import eventually, free_port

SpecMaker = Callable[..., ProcessSpec]


@dataclass
class World:
    """A watchdog with clocks and a memory pressure that the test sets."""

    dirs: StateDirs
    lock: Path
    services: list[Supervised] = field(default_factory=list[Supervised])
    events: list[WatchEvent] = field(default_factory=list[WatchEvent])
    now: float = 1000.0
    wall: float = 1_800_000_000.0
    pressure: Pressure = Pressure.NORMAL
    probe_timeout_s: float = 5.0

    def watchdog(self) -> Watchdog:
        settings = WatchSettings(
            lock=self.lock,
            interval_s=30,
            restart=RestartPolicy(delay_s=5, max_restarts=2, window_s=600, stable_s=120),
            hang=HangRule(polls=3, start_grace_s=0),
            shed=ShedRule(critical_polls=2, calm_s=60),
            upkeep=UpkeepRule(window_s=300),
            rotation=RotationRule(max_bytes=1000, max_files=2),
            probe_timeout_s=self.probe_timeout_s,
        )
        machine = MachineReader(lambda: self.now, lambda: self.wall, lambda: self.pressure)
        return Watchdog(self.dirs, settings, lambda: self.services, self.events.append, machine)

    def run(self, watchdog: Watchdog, seconds: float) -> None:
        """Let time pass, looking whenever the watchdog wants to."""
        end = self.now + seconds
        while self.now < end:
            step = min(max(watchdog.look(), 0.001), end - self.now)
            self.now += step
            self.wall += step

    def heard(self) -> list[tuple[str | None, str]]:
        return [(d.service, d.what) for d in self.events]

    def add(self, spec: ProcessSpec, **fields: object) -> int:
        """Bring a service up and put it under watch."""
        result = bring_up(StartPlan(spec), self.dirs)
        assert result.error is None
        assert result.pid is not None
        self.services.append(Supervised(spec, **fields))  # type: ignore[arg-type]
        return result.pid


@pytest.fixture
def world(dirs: StateDirs, tmp_path: Path) -> World:
    return World(dirs, tmp_path / "lock")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: identify(pid) is None)


def healthy(world: World, name: str) -> bool:
    spec = next(s.spec for s in world.services if s.spec.name == name)
    return eventually(
        lambda: probe_service(target_of(spec), world.dirs).state is ServiceState.HEALTHY
    )


def test_a_crash_is_noticed_and_restarted_after_the_delay(world: World, web: SpecMaker) -> None:
    pid = world.add(web("a"))
    watchdog = world.watchdog()
    world.run(watchdog, 10)
    kill(pid)
    world.run(watchdog, 24)
    assert world.heard() == [("a", "noticed")]
    assert "was killed by signal 9" in world.events[0].reason
    world.run(watchdog, 2)
    assert world.heard()[1:] == [("a", "restarted")]
    assert read_pid(world.dirs, "a") != pid
    assert healthy(world, "a")
    world.run(watchdog, 30)
    assert world.heard()[2:] == [("a", "recovered")]
    record = read_run(world.dirs, "a")
    assert record is not None
    assert len(record.restarts) == 1


def test_what_down_stopped_stays_stopped(world: World, web: SpecMaker) -> None:
    world.add(web("a"))
    watchdog = world.watchdog()
    world.run(watchdog, 10)
    stop_service("a", world.dirs)
    world.run(watchdog, 200)
    assert world.events == []
    assert read_pid(world.dirs, "a") is None


def test_what_could_not_be_started_at_first_is_started_when_it_can_be_and_not_after_a_stop(
    world: World, web: SpecMaker, dirs: StateDirs
) -> None:
    late, stopped = web("late"), web("stopped")
    for spec in (late, stopped):
        missing = replace(spec, command=("/no/such/program",))
        assert bring_up(StartPlan(missing), dirs).outcome is StartOutcome.FAILED
        world.services.append(Supervised(missing))
    watchdog = world.watchdog()
    world.run(watchdog, 31)
    assert ("late", "held-up") in world.heard()
    stop_service("stopped", dirs)

    world.services[:] = [Supervised(late), Supervised(stopped)]
    world.run(watchdog, 31)

    assert healthy(world, "late")
    assert [what for name, what in world.heard() if name == "late"][-1] == "started"
    record = read_run(dirs, "late")
    assert record is not None
    assert record.restarts == ()
    assert read_pid(dirs, "stopped") is None


def test_what_was_never_asked_for_is_not_started(world: World, web: SpecMaker) -> None:
    world.services.append(Supervised(web("a")))
    world.run(world.watchdog(), 100)
    assert world.events == []
    assert read_pid(world.dirs, "a") is None


def test_flapping_ends_the_restarts_until_the_user_acts(
    world: World, web: SpecMaker, dirs: StateDirs
) -> None:
    bad = web("a", exit_after_s=0.0, listen_after_s=9)
    start_service(bad, dirs)
    world.services.append(Supervised(bad))
    watchdog = world.watchdog()
    for _ in range(10):
        record = read_run(dirs, "a")
        assert record is not None
        assert record.identity is not None
        pid = record.identity.pid
        assert eventually(lambda pid=pid: identify(pid) is None)
        world.run(watchdog, 31)
        if world.heard()[-1] == ("a", "flapping"):
            break
    said = [what for _, what in world.heard()]
    assert said.count("restarted") == 2
    assert said[-1] == "flapping"
    record = read_run(dirs, "a")
    assert record is not None
    assert record.flapping
    assert "giving up" in (record.last_error or "")

    # a new watchdog knows, and so does one after a long time
    count = len(world.events)
    another = world.watchdog()
    world.run(another, 61)
    world.now, world.wall = world.now + 4000, world.wall + 4000
    world.run(another, 61)
    assert "restarted" not in [what for _, what in world.heard()[count:]]

    # the user repairs it and starts it: it is watched again
    good = replace(bad, command=web("b").command, readiness=None)
    world.services[0] = Supervised(good)
    result = bring_up(StartPlan(good), dirs)
    assert result.pid is not None
    world.run(watchdog, 31)
    kill(result.pid)
    world.run(watchdog, 70)
    assert world.heard()[-2:] == [("a", "restarted"), ("a", "recovered")]


def test_a_hung_service_is_restarted(world: World, web: SpecMaker) -> None:
    spec = web("a")
    pid = world.add(spec)
    os.kill(pid, signal.SIGSTOP)
    world.probe_timeout_s = 0.3
    watchdog = world.watchdog()
    world.run(watchdog, 67)
    assert "restarted" in [what for _, what in world.heard()]
    assert read_pid(world.dirs, "a") != pid


def test_a_lock_that_is_held_only_delays_the_restart(world: World, web: SpecMaker) -> None:
    pid = world.add(web("a"))
    watchdog = world.watchdog()
    world.run(watchdog, 1)
    kill(pid)
    with acquire_lock(world.lock, "bench"):
        world.run(watchdog, 60)
    assert world.heard() == [("a", "noticed"), ("a", "held-up")]
    assert "`bench`" in world.events[1].reason
    world.run(watchdog, 2)
    assert world.heard()[2:] == [("a", "restarted")]
    record = read_run(world.dirs, "a")
    assert record is not None
    assert len(record.restarts) == 1


def test_a_stolen_port_is_waited_out_and_uses_no_restart_up(
    world: World, web: SpecMaker, dirs: StateDirs
) -> None:
    port = free_port()
    pid = world.add(web("a", port=port))
    watchdog = world.watchdog()
    world.run(watchdog, 1)
    kill(pid)
    thief = start_service(web("thief", port=port), dirs)
    wait_for_healthy(thief, 10)
    world.run(watchdog, 60)
    assert world.heard() == [("a", "noticed"), ("a", "held-up")]
    assert "is taken by PID" in world.events[1].reason
    stop_service("thief", dirs)
    world.run(watchdog, 35)
    assert world.heard()[2:3] == [("a", "restarted")]


def test_a_service_that_the_user_restarted_meanwhile_is_left_alone(
    world: World, web: SpecMaker
) -> None:
    spec = web("a")
    pid = world.add(spec)
    watchdog = world.watchdog()
    world.run(watchdog, 1)
    kill(pid)
    world.run(watchdog, 30)
    assert world.heard() == [("a", "noticed")]
    result = bring_up(StartPlan(spec), world.dirs)
    world.run(watchdog, 60)
    assert read_pid(world.dirs, "a") == result.pid
    assert "restarted" not in [what for _, what in world.heard()]


def test_a_lost_pid_file_is_written_again_without_a_restart(world: World, web: SpecMaker) -> None:
    pid = world.add(web("a"))
    world.dirs.pid_file("a").unlink()
    world.run(world.watchdog(), 31)
    assert read_pid(world.dirs, "a") == pid
    assert world.events == []


def test_a_service_that_outgrew_its_memory_is_recycled(world: World, web: SpecMaker) -> None:
    pid = world.add(web("gateway"), max_memory_bytes=1 << 20)
    world.run(world.watchdog(), 1)
    assert world.heard() == [("gateway", "recycled")]
    assert read_pid(world.dirs, "gateway") not in (pid, None)
    record = read_run(world.dirs, "gateway")
    assert record is not None
    assert record.restarts == ()


@dataclass
class Busyness:
    """What a service says of its work, as the test has it."""

    work: Work = field(default_factory=lambda: Work(written=1))
    asks_when_idle: bool = False

    def look(self) -> Work:
        return self.work

    def ask(self, wait_s: float) -> TokenAnswer:
        del wait_s
        return TokenAnswer(AnswerKind.TOKEN)

    def predict_s(self, size: int | None, /) -> float:
        del size
        return 1e6


def test_a_service_whose_log_says_that_it_ran_out_is_started_again_once_it_is_idle(
    world: World, web: SpecMaker
) -> None:
    says = Busyness(Work((RequestInFlight("x", 10),), written=1))
    pid = world.add(web("a"), delivery=says, exhaustion=re.compile(rb"Resource limit \(\d+\)"))
    watchdog = world.watchdog()
    world.run(watchdog, 61)
    with world.dirs.log_file("a").open("a") as log:
        log.write("error: Resource limit (499000) exceeded\nand more: Resource limit (4")
    world.run(watchdog, 300)
    assert world.heard() == [("a", "exhausted")]
    assert read_pid(world.dirs, "a") == pid
    says.work = Work(written=9)
    world.run(watchdog, 121)
    assert world.heard()[1:] == [("a", "recycled")]
    assert world.events[-1].reason.startswith("its log said once: Resource limit (499000); now PID")
    assert read_pid(world.dirs, "a") not in (pid, None)
    assert healthy(world, "a")
    world.run(watchdog, 1200)
    assert len(world.events) == 2, "what the log said of another process is past"


def test_a_service_that_gets_work_at_the_last_moment_is_left_alone(
    world: World, web: SpecMaker
) -> None:
    class Late(Busyness):
        def look(self) -> Work:
            return self.work if watchdog_looks else Work((RequestInFlight("late"),), written=1)

    watchdog_looks = True
    pid = world.add(web("a"), delivery=Late(), exhaustion=re.compile(b"ran out"))
    watchdog = world.watchdog()
    world.run(watchdog, 61)
    with world.dirs.log_file("a").open("a") as log:
        log.write("ran out\n")
    watchdog_looks = False
    world.run(watchdog, 121)
    assert world.heard() == [("a", "exhausted")]
    assert read_pid(world.dirs, "a") == pid


def test_an_idle_service_that_crept_above_its_plan_is_started_again(
    world: World, web: SpecMaker
) -> None:
    says = Busyness(Work(written=1, held_bytes=1 << 30))
    pid = world.add(web("a"), delivery=says, planned_bytes=2 << 30)
    watchdog = world.watchdog()
    world.run(watchdog, 600)
    says.work = Work(written=1, held_bytes=3 << 30)
    began = world.now
    while not world.events and world.now - began < 1800:
        world.run(watchdog, 30)
    assert world.heard() == [("a", "recycled")]
    assert "its memory crept up: never less than 3072 MB in 0.167 h" in world.events[0].reason
    assert read_pid(world.dirs, "a") != pid


def test_critical_memory_pressure_sheds_the_least_important_and_restores_it(
    world: World, web: SpecMaker
) -> None:
    world.add(web("big"), importance=3)
    world.add(web("small"), importance=1)
    world.add(web("gateway"), importance=0, sheddable=False)
    watchdog = world.watchdog()
    world.pressure = Pressure.CRITICAL
    world.run(watchdog, 31)
    assert world.heard() == [("small", "shed")]
    status = probe_service(target_of(world.services[1].spec), world.dirs)
    assert status.state is ServiceState.STOPPED
    assert status.last_error == "paused: memory pressure was critical"
    world.run(watchdog, 120)
    assert len(world.events) == 1
    world.pressure = Pressure.NORMAL
    world.run(watchdog, 125)
    assert world.heard()[1:] == [("small", "restored")]
    assert healthy(world, "small")


def test_a_clock_jump_is_survived_and_noted(world: World, web: SpecMaker) -> None:
    pid = world.add(web("a"))
    watchdog = world.watchdog()
    world.run(watchdog, 31)
    world.wall -= 86_400
    world.run(watchdog, 90)
    assert world.heard() == [(None, "clock")]
    assert read_pid(world.dirs, "a") == pid


def test_large_logs_are_rotated(world: World, web: SpecMaker) -> None:
    world.add(web("a"))
    with world.dirs.log_file("a").open("a") as log:
        log.write("x" * 2000)
    world.run(world.watchdog(), 1)
    assert world.heard() == [("a", "rotated")]
    assert (world.dirs.logs / "a.log.1.gz").exists()


def test_a_service_that_left_the_stack_is_watched_no_longer(world: World, web: SpecMaker) -> None:
    pid = world.add(web("a"))
    watchdog = world.watchdog()
    world.run(watchdog, 1)
    world.services.clear()
    world.run(watchdog, 31)
    kill(pid)
    world.run(watchdog, 100)
    assert world.events == []


def test_the_loop_ends_when_it_is_told(world: World) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.append(seconds)
        return len(pauses) == 3

    world.watchdog().run(pause)
    assert len(pauses) == 3


def test_a_look_is_noted_for_whoever_asks_when_it_was(world: World, web: SpecMaker) -> None:
    world.add(web("a"))
    watchdog = world.watchdog()
    assert read_last_look(world.dirs) is None
    world.run(watchdog, 40)
    look = read_last_look(world.dirs)
    assert look is not None
    assert (look.at, look.interval_s, look.pid) == (world.wall - 10, 30, os.getpid())
    assert look.wedged == {}
    assert not look.is_late(world.wall)
    assert look.is_late(world.wall + 600)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2}', '{"at": "x"}', "\xff"])
def test_a_damaged_note_of_the_last_look_says_nothing(world: World, text: str) -> None:
    world.dirs.create()
    world.dirs.last_look_file.write_text(text)
    assert read_last_look(world.dirs) is None


def test_what_is_said_to_be_wedged_is_believed_of_that_process_and_while_somebody_looks() -> None:
    look = LastLook(1000.0, 30.0, 1, {"a": Wedge(42, "stuck", 900.0)})
    assert look.wedge_of("a", 42, 1010.0) is not None
    assert look.wedge_of("a", 43, 1010.0) is None
    assert look.wedge_of("b", 42, 1010.0) is None
    assert look.wedge_of("a", 42, 2000.0) is None


def test_a_watch_that_stalls_is_noticed_from_outside_it(world: World) -> None:
    stalled = threading.Event()
    told: list[float] = []

    def on_stall(seconds: float) -> None:
        told.append(seconds)
        stalled.set()

    watchdog = Watchdog(
        world.dirs,
        WatchSettings(lock=world.lock, interval_s=0.1, stall_s=0.2),
        lambda: stalled.wait(10) and [],  # a disk that hangs, say
        world.events.append,
    )
    watchdog.run(lambda _: stalled.is_set(), on_stall)
    assert len(told) == 1
    assert told[0] >= 0.3


def test_a_watch_that_turns_is_not_said_to_stall(world: World) -> None:
    told: list[float] = []
    turns = iter([False] * 30 + [True])
    settings = WatchSettings(lock=world.lock, interval_s=0.05, stall_s=1.0)
    watchdog = Watchdog(world.dirs, settings, list, world.events.append)

    def pause(seconds: float) -> bool:
        threading.Event().wait(min(seconds, 0.05))
        return next(turns)

    watchdog.run(pause, told.append)
    assert told == []
