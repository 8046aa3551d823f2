"""The five states of a service, and how they are determined; imports nothing from the library."""

from enum import StrEnum


class ServiceState(StrEnum):
    """The state of a service at one moment, as seen from outside."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    DOWN = "down"
    CRASHED = "crashed"
    STOPPED = "stopped"


HEALTHY_WITHIN_S = 2.0
"""An HTTP 200 later than this is `degraded`."""

DOWN_AFTER_S = 5.0
"""Without an HTTP 200 by then, a live process is `down`."""


def classify(
    *,
    has_pid_file: bool,
    alive: bool,
    answered_ok: bool | None = None,
    response_s: float | None = None,
) -> ServiceState:
    """The state of a service, from what was observed.

    Args:
        alive: Whether the recorded process is alive (a zombie isn't).
        answered_ok: Whether it answered HTTP 200; None if it has no address to ask.
        response_s: The time until that answer.
    """
    if not has_pid_file:
        return ServiceState.STOPPED
    if not alive:
        return ServiceState.CRASHED
    if answered_ok is None:
        return ServiceState.HEALTHY
    if not answered_ok or response_s is None or response_s > DOWN_AFTER_S:
        return ServiceState.DOWN
    return ServiceState.HEALTHY if response_s <= HEALTHY_WITHIN_S else ServiceState.DEGRADED
