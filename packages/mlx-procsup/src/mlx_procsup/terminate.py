"""Ends processes reliably: SIGTERM to the group, a grace period, SIGKILL, and a final check."""

import os
import signal
import time
from contextlib import suppress

from mlx_procsup.errors import StopFailedError
from mlx_procsup.identity import ProcessIdentity, is_alive, reap
from mlx_procsup.located import group_members

_AFTER_KILL_S = 5.0


def terminate(
    name: str, targets: tuple[ProcessIdentity, ...], group: int | None, grace_s: float
) -> bool:
    """End the targets and all processes that they start meanwhile; whether SIGKILL was needed.

    Args:
        group: The process group that belongs only to them; None if there is none.

    Raises:
        StopFailedError: A process survived SIGKILL.
    """
    _signal(targets, group, signal.SIGTERM)
    _signal(targets, group, signal.SIGCONT)  # a suspended process can't obey
    left = _left_after(targets, group, grace_s)
    if not left:
        return False
    _signal(left, group, signal.SIGKILL)
    left = _left_after(left, group, _AFTER_KILL_S)
    if left:
        raise StopFailedError(name, tuple(sorted(survivor.pid for survivor in left)))
    return True


def _signal(targets: tuple[ProcessIdentity, ...], group: int | None, number: int) -> None:
    """Signal the group, as long as one of the targets holds its number, and those outside it."""
    in_group = [target for target in targets if group is not None and _group_of(target) == group]
    if group is not None and any(is_alive(target) for target in in_group):
        # macOS answers EPERM where only zombies are left
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
    for target in targets:
        if target not in in_group and is_alive(target):
            with suppress(ProcessLookupError):
                os.kill(target.pid, number)


def _group_of(target: ProcessIdentity) -> int | None:
    try:
        return os.getpgid(target.pid)
    except (ProcessLookupError, PermissionError):
        return None


def _left_after(
    targets: tuple[ProcessIdentity, ...], group: int | None, seconds: float
) -> tuple[ProcessIdentity, ...]:
    """Wait until every target is dead, and every process that joined the group since.

    Returns what still lives after `seconds`.
    """
    deadline = time.monotonic() + seconds
    pause_s = 0.005
    while True:
        for target in targets:
            reap(target.pid)
        left = {target for target in targets if is_alive(target)}
        left |= set(group_members(group)) if group is not None else set()
        if not left or time.monotonic() >= deadline:
            return tuple(left)
        time.sleep(min(pause_s, max(0.0, deadline - time.monotonic())))
        pause_s = min(pause_s * 2, 0.05)
