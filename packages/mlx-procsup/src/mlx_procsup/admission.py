"""Which services may begin to load now, so that together they fit into memory: a pure decision."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """What a service will need.

    Attributes:
        needs_bytes: The memory that it will hold once it is loaded; 0 where it doesn't matter.
    """

    name: str
    needs_bytes: int
    holds_bytes: int = 0

    @property
    def claim_bytes(self) -> int:
        """What it will still take."""
        return max(0, self.needs_bytes - self.holds_bytes)


def admit(waiting: Sequence[Need], loading: Sequence[Need], available_bytes: int) -> list[str]:
    """The names of those that may start now, in the order in which they wait.

    What is loading has a claim on the rest of its need. A service that doesn't fit waits, and one
    behind it that does fit goes first. Where nothing is loading, the first that waits starts
    whatever it needs: waiting would free nothing, and an estimate can be wrong.
    """
    left_bytes = available_bytes - sum(one.claim_bytes for one in loading)
    admitted: list[str] = []
    for one in waiting:
        if one.claim_bytes <= max(0, left_bytes):
            admitted.append(one.name)
            left_bytes -= one.claim_bytes
    if not admitted and not loading and waiting:
        return [waiting[0].name]
    return admitted
