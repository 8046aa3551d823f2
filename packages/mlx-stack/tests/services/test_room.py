"""Several models wait for room in memory: the one with the most urgent request is let in first."""

import asyncio
import threading
from collections.abc import Callable

from mlx_gateway.residency import RoomRule
from mlx_stack.services.room import Room
from mlx_stack.services.sleeper import Sleeper, SleepPlan


class Process:
    """A process that runs as soon as it is started."""

    def __init__(self, started: list[str], name: str) -> None:
        self.started = started
        self.name = name
        self.alive = False

    def is_alive(self) -> bool:
        return self.alive

    def is_running(self) -> bool:
        return self.alive

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
        self.sleepers: dict[str, Sleeper] = {}
        rule = RoomRule(budget_bytes=10, min_stay_s=0.0)
        room = Room(self.sleepers.values, lambda: rule)
        for name in names:
            process = Process(self.started, name)
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


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - a state that no event tells of
            await asyncio.sleep(0.001)
