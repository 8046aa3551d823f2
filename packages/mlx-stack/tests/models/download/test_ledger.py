from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mlx_stack.models.download.intervals import IntervalSet
from mlx_stack.models.download.ledger import (
    FIRST_PIECE_BYTES,
    LARGEST_PIECE_BYTES,
    Claim,
    Ledger,
)

MB = 1 << 20


class Bookkeeping(RuleBasedStateMachine):
    """Connections claim, receive, fail and take over; no byte is lost or fetched for nothing."""

    @initialize(
        sizes=st.lists(st.integers(0, 9 * MB), min_size=1, max_size=4),
        connections=st.integers(1, 5),
    )
    def begin(self, sizes: list[int], connections: int) -> None:
        self.sizes = sizes
        self.received = [IntervalSet() for _ in sizes]
        self.ledger = Ledger.of(sizes, self.received, connections)

    @rule(rate=st.sampled_from([0.0, 1e6, 3e6, 1e9]), file=st.integers(0, 3))
    def claim(self, rate: float, file: int) -> None:
        claim = self.ledger.claim(lambda candidate: candidate != file, rate)
        if claim is not None:
            assert claim.file != file
            assert 0 < claim.remaining_bytes <= LARGEST_PIECE_BYTES

    @precondition(lambda self: self.ledger.claims)
    @rule(data=st.data(), count=st.integers(0, 4 * MB))
    def receive(self, data: st.DataObject, count: int) -> None:
        claim = data.draw(st.sampled_from(self.ledger.claims))
        start = claim.position
        accepted = self.ledger.advance(claim, count)
        assert 0 <= accepted <= count
        self.received[claim.file].add(start, start + accepted)

    @precondition(lambda self: self.ledger.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.ledger.release(data.draw(st.sampled_from(self.ledger.claims)))

    @precondition(lambda self: self.ledger.claims)
    @rule(data=st.data())
    def divide(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.ledger.claims))
        if claim.remaining_bytes >= 2:
            before = claim.remaining_bytes
            other = self.ledger.divide(claim)
            assert claim.remaining_bytes + other.remaining_bytes == before

    @invariant()
    def every_byte_is_in_one_place(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for file, size in enumerate(self.sizes):
            parts = [*self.received[file], *self.ledger.pending[file]]
            parts += [(c.position, c.end) for c in self.ledger.claims if c.file == file]
            whole = IntervalSet(parts)
            assert sum(end - start for start, end in parts) == size
            assert whole == IntervalSet([(0, size)])

    def teardown(self) -> None:
        if not hasattr(self, "ledger"):
            return
        for claim in list(self.ledger.claims):
            self.ledger.release(claim)
        while (claim := self.ledger.claim()) is not None:
            self.received[claim.file].add(claim.position, claim.end)
            self.ledger.advance(claim, claim.remaining_bytes)
            self.ledger.release(claim)
        assert self.ledger.is_done
        assert [there.total for there in self.received] == self.sizes


Bookkeeping.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
test_no_byte_is_lost_or_claimed_twice = Bookkeeping.TestCase


def test_a_connection_without_a_known_rate_begins_with_a_small_piece():
    ledger = Ledger.of([100 * MB], [IntervalSet()], connections=4)
    first = ledger.claim()
    assert first is not None
    assert first.remaining_bytes == FIRST_PIECE_BYTES


def test_a_fast_connection_gets_a_second_of_work_but_no_more_than_its_share():
    ledger = Ledger.of([400 * MB], [IntervalSet()], connections=4)
    fast = ledger.claim(rate_bytes_s=10 * MB)
    assert fast is not None
    assert fast.remaining_bytes == 10 * MB
    scarce = Ledger.of([8 * MB], [IntervalSet()], connections=4)
    share = scarce.claim(rate_bytes_s=10 * MB)
    assert share is not None
    assert share.remaining_bytes == 2 * MB


def test_a_server_without_ranges_gets_one_connection_for_the_rest_of_a_file():
    ledger = Ledger.of([10 * MB], [IntervalSet([(0, MB), (3 * MB, 4 * MB)])], connections=4)
    claim = ledger.claim_rest(0, 10 * MB)
    assert claim is not None
    assert (claim.position, claim.end) == (MB, 10 * MB)
    assert ledger.claim_rest(0, 10 * MB) is None
    assert ledger.claim() is None


def test_what_was_present_is_not_fetched_again():
    ledger = Ledger.of([5 * MB], [IntervalSet([(0, 5 * MB)])], connections=4)
    assert ledger.is_done


def test_bytes_beyond_the_end_that_another_took_over_are_not_counted():
    ledger = Ledger([IntervalSet()], 1)
    claim = Claim(0, 10, 20)
    assert ledger.advance(claim, 15) == 10
    assert ledger.advance(claim, 1) == 0
