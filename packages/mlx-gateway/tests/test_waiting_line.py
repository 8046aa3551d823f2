"""The line in front of a model: order, room, and who is sent on."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlx_gateway.errors import ApiError, UpstreamFailedError
from mlx_gateway.keys import Priority
from mlx_gateway.settings import ModelSettings, Upstream
from mlx_gateway.waiting_line import PATIENCE_S, Turn, WaitingLine

A, B = Upstream("http://a:1", "x"), Upstream("http://b:1", "x")


def line(*upstreams: Upstream, hung: set[str] | None = None, **fields: int) -> WaitingLine:
    hung = set() if hung is None else hung
    model = ModelSettings(upstreams or (A,), **fields)
    return WaitingLine(model, lambda root: root not in hung)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_turns_begin_in_the_order_in_which_they_were_asked_for() -> None:
    it = line(max_concurrent=1)
    order: list[int] = []

    async def one(number: int) -> None:
        upstream = await it.take()
        order.append(number)
        await asyncio.sleep(0)
        it.release(upstream)

    await asyncio.gather(*(one(number) for number in range(20)))

    assert order == list(range(20))
    assert (it.waiting, it.running) == (0, 0)


@pytest.mark.parametrize("patience", [0.0, 29.0, 31.0, 119.0, 121.0])
async def test_urgent_requests_go_first_and_nobody_waits_for_ever(patience: float) -> None:
    """A person comes `patience` seconds after an agent and a batch job."""
    now, order = [0.0], list[Priority]()
    it = WaitingLine(ModelSettings((A,), max_concurrent=1), lambda _: True, lambda: now[0])
    running = await it.take()

    async def one(priority: Priority) -> None:
        upstream = await it.take(priority=priority)
        order.append(priority)
        it.release(upstream)

    early = [asyncio.ensure_future(one(each)) for each in (Priority.BATCH, Priority.AGENT)]
    await settle()
    now[0] = patience
    late = asyncio.ensure_future(one(Priority.INTERACTIVE))
    await settle()
    it.release(running)
    await asyncio.gather(*early, late)

    first = [each for each in (Priority.AGENT, Priority.BATCH) if PATIENCE_S[each] < patience]
    rest = [Priority.INTERACTIVE, Priority.AGENT, Priority.BATCH]
    assert order == [*first, *(each for each in rest if each not in first)]


async def test_a_full_line_of_others_makes_room_for_who_is_more_urgent() -> None:
    it = line(max_concurrent=1, queue=2)
    running = await it.take()
    batch = [asyncio.ensure_future(it.take(priority=Priority.BATCH)) for _ in range(2)]
    await settle()

    urgent = asyncio.ensure_future(it.take())
    await settle()

    with pytest.raises(ApiError, match="busy"):
        await batch[1]
    it.release(running)
    assert (await urgent).upstream is A
    assert not batch[0].done()
    it.release(Turn(A))
    assert (await batch[0]).upstream is A


async def test_without_a_limit_nobody_waits() -> None:
    it = line(queue=0)

    assert [(await it.take()).upstream for _ in range(100)] == [A] * 100


async def test_replicas_get_the_requests_in_turn() -> None:
    it = line(A, B, max_concurrent=2)

    assert [(await it.take()).upstream for _ in range(4)] == [A, B, A, B]
    fifth = asyncio.ensure_future(it.take())
    await settle()
    assert not fifth.done()
    it.release(Turn(B), 3.0)
    assert (await fifth).upstream is B


async def test_a_full_line_says_when_to_come_back() -> None:
    it = line(max_concurrent=1, queue=1)
    first = await it.take()
    waits = asyncio.ensure_future(it.take())
    await settle()

    with pytest.raises(ApiError) as caught:
        await it.take()

    assert (caught.value.status, caught.value.code) == (503, "overloaded")
    assert caught.value.retry_after_s == 10, "two turns of five seconds"
    it.release(first)
    assert (await waits).upstream is A


async def test_whoever_leaves_the_line_is_not_served_and_holds_up_nobody() -> None:
    it = line(max_concurrent=1)
    first = await it.take()
    leaver, stayer = asyncio.ensure_future(it.take()), asyncio.ensure_future(it.take())
    await settle()

    leaver.cancel()
    it.release(first)

    assert (await stayer).upstream is A
    assert it.running_at(A.root) == it.running == 1


async def test_whoever_leaves_just_as_its_turn_begins_gives_it_back() -> None:
    it = line(max_concurrent=1)
    first = await it.take()
    leaver, stayer = asyncio.ensure_future(it.take()), asyncio.ensure_future(it.take())
    await settle()

    it.release(first)  # the leaver's turn is there, and it has not seen it yet
    leaver.cancel()

    assert (await stayer).upstream is A
    assert it.running_at(A.root) == it.running == 1


async def test_a_request_does_not_go_back_to_a_replica_that_failed_it() -> None:
    it = line(A, B, max_concurrent=1)

    assert (await it.take(frozenset({A.root}))).upstream is B
    again = asyncio.ensure_future(it.take(frozenset({A.root})))
    await settle()
    assert not again.done(), "it waits for the other one, though this one is free"
    assert (await it.take()).upstream is A, "and others don't wait behind it"
    it.release(Turn(B))
    assert (await again).upstream is B

    with pytest.raises(UpstreamFailedError):
        await it.take(frozenset({A.root, B.root}))


async def test_a_replica_that_hangs_gets_nothing() -> None:
    hung = {A.root}
    it = line(A, B, hung=hung, max_concurrent=2)

    assert [(await it.take()).upstream for _ in range(2)] == [B, B]
    waits = asyncio.ensure_future(it.take())
    await settle()
    assert not waits.done()
    hung.add(B.root)
    it.advance()
    with pytest.raises(UpstreamFailedError, match="does not answer"):
        await waits


async def test_other_settings_count_at_once() -> None:
    it = line(max_concurrent=1)
    await it.take()
    waits = asyncio.ensure_future(it.take())
    await settle()
    assert not waits.done()

    it.change(ModelSettings((A,), max_concurrent=2))

    assert (await waits).upstream is A


async def test_whoever_waits_for_a_model_that_is_gone_is_sent_on() -> None:
    it = line(max_concurrent=1)
    await it.take()
    waits = asyncio.ensure_future(it.take())
    await settle()

    it.fail("it is no longer served")

    with pytest.raises(UpstreamFailedError, match="no longer served"):
        await waits


class Known:
    """A prompt of which each upstream has read something."""

    def __init__(self, **unseen: int) -> None:
        self.unseen = unseen
        self.began: list[Upstream] = []

    def unseen_tokens(self, upstream: Upstream) -> int:
        return self.unseen["a" if upstream is A else "b"]

    def begin(self, upstream: Upstream) -> None:
        self.began.append(upstream)


async def test_a_conversation_goes_to_the_node_that_knows_it() -> None:
    it = line(A, B)
    known = Known(a=9000, b=100)

    turn = await it.take(reading=known)

    assert turn == Turn(B, 100)
    assert known.began == [B]
    assert (await it.take(reading=Known(a=500, b=500))).upstream is A


async def test_a_turn_waits_for_its_node_rather_than_move_at_once() -> None:
    it = line(A, B, max_concurrent=1)
    first = await it.take(reading=Known(a=0, b=9000))
    second = asyncio.ensure_future(it.take(reading=Known(a=0, b=9000)))
    await settle()
    assert not second.done()

    it.release(first)

    assert (await second).upstream is A


async def test_a_turn_does_not_wait_for_its_node_for_ever() -> None:
    now = [0.0]
    it = WaitingLine(ModelSettings((A, B), max_concurrent=1), lambda _: True, lambda: now[0])
    await it.take(reading=Known(a=0, b=9000))
    second = asyncio.ensure_future(it.take(reading=Known(a=0, b=9000)))
    await settle()

    now[0] = 6.0
    it.advance()

    assert (await second).upstream is B


async def test_a_node_that_could_not_answer_is_the_last_choice_for_a_while() -> None:
    now = [0.0]
    it = WaitingLine(ModelSettings((A, B)), lambda _: True, lambda: now[0])
    it.rest(A)

    assert (await it.take(reading=Known(a=0, b=9000))).upstream is B
    assert (await it.take(frozenset({B.root}))).upstream is A, "when no other is left"
    now[0] = 6.0
    assert (await it.take(reading=Known(a=0, b=9000))).upstream is A


class World:
    """A line with two replicas, and everything that a test knows of it."""

    def __init__(self, most: int, queue: int) -> None:
        self.hung: set[str] = set()
        self.queue, self.most = queue, most
        self.line = line(A, B, hung=self.hung, max_concurrent=most, queue=queue)
        self.waiting: list[tuple[asyncio.Future[Turn], frozenset[str]]] = []
        self.running: list[Upstream] = []

    def take(self, number: int) -> None:
        excluded = frozenset({A.root} if number % 3 == 0 else ())
        self.waiting.append((asyncio.ensure_future(self.line.take(excluded)), excluded))

    def release(self, number: int) -> None:
        if self.running:
            self.line.release(Turn(self.running.pop(number % len(self.running))))

    def leave(self, number: int) -> None:
        if self.waiting:
            self.waiting[number % len(self.waiting)][0].cancel()

    def hang(self, number: int) -> None:
        self.hung.add((A, B)[number % 2].root)
        self.line.advance()

    def recover(self, number: int) -> None:
        self.hung.discard((A, B)[number % 2].root)
        self.line.advance()

    async def check(self) -> None:
        await settle()
        for turn, _ in self.waiting:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.running.append(turn.result().upstream)
        self.waiting = [each for each in self.waiting if not each[0].done()]
        for each in (A, B):
            assert self.line.running_at(each.root) == self.running.count(each) <= self.most
        assert self.line.waiting == len(self.waiting) <= self.queue
        for _, excluded in self.waiting:
            left = [each for each in (A, B) if each.root not in excluded | self.hung]
            assert left, "it waits for nothing"
            assert all(self.running.count(each) == self.most for each in left), "it could begin"


_steps = st.tuples(
    st.sampled_from(
        [World.take, World.take, World.release, World.leave, World.hang, World.recover]
    ),
    st.integers(0, 30),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_steps, max_size=60), st.integers(1, 3), st.integers(0, 5))
def test_whatever_happens_no_engine_gets_too_many_and_nobody_is_forgotten(
    steps: list[tuple[Callable[[World, int], None], int]], most: int, queue: int
) -> None:
    async def story() -> None:
        world = World(most, queue)
        for step, number in steps:
            step(world, number)
            await world.check()
        for turn, _ in world.waiting:
            turn.cancel()

    asyncio.run(story())
