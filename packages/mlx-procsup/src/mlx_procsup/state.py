"""The five states of a service and the moves between them. Imports nothing of the library."""

from dataclasses import dataclass
from enum import StrEnum


class ServiceState(StrEnum):
    """What an observer says of a service at one moment."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    CRASHED = "crashed"
    STOPPED = "stopped"


HEALTHY_WITHIN_S = 2.0
"""An HTTP 200 later than this is `degraded`."""

DOWN_AFTER_S = 5.0
"""Without an HTTP 200 by then, a live process is `down`."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen of a service: the facts that its state follows from.

    Attributes:
        recorded: a PID file exists.
        alive: the recorded process lives (a zombie doesn't).
        answered_ok: it answered HTTP 200; None where it has nothing to answer on.
        response_s: the time until that answer.
    """

    recorded: bool
    alive: bool
    answered_ok: bool | None = None
    response_s: float | None = None


def classify(seen: Observation) -> ServiceState:
    """The state that an observation means."""
    if not seen.recorded:
        return ServiceState.STOPPED
    if not seen.alive:
        return ServiceState.CRASHED
    if seen.answered_ok is None:
        return ServiceState.HEALTHY
    if not seen.answered_ok or seen.response_s is None or seen.response_s > DOWN_AFTER_S:
        return ServiceState.DOWN
    return ServiceState.HEALTHY if seen.response_s <= HEALTHY_WITHIN_S else ServiceState.DEGRADED


TRANSITIONS: dict[ServiceState, frozenset[ServiceState]] = {
    ServiceState.STOPPED: frozenset({ServiceState.DOWN}),
    ServiceState.DOWN: frozenset(
        {
            ServiceState.HEALTHY,
            ServiceState.DEGRADED,
            ServiceState.CRASHED,
            ServiceState.STOPPED,
        }
    ),
    ServiceState.HEALTHY: frozenset(
        {ServiceState.DEGRADED, ServiceState.DOWN, ServiceState.CRASHED, ServiceState.STOPPED}
    ),
    ServiceState.DEGRADED: frozenset(
        {ServiceState.HEALTHY, ServiceState.DOWN, ServiceState.CRASHED, ServiceState.STOPPED}
    ),
    ServiceState.CRASHED: frozenset({ServiceState.DOWN, ServiceState.STOPPED}),
}
"""From each state, the states that can follow at once; every start passes through `down`."""
