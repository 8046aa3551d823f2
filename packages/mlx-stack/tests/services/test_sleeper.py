"""A process that starts when it is needed: what each of those who need it gets."""

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine

import pytest

from mlx_stack.services.sleeper import CannotStartError, Sleeper, SleepPlan


class Process:
    """A process that a test makes succeed, fail, or take its time."""

    def __init__(self) -> None:
        self.starts = 0
        self.stops = 0
        self.alive = False
        self.fails = False
        self.works = False
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def is_alive(self) -> bool:
        return self.alive

    def is_running(self) -> bool:
        return self.alive

    def ensure_wanted(self) -> None:
        pass

    def start(self, cancelled: threading.Event) -> None:
        del cancelled
        self.starts += 1
        assert self.may_go_on.wait(10)
        if self.fails:
            raise CannotStartError("no", said="the end of the log")
        self.alive = True

    def held_bytes(self) -> int | None:
        return 0 if self.alive else None

    def stop(self) -> bool:
        assert self.may_go_on.wait(10)
        self.stops += 1
        self.alive = self.works
        return not self.works


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(story: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_a_client_that_leaves_cancels_no_start(process: Process) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan())
        process.may_go_on.clear()
        first, second = (asyncio.ensure_future(sleeper.ready()) for _ in range(2))
        await asyncio.sleep(0.05)
        first.cancel()
        process.may_go_on.set()
        await second
        assert (process.starts, sleeper.in_use) == (1, 1)

    run(story)


def test_the_pauses_between_failing_starts_grow_and_a_success_ends_them(
    process: Process, clock: Clock
) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan(), clock=clock)
        process.fails = True
        for number, pause_s in enumerate((5, 10, 20), start=1):
            for _ in range(2):
                with pytest.raises(CannotStartError) as caught:
                    await sleeper.ready()
                assert (caught.value.said, process.starts) == ("the end of the log", number)
            clock.now += pause_s - 1
            with pytest.raises(CannotStartError) as caught:
                await sleeper.ready()
            assert (process.starts, caught.value.retry_after_s) == (number, 1)
            clock.now += 1
        process.fails = False
        await sleeper.ready()
        assert sleeper.in_use == 1
        process.alive, process.fails = False, True
        with pytest.raises(CannotStartError) as caught:
            await sleeper.ready()
        assert caught.value.retry_after_s == 5

    run(story)


def test_what_failed_is_tried_at_once_when_something_else_would_be_started(
    process: Process, clock: Clock
) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan(made_of="damaged"), clock=clock)
        process.fails = True
        for retry_after_s in (5, 10, 20):
            with pytest.raises(CannotStartError) as caught:
                await sleeper.ready()
            assert caught.value.retry_after_s == retry_after_s
            clock.now += retry_after_s
        clock.now -= 1
        sleeper.plan = SleepPlan(made_of="worse")
        with pytest.raises(CannotStartError) as caught:
            await sleeper.ready()
        assert (process.starts, caught.value.retry_after_s) == (4, 5)
        process.fails, sleeper.plan = False, SleepPlan(made_of="whole")
        await sleeper.ready()

    run(story)


def test_what_others_have_started_is_used_while_our_own_starts_would_fail(
    process: Process, clock: Clock
) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan(), clock=clock)
        process.fails = True
        with pytest.raises(CannotStartError):
            await sleeper.ready()
        process.fails, process.alive = False, True
        await sleeper.ready()

    run(story)


def test_a_request_that_comes_while_it_ends_waits_and_starts_it_again(process: Process) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan())
        await sleeper.ready()
        sleeper.finished()
        process.may_go_on.clear()
        resting = asyncio.ensure_future(sleeper.rest())
        await asyncio.sleep(0)
        asked = asyncio.ensure_future(sleeper.ready())
        await asyncio.sleep(0.05)
        assert sleeper.is_at_rest
        process.may_go_on.set()
        assert await resting
        await asked
        assert (process.starts, process.stops, process.alive) == (2, 1, True)

    run(story)


def test_it_is_not_ended_while_it_is_in_use_or_works_for_others(
    process: Process, clock: Clock
) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan(idle_s=10), clock=clock)
        await sleeper.ready()
        assert sleeper.rests_at is None
        assert not await sleeper.rest()
        sleeper.finished()
        assert sleeper.rests_at == 1010
        process.works = True
        clock.now = 1011
        assert not await sleeper.rest()
        clock.now = 1020
        assert sleeper.rests_at == 1021

    run(story)


def test_the_last_client_says_how_long_it_is_kept_where_it_is_ended_at_all(
    process: Process, clock: Clock
) -> None:
    async def story() -> None:
        sleeper = Sleeper("rare", process, SleepPlan(idle_s=10), clock=clock)
        for keep_s, rests_at in ((None, 1010), (300, 1300), (0, 1000), (math.inf, None)):
            await sleeper.ready()
            sleeper.finished(keep_s)
            assert sleeper.rests_at == rests_at
        assert await sleeper.rest()
        await sleeper.ready()
        sleeper.finished()
        assert sleeper.rests_at == 1010
        sleeper.plan = SleepPlan()
        sleeper.finished(5)
        assert sleeper.rests_at is None, "who set it up to stay is asked first"

    run(story)


def test_what_others_keep_running_is_not_started_before_it_was_put_to_rest(
    process: Process,
) -> None:
    async def story() -> None:
        sleeper = Sleeper("standard", process, SleepPlan(keeps_running=True))
        await sleeper.ready()
        sleeper.finished()
        assert (process.starts, sleeper.is_at_rest) == (0, False)
        assert await sleeper.rest()
        assert sleeper.is_at_rest
        await sleeper.ready()
        assert (process.starts, sleeper.is_at_rest) == (1, False)

    run(story)
