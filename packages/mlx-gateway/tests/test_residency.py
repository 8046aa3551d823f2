"""Which models are in memory: what makes room, what waits, what can never be."""

import random
from dataclasses import dataclass, field, replace

from hypothesis import given
from hypothesis import strategies as st

from mlx_gateway.residency import (
    Load,
    Refuse,
    Resident,
    RoomDecision,
    RoomRule,
    WaitForRoom,
    decide_relief,
    decide_room,
)

GB = 2**30
RULE = RoomRule(budget_bytes=10 * GB, min_stay_s=30, patience_s=60)


def resident(name: str, gb: float, *, used_at: float = 0, **more: object) -> Resident:
    fields = {"since": -1000.0, "used_at": used_at, "claim_bytes": int(gb * GB), **more}
    return Resident(name=name, **fields)  # pyright: ignore[reportArgumentType]


def ask(gb: float, *residents: Resident, asked_at: float = 0, now: float = 0) -> RoomDecision:
    return decide_room(int(gb * GB), residents, RULE, asked_at=asked_at, now=now)


def test_what_fits_is_loaded_next_to_the_others() -> None:
    assert ask(4, resident("a", 6)) == Load()


def test_the_one_that_was_used_longest_ago_makes_room() -> None:
    assert ask(5, resident("old", 4, used_at=-50), resident("new", 4, used_at=-5)) == Load(("old",))


def test_the_less_important_makes_room_before_the_one_that_was_used_longer_ago() -> None:
    tier = resident("tier", 4, used_at=-500, importance=2)
    assert ask(5, tier, resident("guest", 4, used_at=-5)) == Load(("guest",))


def test_no_more_go_than_have_to() -> None:
    small, large = resident("small", 1, used_at=-9), resident("large", 8, used_at=-1)
    assert ask(8, small, large) == Load(("large",))


def test_a_busy_or_pinned_one_never_makes_room() -> None:
    busy = resident("busy", 6, is_busy=True)
    assert ask(5, busy, resident("idle", 1)) == WaitForRoom(("busy",), until=60)
    assert ask(5, resident("pinned", 6, pinned=True)) == Refuse(1 * GB, 6 * GB)


def test_what_is_larger_than_the_budget_is_refused_by_how_much() -> None:
    assert ask(12, resident("a", 6)) == Refuse(2 * GB, 0)


def test_one_that_was_just_loaded_stays_for_a_while() -> None:
    just_loaded = resident("a", 6, since=-10.0)
    assert ask(5, just_loaded) == WaitForRoom(("a",), until=20)
    assert ask(5, just_loaded, now=20) == Load(("a",))


def test_one_that_is_always_busy_takes_no_new_requests_once_another_has_waited_long() -> None:
    busy = resident("busy", 6, is_busy=True)
    assert ask(5, busy, asked_at=-59) == WaitForRoom(("busy",), until=1)
    assert ask(5, busy, asked_at=-60) == WaitForRoom(("busy",), drain=("busy",))
    assert ask(5, replace(busy, since=-10.0), asked_at=-60) == WaitForRoom(("busy",), until=20)


SEVERAL = st.lists(
    st.builds(
        Resident,
        name=st.uuids().map(str),
        claim_bytes=st.integers(0, 12),
        since=st.floats(-100, 0),
        used_at=st.floats(-100, 0),
        is_busy=st.booleans(),
        importance=st.integers(0, 2),
        pinned=st.booleans(),
    ),
    max_size=8,
)


@given(st.integers(0, 25), SEVERAL, st.floats(-100, 0))
def test_every_verdict_keeps_its_promises(
    claim: int, residents: list[Resident], asked_at: float
) -> None:
    rule = RoomRule(budget_bytes=20, min_stay_s=30, patience_s=30)
    by_name = {each.name: each for each in residents}
    pinned = sum(each.claim_bytes for each in residents if each.pinned)

    match decide_room(claim, residents, rule, asked_at=asked_at, now=0.0):
        case Load(evict):
            gone = [by_name[name] for name in evict]
            assert not any(each.is_busy or each.pinned or each.since > -30 for each in gone)
            left = sum(each.claim_bytes for each in residents if each not in gone)
            assert left + claim <= 20
            assert all(left + claim + each.claim_bytes > 20 for each in gone), "none in vain"
        case Refuse(missing, pinned_bytes):
            assert (missing, pinned_bytes) == (pinned + claim - 20, pinned)
            assert missing > 0
        case WaitForRoom(for_whom, until, drain):
            assert pinned + claim <= 20
            assert for_whom
            assert until is None or until > 0
            assert until is not None or any(by_name[name].is_busy for name in for_whom)
            assert all(not by_name[name].pinned for name in drain)
            assert not drain or asked_at <= -30


