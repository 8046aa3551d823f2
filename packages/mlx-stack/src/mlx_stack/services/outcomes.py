"""What `up` and `down` report of each service, in the words of the JSON answer."""

from dataclasses import asdict, dataclass, replace
from typing import Literal

from mlx_stack.services.service import Kind

type Outcome = Literal[
    "started",
    "already-running",
    "failed",
    "skipped",
    "stopped",
    "forced",
    "not-running",
    "stale-removed",
]


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """What became of one service.

    Attributes:
        name: The service.
        kind: What it is.
        outcome: What was done.
        pid: The process it was done to, or None.
        port: Where the service listens.
        seconds: How long it took.
        error: Why it failed or was skipped, with the end of its log; else None.
    """

    name: str
    kind: Kind
    outcome: Outcome
    pid: int | None
    port: int | None
    seconds: float
    error: str | None = None

    def failed(self, error: str) -> "ServiceOutcome":
        """The same service, as one that failed after all."""
        return replace(self, outcome="failed", error=error)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What `up` or `down` did.

    Attributes:
        services: Every service that it was about, in the order of the stack.
    """

    services: tuple[ServiceOutcome, ...]

    @property
    def is_success(self) -> bool:
        """Whether nothing failed and nothing had to be left out."""
        return all(each.outcome not in ("failed", "skipped") for each in self.services)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        rows = [{**asdict(each), "seconds": round(each.seconds, 3)} for each in self.services]
        return {"services": rows}
