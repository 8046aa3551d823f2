"""Which connection fetches which blocks of which file. Pure: nothing is fetched or written here.

A block is missing, claimed by a connection, or here. A connection claims a run of blocks, which it
fetches with one request; runs get shorter as the work runs out, so that all connections end at
about the same time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

_MISSING, _CLAIMED, _HERE = range(3)
SHORTEST_RUN = 16
LONGEST_RUN = 256
"""In blocks: a request of 1 MiB is worth a round trip, and one of 16 MiB is not worth waiting for
when its connection is slow."""


@dataclass(slots=True, eq=False)
class Run:
    """Consecutive blocks that one connection fetches.

    Attributes:
        end: Behind the last one; it moves down when another connection takes the rest.
        is_shared: Whether two connections fetch its last block.
    """

    file: int
    first: int
    end: int
    began: float
    block: int = field(init=False)
    is_shared: bool = False

    def __post_init__(self) -> None:
        """Begin with the first block."""
        self.block = self.first

    def lasts_s(self, now: float) -> float:
        """How long the rest will take, by what came so far."""
        return (self.end - self.block) * (now - self.began) / max(self.block - self.first, 0.5)


class Blocks:
    """The blocks of some files.

    Attributes:
        missing: How many blocks no connection has claimed.
    """

    def __init__(self, here: Sequence[bytes | bytearray], connections: int) -> None:
        """Blocks to fetch.

        Args:
            here: For each file, 1 for each block that is here already, else 0.
        """
        self._states = [bytearray(_HERE if one else _MISSING for one in file) for file in here]
        self._connections = connections
        self.runs: list[Run] = []
        self.missing = sum(file.count(_MISSING) for file in self._states)

    def frontier(self, file: int, block: int) -> int:
        """The first block of a file from `block` on that is not here."""
        ahead = self._states[file][block:]
        return block + len(ahead) - len(ahead.lstrip(bytes([_HERE])))

    def claim(self, now: float, is_eligible: Callable[[int], bool]) -> Run | None:
        """The next missing blocks of the first eligible file; None where there are none."""
        share = self.missing // (2 * self._connections)
        most = min(max(share, SHORTEST_RUN), LONGEST_RUN)
        for file, states in enumerate(self._states):
            first = states.find(_MISSING)
            if first >= 0 and is_eligible(file):
                ahead = states[first : first + most]
                end = first + len(ahead) - len(ahead.lstrip(bytes([_MISSING])))
                return self._begin(Run(file, first, end, now))
        return None

    def claim_rest(self, file: int, now: float) -> Run | None:
        """A file from its first missing block to its end, for a server that sends whole files only.

        What is here in between comes once more. None while the file is being fetched from.
        """
        first = self._states[file].find(_MISSING)
        if first < 0 or any(run.file == file for run in self.runs):
            return None
        return self._begin(Run(file, first, len(self._states[file]), now))

    def take_over(
        self, now: float, longer_than_s: float, is_eligible: Callable[[int], bool]
    ) -> Run | None:
        """The second half of what is left of the run that would end last.

        A last block is fetched by both connections. None where every run is young or will end
        sooner than `longer_than_s`.
        """
        candidates = [
            run
            for run in self.runs
            if now - run.began > longer_than_s and not run.is_shared and is_eligible(run.file)
        ]
        slowest = max(candidates, key=lambda run: run.lasts_s(now), default=None)
        if slowest is None or slowest.lasts_s(now) <= longer_than_s:
            return None
        half = Run(slowest.file, (slowest.block + slowest.end) // 2, slowest.end, now)
        if half.first > slowest.block:
            slowest.end = half.first
        else:
            slowest.is_shared = half.is_shared = True
        return self._begin(half)

    def arrived(self, run: Run) -> bool:
        """Count the next block of a run as here; whether it was not before."""
        states, block = self._states[run.file], run.block
        was_here = states[block] == _HERE
        self.missing -= states[block] == _MISSING
        states[block] = _HERE
        run.block += 1
        return not was_here

    def release(self, run: Run) -> None:
        """Give back what is left of a run that has ended."""
        self.runs.remove(run)
        states = self._states[run.file]
        others = [other for other in self.runs if other.file == run.file]
        for block in range(run.block, run.end):
            is_held = any(other.block <= block < other.end for other in others)
            if states[block] == _CLAIMED and not is_held:
                states[block] = _MISSING
                self.missing += 1

    def _begin(self, run: Run) -> Run:
        states = self._states[run.file]
        for block in range(run.first, run.end):
            if states[block] == _MISSING:
                states[block] = _CLAIMED
                self.missing -= 1
        self.runs.append(run)
        return run