@dataclass
class World:
    """Models, requests for them, and a clock that jumps from event to event."""

    sizes: dict[str, int]
    rule: RoomRule
    now: float = 0.0
    loaded: dict[str, Resident] = field(default_factory=dict)
    busy_until: dict[str, float] = field(default_factory=dict)
    draining: set[str] = field(default_factory=set)
    waiting: list[tuple[str, float]] = field(default_factory=list)
    served: int = 0
    longest_wait_s: float = 0.0

    def serve(self, name: str, seconds: float) -> None:
        self.served += 1
        self.busy_until[name] = max(self.busy_until.get(name, 0), self.now + seconds)

    def residents(self) -> list[Resident]:
        return [
            replace(each, is_busy=self.busy_until.get(name, 0) > self.now)
            for name, each in self.loaded.items()
        ]

    def step(self) -> None:
        """Let those who wait in front go on as far as they can."""
        while self.waiting:
            name, asked_at = self.waiting[0]
            if name not in self.loaded or name in self.draining:
                verdict = decide_room(
                    *(self.sizes[name], self.residents(), self.rule),
                    asked_at=asked_at,
                    now=self.now,
                )
                if not isinstance(verdict, Load):
                    assert isinstance(verdict, WaitForRoom)
                    self.draining = set(verdict.drain)
                    return
                for gone in verdict.evict:
                    del self.loaded[gone]
                self.draining = set()
                self.loaded[name] = Resident(
                    name=name, claim_bytes=self.sizes[name], since=self.now, used_at=self.now
                )
            assert sum(each.claim_bytes for each in self.loaded.values()) <= self.rule.budget_bytes
            self.waiting.pop(0)
            self.longest_wait_s = max(self.longest_wait_s, self.now - asked_at)
            self.serve(name, 5)


@given(st.integers(0, 2**32))
def test_everyone_is_served_in_the_end_and_the_budget_is_kept(seed: int) -> None:
    chance = random.Random(seed)
    sizes = {name: chance.randint(1, 10) for name in "abcde"}
    world = World(sizes, RoomRule(budget_bytes=10, min_stay_s=30, patience_s=60))
    asked = 0
    for second in range(400):
        world.now = float(second)
        if chance.random() < 0.2 and second < 300:
            asked += 1
            name = chance.choice("abcde")
            if name in world.loaded and name not in world.draining:
                world.serve(name, chance.choice((1, 20)))
            else:
                world.waiting.append((name, world.now))
        world.step()
    while world.waiting and world.now < 100_000:
        world.now += 1
        world.step()

    assert world.served == asked


@given(
    st.lists(
        st.builds(
            lambda name, importance, used_at, busy, pinned: Resident(
                name=name,
                claim_bytes=1,
                since=0,
                used_at=used_at,
                importance=importance,
                is_busy=busy,
                pinned=pinned,
            ),
            st.sampled_from("abcdef"),
            st.integers(0, 3),
            st.floats(0, 100),
            st.booleans(),
            st.booleans(),
        ),
        unique_by=lambda each: each.name,
    ),
    st.booleans(),
)
def test_under_pressure_goes_who_would_make_room_for_a_model(
    residents: list[Resident], may_be_busy: bool
) -> None:
    chosen = decide_relief(residents, may_be_busy=may_be_busy)
    idle = [each for each in residents if not each.pinned and not each.is_busy]
    if idle:
        rule = RoomRule(budget_bytes=len(residents), min_stay_s=0)
        assert decide_room(1, residents, rule, asked_at=0, now=0) == Load((chosen or "",))
    elif chosen is not None:
        assert may_be_busy
        assert not next(each for each in residents if each.name == chosen).pinned
    else:
        assert not may_be_busy or all(each.pinned for each in residents)
