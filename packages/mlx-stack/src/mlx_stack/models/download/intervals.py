"""A set of byte ranges: what of a file is there, or still to fetch. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class IntervalSet:
    """Disjoint half-open ranges `[start, end)` of offsets, in order, joined where they touch."""

    __slots__ = ("_ends", "_starts", "_total")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._total = 0
        for start, end in ranges:
            self.add(start, end)

    @property
    def total(self) -> int:
        """How many offsets are in the set."""
        return self._total

    @property
    def frontier(self) -> int:
        """Where the first hole is: everything before it, from 0 on, is in the set."""
        return self._ends[0] if self._starts and self._starts[0] == 0 else 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._starts, self._ends, strict=True)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, IntervalSet) and list(self) == list(other)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - mutable

    def __repr__(self) -> str:
        return f"IntervalSet({list(self)})"

    def add(self, start: int, end: int) -> None:
        """Put `[start, end)` in; what is there already stays as it is."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)
        last = bisect_right(self._starts, end)
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        joined = sum(self._ends[i] - self._starts[i] for i in range(first, last))
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]
        self._total += end - start - joined

    def take(self, most: int) -> tuple[int, int] | None:
        """Take up to `most` offsets out, from the beginning of the first range; None if empty."""
        if not self._starts:
            return None
        start = self._starts[0]
        end = min(self._ends[0], start + most)
        if end == self._ends[0]:
            del self._starts[0], self._ends[0]
        else:
            self._starts[0] = end
        self._total -= end - start
        return start, end

    def holes(self, size: int) -> Iterator[tuple[int, int]]:
        """The ranges of `[0, size)` that are not in the set."""
        position = 0
        for start, end in self:
            if start >= size:
                break
            if start > position:
                yield position, start
            position = end
        if position < size:
            yield position, size
