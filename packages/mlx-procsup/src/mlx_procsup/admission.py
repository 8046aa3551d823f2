"""Which services may start loading now, so that together they fit into memory: a pure decision."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """How much memory a service will need.

    Attributes:
        needs_bytes: The memory that it will hold once it is loaded; 0 if that doesn't matter.
    """

    name: str
    needs_bytes: int
    holds_bytes: int = 0

    @property
    def claim_bytes(self) -> int:
        """The memory that it will still need."""
        return max(0, self.needs_bytes - self.holds_bytes)


def admit(waiting: Sequence[Need], loading: Sequence[Need], available_bytes: int) -> list[str]:
    """The names of the services that may start now, in the order in which they wait.

    A loading service has a claim on the rest of its need. A service that doesn't fit waits, and one
    after it that does fit goes first. If nothing is loading, the first service in line starts
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
