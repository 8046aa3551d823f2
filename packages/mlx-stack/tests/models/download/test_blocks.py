from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_stack.models.download.blocks import LONGEST_RUN, SHORTEST_RUN, Blocks, Run

TAKE_OVER_S = 2.0


def anywhere(_file: int) -> bool:
    return True


class Bookkeeping(RuleBasedStateMachine):
    """Connections claim, receive, fail and take over; no block is lost, none fetched for nothing.

    `fetched` counts how often each block that was missing at first has come.
    """

    @initialize(
        here=st.lists(st.binary(max_size=600).map(lambda b: bytes(x & 1 for x in b)), min_size=1),
        connections=st.integers(1, 5),
    )
    def begin(self, here: list[bytes], connections: int) -> None:
        self.now = 0.0
        self.here = here
        self.fetched = [[0] * len(file) for file in here]
        self.shared: set[tuple[int, int]] = set()
        self.blocks = Blocks(here, connections)

    @rule(file=st.integers(0, 3))
    def claim(self, file: int) -> None:
        run = self.blocks.claim(self.now, lambda candidate: candidate != file)
        if run is not None:
            assert run.file != file
            assert 0 < run.end - run.block <= LONGEST_RUN

    @precondition(lambda self: self.blocks.runs)
    @rule(data=st.data(), count=st.integers(1, 40))
    def receive(self, data: st.DataObject, count: int) -> None:
        run = data.draw(st.sampled_from(self.blocks.runs))
        self.now += 1
        for _ in range(min(count, run.end - run.block)):
            self._receive_one(run)

    def _receive_one(self, run: Run) -> None:
        block = run.block
        is_new = self.blocks.arrived(run)
        self.fetched[run.file][block] += 1
        assert is_new == (self.fetched[run.file][block] == 1 and not self.here[run.file][block])

    @precondition(lambda self: self.blocks.runs)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.blocks.release(data.draw(st.sampled_from(self.blocks.runs)))

    @precondition(lambda self: self.blocks.runs)
    @rule(data=st.data())
    def receive_all_but_one(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(self.blocks.runs))
        self.now += 1
        while run.block < run.end - 1:
            self._receive_one(run)

    @rule()
    def take_over(self) -> None:
        before = {id(run): run.end - run.block for run in self.blocks.runs}
        half = self.blocks.take_over(self.now, TAKE_OVER_S, anywhere)
        if half is not None and half.is_shared:
            self.shared.add((half.file, half.first))
            assert half.end - half.first == 1
        elif half is not None:
            after = sum(run.end - run.block for run in self.blocks.runs)
            assert after == sum(before.values())

    @invariant()
    def every_block_is_in_one_place(self) -> None:
        if not hasattr(self, "blocks"):
            return
        claimed = [
            (run.file, block) for run in self.blocks.runs for block in range(run.block, run.end)
        ]
        missing_or_claimed = {
            (file, block)
            for file, blocks in enumerate(self.fetched)
            for block, count in enumerate(blocks)
            if not count and not self.here[file][block]
        }
        assert self.blocks.missing == len(missing_or_claimed - set(claimed))
        twice = {place for place in claimed if claimed.count(place) > 1}
        assert twice <= self.shared, "only a last block is fetched by two connections"

    def teardown(self) -> None:
        if not hasattr(self, "blocks"):
            return
        for run in list(self.blocks.runs):
            self.blocks.release(run)
        while (run := self.blocks.claim(self.now, anywhere)) is not None:
            while run.block < run.end:
                self._receive_one(run)
            self.blocks.release(run)
        assert not self.blocks.missing
        for file, here in enumerate(self.here):
            assert self.blocks.frontier(file, 0) == len(here)
            for block, count in enumerate(self.fetched[file]):
                most = 2 if (file, block) in self.shared else 1
                assert here[block] or 1 <= count <= most


Bookkeeping.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
test_no_block_is_lost_or_claimed_twice = Bookkeeping.TestCase


def begin(blocks: Blocks, now: float = 0.0) -> Run:
    run = blocks.claim(now, anywhere)
    assert run is not None
    return run


def test_runs_get_shorter_as_the_work_runs_out():
    blocks, lengths = Blocks([bytes(4096)], connections=4), list[int]()
    while (run := blocks.claim(0.0, anywhere)) is not None:
        lengths.append(run.end - run.first)
    assert lengths[0] == LONGEST_RUN
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-2] == SHORTEST_RUN
    assert sum(lengths) == 4096


def test_a_run_ends_where_something_is_here_already():
    blocks = Blocks([bytes([1] * 3 + [0] * 5 + [1] + [0] * 40)], connections=1)
    first, second = begin(blocks), begin(blocks)
    assert (first.first, first.end) == (3, 8)
    assert second.first == 9


def test_the_hash_follows_what_is_here_without_a_hole():
    blocks = Blocks([bytes([1, 1, 0, 0, 1])], connections=1)
    assert blocks.frontier(0, 0) == 2
    run = begin(blocks)
    blocks.arrived(run)
    assert blocks.frontier(0, 2) == 3
    blocks.arrived(run)
    assert blocks.frontier(0, 3) == 5


def test_an_idle_connection_takes_half_of_the_run_that_would_end_last():
    blocks = Blocks([bytes(80)], connections=1)
    slow, fast = begin(blocks), begin(blocks)
    assert (slow.first, slow.end, fast.first, fast.end) == (0, 40, 40, 60)
    for _ in range(19):
        blocks.arrived(fast)
    half = blocks.take_over(10.0, TAKE_OVER_S, anywhere)
    assert half is not None
    assert (slow.block, slow.end, half.first, half.end) == (0, 20, 20, 40)


def test_a_run_that_is_young_or_nearly_done_is_left_alone():
    blocks = Blocks([bytes(10)], connections=1)
    run = begin(blocks)
    assert blocks.take_over(1.0, TAKE_OVER_S, anywhere) is None
    for _ in range(9):
        blocks.arrived(run)
    assert blocks.take_over(9.0, TAKE_OVER_S, anywhere) is None


def test_a_last_block_that_does_not_come_is_fetched_a_second_time_and_no_third():
    blocks = Blocks([bytes(1)], connections=1)
    stuck = begin(blocks)
    other = blocks.take_over(5.0, TAKE_OVER_S, anywhere)
    assert other is not None
    assert (other.first, other.end) == (stuck.first, stuck.end) == (0, 1)
    assert blocks.take_over(50.0, TAKE_OVER_S, anywhere) is None
    assert blocks.arrived(other)
    assert not blocks.arrived(stuck)


def test_a_server_without_ranges_gets_one_connection_for_the_rest_of_a_file():
    blocks = Blocks([bytes([1, 0, 0, 1, 0])], connections=4)
    run = blocks.claim_rest(0, 0.0)
    assert run is not None
    assert (run.first, run.end) == (1, 5)
    assert blocks.claim_rest(0, 0.0) is None
    assert blocks.claim(0.0, anywhere) is None
    assert [blocks.arrived(run) for _ in range(4)] == [True, True, False, True]


def test_what_is_here_is_not_fetched_again():
    assert Blocks([bytes([1]) * 9, b""], connections=4).claim(0.0, anywhere) is None
