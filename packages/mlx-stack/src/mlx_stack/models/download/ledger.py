"""Who fetches which bytes: pieces of files handed to connections, given back, and divided. Pure.

Every byte is received, claimed by one connection, or pending.
Pieces shrink as the work runs out (guided self-scheduling), so that all connections end together.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from mlx_stack.models.download.intervals import IntervalSet

SMALLEST_PIECE_BYTES = 1 << 20
LARGEST_PIECE_BYTES = 32 << 20
FIRST_PIECE_BYTES = 2 << 20
PIECE_S = 1.0
"""One request: small enough to lose little of it, large enough to be worth a round trip."""


@dataclass(slots=True, eq=False)
class Claim:
    """A piece that one connection fetches.

    Attributes:
        file: The index of the file.
        position: The offset of the next byte.
        end: Behind the last byte; it moves down when another connection takes over the rest.
    """

    file: int
    position: int
    end: int

    @property
    def remaining_bytes(self) -> int:
        """What is left to fetch of it."""
        return self.end - self.position


@dataclass(slots=True)
class Ledger:
    """The pieces of some files.

    Attributes:
        pending: For each file, what nobody has claimed.
        connections: For how many connections the work is divided.
        claims: What is being fetched.
    """

    pending: list[IntervalSet]
    connections: int
    claims: list[Claim] = field(default_factory=list[Claim])

    @classmethod
    def of(cls, sizes: Sequence[int], present: Sequence[IntervalSet], connections: int) -> "Ledger":
        """The work that is left of files of these sizes, of which `present` is there."""
        pending = [
            IntervalSet(there.holes(size)) for size, there in zip(sizes, present, strict=True)
        ]
        return cls(pending, connections)

    @property
    def pending_bytes(self) -> int:
        """What nobody has claimed, in all."""
        return sum(ranges.total for ranges in self.pending)

    @property
    def pending_pieces(self) -> int:
        """How many connections could be busy at once."""
        return sum(-(-ranges.total // SMALLEST_PIECE_BYTES) for ranges in self.pending)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to fetch."""
        return not self.claims and not self.pending_bytes

    def claim(
        self, is_eligible: Callable[[int], bool] = lambda _: True, rate_bytes_s: float = 0.0
    ) -> Claim | None:
        """The next piece of the first eligible file, which is the caller's from now on.

        It is what a connection of this rate fetches in about a second, and not more than its
        share of what is left. A connection that has shown no rate yet begins small.
        """
        share = self.pending_bytes // self.connections
        wanted = min(share, int(rate_bytes_s * PIECE_S) or FIRST_PIECE_BYTES)
        most = min(max(wanted, SMALLEST_PIECE_BYTES), LARGEST_PIECE_BYTES)
        for file, ranges in enumerate(self.pending):
            if ranges.total and is_eligible(file):
                taken = ranges.take(most)
                assert taken is not None
                claim = Claim(file, *taken)
                self.claims.append(claim)
                return claim
        return None

    def claim_rest(self, file: int, size: int) -> Claim | None:
        """Everything from the first pending byte of a file to its end, for one connection.

        For a server that knows no ranges. What is there already in between comes once more. None
        while somebody fetches from the file, or nothing of it is pending.
        """
        first = next(iter(self.pending[file]), None)
        if first is None or any(claim.file == file for claim in self.claims):
            return None
        self.pending[file] = IntervalSet()
        claim = Claim(file, first[0], size)
        self.claims.append(claim)
        return claim

    @staticmethod
    def advance(claim: Claim, count: int) -> int:
        """Count `count` bytes of `claim` as received; how many of them were still its own."""
        accepted = max(min(count, claim.remaining_bytes), 0)
        claim.position += accepted
        return accepted

    def release(self, claim: Claim) -> None:
        """Give the rest of `claim` back: done with it, or failed."""
        self.claims.remove(claim)
        self.pending[claim.file].add(claim.position, claim.end)

    def divide(self, claim: Claim) -> Claim:
        """A new claim on the second half of what is left of `claim`, which ends there now."""
        middle = claim.position + claim.remaining_bytes // 2
        other = Claim(claim.file, middle, claim.end)
        claim.end = middle
        self.claims.append(other)
        return other

    def restart(self, file: int, size: int) -> None:
        """Have the whole of a file fetched again; nobody may hold a claim on it."""
        self.pending[file] = IntervalSet([(0, size)])
