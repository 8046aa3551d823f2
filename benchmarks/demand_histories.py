"""Random histories of requests, deaths and evictions: is the budget ever exceeded, a request lost?

    uv run python benchmarks/demand_histories.py [--histories 1000] [--seed 1] [--minutes 60]

The engines are stand-ins, but real processes behind the real start, stop and lock; only patience
and the minimum stay are shorter than in the gateway, so a history takes about two seconds. Four
models of 3, 4, 5 and 6 GB share a budget of 10 GB. In each history clients ask, some leave, engines
are killed, one is put to rest, or all that are idle, as under memory pressure. Meanwhile the claims
of all live processes are summed again and again. Exits with 1 where the sum exceeds the budget, an
engine that was put to rest still holds memory, a request gets neither an engine nor a reason, a
history doesn't end within a minute, or a process is left at the end. With `--minutes`, no history
is begun after so long, and the number of those that ran is what counts.
"""

import argparse
import asyncio
import math
import os
import random
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
from script import run_script

from mlx_gateway.residency import RoomRule
from mlx_procsup import locate, stop_service
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_process import EngineProcess
from mlx_stack.services.room import Room
from mlx_stack.services.sleeper import CannotStartError, Sleeper, SleepPlan
from mlx_stack.stack import Tier
from stack_testkit.home import define_stack, install_fake_engines

GB = 10**9
CLAIMS = {"a": 3 * GB, "b": 4 * GB, "c": 5 * GB, "d": 6 * GB}
BUDGET = 10 * GB
STEPS = 8
WITHIN_S = 60.0


class World:
    """The engines, and what became of requests for them."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.results: Counter[str] = Counter()
        self.breaches: list[str] = []
        rule = RoomRule(budget_bytes=BUDGET, min_stay_s=0.2, patience_s=0.5)
        self.sleepers: dict[str, Sleeper] = {}
        self.room = Room(self.sleepers.values, lambda: rule)
        for name, claim in CLAIMS.items():
            process = EngineProcess(home, name, partial(find_tier, name=name), called=name)
            plan = SleepPlan(claim_bytes=claim)
            self.sleepers[name] = Sleeper(name, process, plan, door=self.room)

    async def history(self, chance: random.Random) -> None:
        """One history, until everyone who asked has an answer."""
        asked: list[asyncio.Task[None]] = []
        for _ in range(STEPS):
            name = chance.choice("abcd")
            match chance.choices(("ask", "leave", "kill", "rest", "shed"), (12, 4, 2, 2, 1))[0]:
                case "ask":
                    asked.append(asyncio.ensure_future(self.ask(name, chance.uniform(0, 0.3))))
                case "leave":
                    leaving = asyncio.ensure_future(self.ask(name, 0.1))
                    asyncio.get_running_loop().call_later(chance.uniform(0, 0.4), leaving.cancel)
                    asked.append(leaving)
                case "kill":
                    await asyncio.to_thread(self.kill, name)
                case "rest":
                    asked.append(asyncio.ensure_future(self.rest(name)))
                case _:
                    asked += [asyncio.ensure_future(self.rest(each)) for each in CLAIMS]
            await asyncio.sleep(chance.uniform(0, 0.3))
        async with asyncio.timeout(WITHIN_S):
            for result in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(result, asyncio.CancelledError):
                    self.results["left"] += 1
                elif isinstance(result, BaseException):
                    self.breaches.append(f"a request was lost: {result!r}")

    async def ask(self, name: str, seconds: float) -> None:
        """One request, which works for so long."""
        try:
            await self.sleepers[name].ready()
        except CannotStartError as error:
            self.results[f"refused: {error.message[:50]}"] += 1
            return
        try:
            await asyncio.sleep(seconds)
            self.results["answered"] += 1
        finally:
            self.sleepers[name].finished()

    async def rest(self, name: str) -> None:
        """Put one to rest, and see that nothing of it is left in memory."""
        process = locate(self.home.state_dirs, name).own
        if process is None or not await self.sleepers[name].rest():
            return
        self.results["put to rest"] += 1
        held = held_by_group(process.pid)
        if held:
            self.breaches.append(f"{name} was put to rest and still holds {held:,} bytes")

    def kill(self, name: str) -> None:
        """Let an engine die."""
        process = locate(self.home.state_dirs, name).own
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    async def watch(self) -> None:
        """Sum what lives again and again."""
        while True:
            alive = await asyncio.to_thread(self.alive)
            held = sum(CLAIMS[name] for name in alive)
            if held > BUDGET:
                self.breaches.append(f"{held / GB:.0f} GB at once: {', '.join(alive)}")
            await asyncio.sleep(0.02)

    def alive(self) -> list[str]:
        """The engines that have a process, as of one moment."""
        dirs = self.home.state_dirs
        first = [name for name in CLAIMS if locate(dirs, name).own is not None]
        return [name for name in first if locate(dirs, name).own is not None]


def held_by_group(pid: int) -> int:
    """The memory of the engine that has, or had, this PID, and of all that it started."""
    held = 0
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == pid:
                held += process.memory_info().rss
    return held


def find_tier(opened: OpenStack, *, name: str) -> Tier | None:
    """The tier of that name in the stack file."""
    return opened.stack.tier(name)


async def run(home: Home, histories: int, seed: int, ends: float) -> tuple[World, int]:
    """All histories, one after the other, and how many ran until the clock said `ends`."""
    done, world = 0, World(home)
    watching = asyncio.ensure_future(world.watch())
    for number in range(histories):
        if time.monotonic() > ends:
            break
        done = number + 1
        try:
            await world.history(random.Random(seed + number))
        except TimeoutError:
            world.breaches.append(f"history {seed + number} did not end within {WITHIN_S:g} s")
    watching.cancel()
    return world, done


def main() -> int:
    """Run, print, and exit with 1 for any breach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=math.inf)
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        install_fake_engines(home)
        define_stack(home, {name: {} for name in CLAIMS})
        ends = began + options.minutes * 60
        world, done = asyncio.run(run(home, options.histories, options.seed, ends))
        for name in CLAIMS:
            stop_service(name, home.state_dirs)
        left = [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if folder in " ".join(process.info["cmdline"] or ())
            and process.status() != psutil.STATUS_ZOMBIE
        ]
    if left:
        world.breaches.append(f"processes are left: {left}")
    for what, count in world.results.most_common():
        print(f"{count:>7}  {what}")
    print(f"{done} histories in {time.monotonic() - began:.0f} s, breaches:")
    print("\n".join(world.breaches[:20]) or "none")
    return 1 if world.breaches else 0


if __name__ == "__main__":
    run_script(main)
