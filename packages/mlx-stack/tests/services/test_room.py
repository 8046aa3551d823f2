"""Several models wait for room in memory: the one with the most urgent request is let in first."""

import asyncio
import threading
from collections.abc import Callable

import pytest

from mlx_gateway.residency import RoomRule
from mlx_stack.services.room import Room
from mlx_stack.services.sleeper import CannotStartError, Sleeper, SleepPlan


class Process:
    """A process that runs as soon as it is started."""

    def __init__(self, started: list[str], name: str) -> None:
        self.started = started
        self.name = name
        self.alive = False
        self.wanted = True

    def is_alive(self) -> bool:
        return self.alive

    def is_running(self) -> bool:
        return self.alive

    def ensure_wanted(self) -> None:
        if not self.wanted:
            raise CannotStartError("`down` stopped it", is_failure=False)

    def start(self, cancelled: threading.Event) -> None:
        del cancelled
        self.started.append(self.name)
        self.alive = True

    def held_bytes(self) -> int | None:
        return 0 if self.alive else None

    def stop(self) -> bool:
        self.alive = False
        return True


class World:
    """Models of which one fits at a time."""

    def __init__(self, *names: str) -> None:
        self.started: list[str] = []
        self.processes: dict[str, Process] = {}
        self.sleepers: dict[str, Sleeper] = {}
        rule = RoomRule(budget_bytes=10, min_stay_s=0.0)
        room = Room(self.sleepers.values, lambda: rule)
        for name in names:
            process = Process(self.started, name)
            self.processes[name] = process
            self.sleepers[name] = Sleeper(name, process, SleepPlan(claim_bytes=10), door=room)

    async def use(self, name: str, patience_s: float) -> None:
        """Ask for a model, and have done with it at once."""
        await self.sleepers[name].ready(patience_s)
        self.sleepers[name].finished()


def test_a_load_for_an_urgent_request_overtakes_others_that_wait_for_room() -> None:
    async def story() -> list[str]:
        world = World("works", "batch", "agent", "urgent")
        await world.sleepers["works"].ready()
        asked: list[asyncio.Task[None]] = []
        for name, patience_s in (("batch", 40.0), ("agent", 10.0), ("urgent", 0.0)):
            asked.append(asyncio.ensure_future(world.use(name, patience_s)))
            await _until(lambda name=name: world.sleepers[name].waits_for != ())
        world.sleepers["works"].finished()
        await asyncio.gather(*asked)
        return world.started

    assert asyncio.run(story()) == ["works", "urgent", "agent", "batch"]


def test_an_urgent_request_for_the_same_model_takes_the_others_along() -> None:
    async def story() -> list[str]:
        world = World("works", "batch", "agent")
        await world.sleepers["works"].ready()
        asked: list[asyncio.Task[None]] = []
        for name, patience_s in (("batch", 40.0), ("agent", 10.0), ("batch", 0.0)):
            asked.append(asyncio.ensure_future(world.use(name, patience_s)))
            await _until(lambda name=name: world.sleepers[name].waits_for != ())
        await asyncio.sleep(0)
        world.sleepers["works"].finished()
        await asyncio.gather(*asked)
        return world.started

    assert asyncio.run(story()) == ["works", "batch", "agent"]


def test_nothing_makes_room_for_what_no_request_may_start() -> None:
    async def story() -> bool:
        world = World("idle", "stopped")
        await world.use("idle", 0.0)
        world.processes["stopped"].wanted = False
        with pytest.raises(CannotStartError, match="`down` stopped it"):
            await world.use("stopped", 0.0)
        return world.processes["idle"].alive

    assert asyncio.run(story())


def test_what_is_stopped_while_it_waits_for_room_is_refused_at_once() -> None:
    async def story() -> None:
        world = World("works", "next")
        await world.sleepers["works"].ready()
        asked = asyncio.ensure_future(world.use("next", 0.0))
        await _until(lambda: world.sleepers["next"].waits_for != ())
        world.processes["next"].wanted = False
        with pytest.raises(CannotStartError, match="`down` stopped it"):
            await asyncio.wait_for(asked, 5)

    asyncio.run(story())


def test_what_runs_already_is_used_however_full_the_memory_is() -> None:
    async def story() -> bool:
        world = World("idle", "huge")
        for process in world.processes.values():
            process.alive = True
        world.sleepers["huge"].plan = SleepPlan(claim_bytes=20)
        await world.use("huge", 0.0)
        return world.processes["idle"].alive

    assert asyncio.run(story()), "nothing has to make room for it"


def test_a_pinned_model_keeps_others_out_only_once_it_is_loaded() -> None:
    async def story() -> None:
        world = World("first", "second")
        for sleeper in world.sleepers.values():
            sleeper.plan = SleepPlan(claim_bytes=6, pinned=True)
        await world.use("second", 0.0)
        with pytest.raises(CannotStartError, match="for pinned tiers"):
            await world.use("first", 0.0)

    asyncio.run(story())


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - a state that no event tells of
            await asyncio.sleep(0.001)
