"""Engines that answer and deliver nothing: real processes, which stop when they are told to."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mlx_procsup import (
    DeliveryRule,
    RestartPolicy,
    StartPlan,
    Supervised,
    Watchdog,
    WatchEvent,
    WatchSettings,
    acquire_lock,
    read_last_look,
    read_pid,
    stop_service,
)
from mlx_procsup.service import bring_up
from mlx_procsup.testing import eventually
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble
from mlx_stack.services.delivery import EngineDelivery
from mlx_stack.services.status import ServiceRow, read_status
from mlx_stack.services.watch import supervised
from stack_testkit.fake_engine import WEDGES
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

pytestmark = pytest.mark.story

QUICK = DeliveryRule(
    idle_look_s=0.3,
    busy_look_s=0.2,
    ask_look_s=0.1,
    floor_s=1.5,
    first_s=0.5,
    doubt_s=0.8,
    ask_every_s=1.0,
    errors_apart_s=0.1,
)


@dataclass
class World:
    """A stack of one engine, under a watchdog that is quick to doubt."""

    home: Home
    service: Supervised
    events: list[WatchEvent] = field(default_factory=list[WatchEvent])

    @property
    def pid(self) -> int | None:
        return read_pid(self.home.state_dirs, "standard")

    @property
    def row(self) -> ServiceRow:
        return read_status(OpenStack(self.home)).services[0]

    def heard(self, what: str) -> list[str]:
        return [event.reason for event in self.events if event.what == what]

    def looked_again_for(self, seconds: float) -> Callable[[], bool]:
        """Whether the watchdog has gone on looking for so long."""
        began = time.time()

        def has_looked() -> bool:
            look = read_last_look(self.home.state_dirs)
            return look is not None and look.at > began + seconds

        return has_looked

    def ask(self) -> None:
        """Ask the engine for a token, and wait for none."""
        check = self.service.delivery
        assert isinstance(check, EngineDelivery)
        threading.Thread(target=check.ask, args=(30.0,), daemon=True).start()

    def watchdog(self) -> Watchdog:
        settings = WatchSettings(
            lock=self.home.lock,
            interval_s=1.0,
            restart=RestartPolicy(delay_s=0.2),
            delivery=QUICK,
            grace_s=0.5,
            probe_timeout_s=1.0,
        )
        dirs = self.home.state_dirs
        return Watchdog(dirs, settings, lambda: [self.service], self.events.append)


@contextmanager
def world(tmp_path: Path, *, silence_s: float = 2.0, **flags: str) -> Iterator[World]:
    home = Home(tmp_path / "home")
    install_fake_engines(home)
    define_stack(home, {"standard": {"continuous-batching": True, **flags}})
    opened = OpenStack(home)
    assembly = assemble(opened, gateway_key="k" * 40)
    engine = next(each for each in supervised(opened, assembly) if each.spec.name == "standard")
    engine = Supervised(engine.spec, delivery=engine.delivery, silence_s=silence_s)
    assert bring_up(StartPlan(engine.spec), home.state_dirs).error is None
    made, stop = World(home, engine), threading.Event()
    watching = threading.Thread(target=made.watchdog().run, args=(stop.wait,))
    watching.start()
    try:
        yield made
    finally:
        stop.set()
        watching.join()
        stop_service("standard", home.state_dirs, 0.5)


@pytest.mark.parametrize("kind", WEDGES)
def test_an_engine_that_stops_delivering_is_found_and_restarted(tmp_path: Path, kind: str) -> None:
    with world(tmp_path, wedge=kind) as made:
        before = made.pid
        assert before is not None
        assert eventually(lambda: read_last_look(made.home.state_dirs) is not None)
        os.kill(before, signal.SIGUSR1)
        made.ask()
        assert eventually(lambda: bool(made.heard("recovered"))), made.events
        assert made.pid not in (None, before)
        if kind != "silence":  # that one doesn't answer, so that no look at its work is needed
            (reason,) = made.heard("wedged")
            assert "it answers" in reason or "it says" in reason
            wedged = next(event for event in made.events if event.what == "wedged")
            assert wedged.since is not None
            assert wedged.since < wedged.at
        assert made.row.wedged is None


def test_status_says_that_an_engine_is_wedged_and_why(tmp_path: Path) -> None:
    with world(tmp_path, wedge="dead-thread") as made:
        assert made.row.state == "healthy"
        stopped = made.pid
        assert stopped is not None
        seen: list[ServiceRow] = []

        def is_wedged() -> bool:
            seen.append(made.row)
            return seen[-1].wedged is not None

        with acquire_lock(made.home.lock, "test"):  # so that it isn't restarted before we look
            os.kill(stopped, signal.SIGUSR1)
            made.ask()
            assert eventually(is_wedged)
        row = seen[-1]
        assert (row.state, row.pid) == ("degraded", stopped)
        assert row.reason == row.wedged == row.last_error
        assert "it answers" in (row.wedged or "")


@pytest.mark.parametrize("kind", ["missing", "hang", "nonsense"])
def test_a_status_that_tells_nothing_is_named_once_and_the_engine_left_alone(
    tmp_path: Path, kind: str
) -> None:
    with world(tmp_path, **{"status-as": kind}) as made:
        before = made.pid
        assert eventually(lambda: bool(made.heard("unclear")))
        assert eventually(made.looked_again_for(QUICK.floor_s + 1))
        assert len(made.heard("unclear")) == 1
        assert made.pid == before
        assert made.row.state == "healthy"


def test_a_status_that_lies_is_named_once_and_the_engine_left_alone(tmp_path: Path) -> None:
    with world(tmp_path, **{"status-as": "lie"}) as made:
        before = made.pid
        assert eventually(lambda: bool(made.heard("unclear")))
        assert eventually(made.looked_again_for(QUICK.floor_s + 1))
        (said,) = made.heard("unclear")
        assert "a test request succeeds" in said
        assert made.pid == before


def test_an_engine_that_was_suspended_is_restarted(tmp_path: Path) -> None:
    with world(tmp_path) as made:
        before = made.pid
        assert before is not None
        assert eventually(lambda: read_last_look(made.home.state_dirs) is not None)
        os.kill(before, signal.SIGSTOP)
        assert eventually(lambda: bool(made.heard("recovered"))), made.events
        assert made.pid not in (None, before)


def test_without_batching_the_door_tells_what_passes(tmp_path: Path) -> None:
    """There the engine counts neither prompts nor the tokens of a whole answer."""
    with world(tmp_path, wedge="dead-thread", **{"continuous-batching": False}) as made:
        check = made.service.delivery
        assert isinstance(check, EngineDelivery)
        assert not check.batches
        assert eventually(lambda: _is_idle(check))
        made.ask()
        assert eventually(lambda: _is_idle(check))
        before = made.pid
        assert before is not None
        os.kill(before, signal.SIGUSR1)
        made.ask()
        assert eventually(lambda: not _is_idle(check))


def _is_idle(check: EngineDelivery) -> bool:
    work = check.look()
    return getattr(work, "in_flight", 1) == 0


def test_an_engine_that_fails_at_everything_is_routed_around_restarted_and_accounted_for(
    served: Program,
) -> None:
    define_stack(served.home, {"standard": {"wedge": "errors"}, "fast": {}})
    assert served.run("up").code == 0
    assert served.run("watch", "--daemon", "--interval", "2", "--restart-delay", "3").code == 0

    def row(name: str) -> dict[str, Any]:
        rows = served.run("status", "--json").document["services"]
        return next(row for row in rows if row["name"] == name)

    try:
        assert eventually(lambda: row("watchdog")["last_look_s"] is not None)
        before = row("standard")["pid"]
        seen: list[dict[str, Any]] = []

        def is_wedged() -> bool:
            seen.append(row("standard"))
            return seen[-1]["wedged"] is not None

        with acquire_lock(served.home.lock, "test"):  # so that it isn't restarted before we look
            os.kill(before, signal.SIGUSR1)
            for _ in range(6):
                assert "said" in served.run("ask", "hello", "--tier", "standard").out
            assert eventually(is_wedged)
        assert seen[-1]["state"] == "degraded"
        assert "every request for a token fails: HTTP 500" in seen[-1]["reason"]
        assert eventually(lambda: row("standard")["state"] == "healthy")
        assert row("standard")["pid"] != before
        assert "wedged: it answers, but every" in served.run("logs", "watchdog").out

        def outages() -> dict[str, Any]:
            return served.run("usage", "--json").document["outages"]["standard"]

        assert eventually(lambda: outages()["outages"] > 0)
        assert outages()["restarts"] == 1
        assert 3 <= outages()["longest_outage_s"] <= 60
        said = served.run("usage").out
        assert "% of the time since 20" in said
        assert "; 1 restart, longest outage" in said
    finally:
        pid = row("watchdog")["pid"]
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        served.run("down")
