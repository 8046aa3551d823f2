"""A power assertion: macOS does not sleep by itself while it is held."""

from dataclasses import dataclass
from enum import StrEnum


class KeepAwake(StrEnum):
    """When the machine is kept from sleeping."""

    NEVER = "never"
    SERVING = "serving"
    """While requests are being served, and a little longer."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class ServingHistory:
    """When requests were last seen; what `should_hold` decides by.

    Attributes:
        last_served_s: Monotonic time at which a request was last seen in progress, or None.
    """

    last_served_s: float | None = None

    def seen(self, *, serving: bool, now_s: float) -> "ServingHistory":
        """Give the history with one more look at whether a request is in progress."""
        return ServingHistory(now_s) if serving else self


def should_hold(
    policy: KeepAwake, history: ServingHistory, *, now_s: float, linger_s: float
) -> bool:
    """Tell whether the assertion is to be held now.

    Args:
        policy: When the machine is to stay awake.
        history: When requests were last seen.
        now_s: Monotonic time.
        linger_s: How long after the last request it is still held. A client that thinks between
            two requests is no idle machine, and macOS itself counts idle time in minutes.
    """
    if policy is KeepAwake.ALWAYS:
        return True
    if policy is KeepAwake.NEVER or history.last_served_s is None:
        return False
    return now_s - history.last_served_s <= linger_s


def caffeinate_command(pid: int) -> tuple[str, ...]:
    """Give the command that holds the assertion for as long as a process lives.

    `-i` prevents idle sleep, `-s` system sleep on mains power. `-w` ties it to the process, so that
    nothing keeps a Mac awake for a program that was killed. Wrapping the program in `caffeinate`
    instead would make caffeinate the process that launchd and every signal see.
    """
    return ("caffeinate", "-i", "-s", "-w", str(pid))
