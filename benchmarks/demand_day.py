"""A day of an agent fleet in too little memory: our rule for who makes room against a plain LRU.

    uv run python benchmarks/demand_day.py [--days 5] [--seed 1] [--busy 3]

Simulated: people and agents talk to the tiers of a stack in sessions, a few models that nobody
defined are tried now and then, and a nightly job goes through its own. A load takes 4 s and half a
second for each GB. Both rules see the same requests. Prints loads, evictions, how long requests
waited for memory and loads, and how many were refused after two minutes.
"""

import argparse
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mlx_gateway.residency import Load, Resident, RoomDecision, RoomRule, WaitForRoom, decide_room

GB = 10**9
DAY_S = 86_400
REFUSED_AFTER_S = 120.0
GUEST, LAZY, EAGER = range(3)

type Decide = Callable[[int, list[Resident], RoomRule, float, float], RoomDecision]


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the fleet: its claim in GB, its importance, and how many sessions a day it has."""

    name: str
    gb: float
    importance: int
    sessions: int
    turns: int
    night: bool = False


def fleet(budget_gb: float) -> tuple[Model, ...]:
    """The models of a machine: tiers that fit together, and others that don't fit beside them."""
    return (
        Model("standard", 0.45 * budget_gb, EAGER, 60, 12),
        Model("fast", 0.15 * budget_gb, EAGER, 120, 6),
        Model("longctx", 0.35 * budget_gb, LAZY, 12, 8),
        Model("coder", 0.40 * budget_gb, GUEST, 15, 10),
        Model("vision", 0.20 * budget_gb, GUEST, 10, 3),
        Model("tried", 0.60 * budget_gb, GUEST, 6, 1),
        Model("nightly", 0.50 * budget_gb, GUEST, 3, 60, night=True),
    )


def requests(
    models: tuple[Model, ...], chance: random.Random, busy: int
) -> list[tuple[float, str, float]]:
    """A day's requests: when, for what, and how many seconds of work each is.

    Args:
        busy: How many times as many sessions as a quiet day has.
    """
    day: list[tuple[float, str, float]] = []
    for model in models:
        for _ in range(model.sessions * busy):
            at = chance.uniform(0, 6) * 3600 if model.night else chance.gauss(14, 3.5) * 3600
            for _ in range(max(1, round(chance.expovariate(1 / model.turns)))):
                seconds = chance.expovariate(1 / 8) + 1
                day.append((at, model.name, seconds))
                at += seconds + chance.expovariate(1 / 12)
    return sorted(each for each in day if 0 <= each[0] < DAY_S)


def ours(
    claim: int, residents: list[Resident], rule: RoomRule, asked_at: float, now: float
) -> RoomDecision:
    """The rule of the gateway."""
    return decide_room(claim, residents, rule, asked_at=asked_at, now=now)


def plain_lru(
    claim: int, residents: list[Resident], rule: RoomRule, asked_at: float, now: float
) -> RoomDecision:
    """Whoever was used longest ago goes, if it is idle, until there is room."""
    del asked_at, now
    held = sum(each.claim_bytes for each in residents)
    gone: list[str] = []
    for each in sorted(residents, key=lambda each: each.used_at):
        if held + claim <= rule.budget_bytes:
            break
        if not each.is_busy:
            gone.append(each.name)
            held -= each.claim_bytes
    if held + claim <= rule.budget_bytes:
        return Load(tuple(gone))
    return WaitForRoom(tuple(each.name for each in residents if each.is_busy))


@dataclass(slots=True)
class Day:
    """One day under one rule."""

    models: dict[str, Model]
    rule: RoomRule
    decide: Decide
    loaded: dict[str, Resident] = field(default_factory=dict)
    ready_at: dict[str, float] = field(default_factory=dict)
    busy_until: dict[str, float] = field(default_factory=dict)
    line: list[tuple[float, str, float]] = field(default_factory=list)
    draining: tuple[str, ...] = ()
    loads: int = 0
    evictions: int = 0
    refused: int = 0
    waits: list[float] = field(default_factory=list)

    def run(self, day: list[tuple[float, str, float]]) -> "Day":
        """Let the day pass, second by second where someone waits."""
        times = [at for at, *_ in day]
        heapq.heapify(times)
        coming, last = iter(day), -1.0
        upcoming = next(coming, None)
        while times:
            now = heapq.heappop(times)
            if now == last:
                continue
            last = now
            while upcoming is not None and upcoming[0] <= now:
                self.line.append(upcoming)
                upcoming = next(coming, None)
            self.go_on(now)
            if self.line:
                heapq.heappush(times, now + 1)
        return self

    def go_on(self, now: float) -> None:
        """Serve all who can be served; the first of those who wait for memory decides."""
        is_decided = False
        for each in self.line[:]:
            asked_at, name, seconds = each
            if name in self.loaded and name not in self.draining:
                self.line.remove(each)
                begins = max(now, self.ready_at[name])
                self.waits.append(begins - asked_at)
                self.busy_until[name] = max(self.busy_until.get(name, 0), begins + seconds)
                self.loaded[name] = replace(self.loaded[name], used_at=begins + seconds)
            elif now - asked_at > REFUSED_AFTER_S:
                self.line.remove(each)
                self.refused += 1
            elif not is_decided:
                is_decided = not self.load(name, asked_at, now)

    def load(self, name: str, asked_at: float, now: float) -> bool:
        """Whether it is loaded now, or will be soon."""
        model = self.models[name]
        claim = int(model.gb * GB)
        residents = [
            replace(each, is_busy=self.busy_until.get(each.name, 0) > now)
            for each in self.loaded.values()
        ]
        verdict = self.decide(claim, residents, self.rule, asked_at, now)
        if isinstance(verdict, Load) and name not in self.loaded:
            for gone in verdict.evict:
                del self.loaded[gone]
            self.evictions += len(verdict.evict)
            self.loads += 1
            self.draining = ()
            self.ready_at[name] = self.busy_until[name] = now + 4 + 0.5 * model.gb
            self.loaded[name] = Resident(
                name=name,
                claim_bytes=claim,
                since=self.ready_at[name],
                used_at=now,
                importance=model.importance,
            )
            assert sum(each.claim_bytes for each in self.loaded.values()) <= self.rule.budget_bytes
            return True
        self.draining = verdict.drain if isinstance(verdict, WaitForRoom) else self.draining
        return False


def main() -> int:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--busy", type=int, default=3)
    options = parser.parse_args()
    print("machine  rule       requests  loads  evictions  p50 s  p95 s  worst s  sum h  refused")
    for memory_gb in (16, 32, 128):
        budget_gb = 0.6 * memory_gb
        models = fleet(budget_gb)
        rule = RoomRule(budget_bytes=int(budget_gb * GB))
        for label, decide in (("plain LRU", plain_lru), ("ours", ours)):
            chance = random.Random(options.seed)
            days = [
                Day({each.name: each for each in models}, rule, decide).run(
                    requests(models, chance, options.busy)
                )
                for _ in range(options.days)
            ]
            waits = sorted(wait for day in days for wait in day.waits)
            print(
                f"{memory_gb:>4} GB  {label:<9}  {len(waits):>8}  {sum(d.loads for d in days):>5}"
                f"  {sum(d.evictions for d in days):>9}  {waits[len(waits) // 2]:>5.1f}"
                f"  {waits[len(waits) * 95 // 100]:>5.1f}  {waits[-1]:>7.0f}"
                f"  {sum(waits) / 3600:>5.1f}  {sum(d.refused for d in days):>7}"
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
