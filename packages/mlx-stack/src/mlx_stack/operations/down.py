"""Stop services: the gateway first, so that nothing new reaches a tier that is going."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mlx_procsup import StateDirs, StopOutcome, SupervisionError, acquire_lock, stop_service
from mlx_stack.errors import StackError
from mlx_stack.operations.assembly import chosen
from mlx_stack.operations.outcomes import Outcome, ServiceOutcome
from mlx_stack.paths import Home
from mlx_stack.services import GATEWAY, WATCHDOG, state_dirs
from mlx_stack.stack import Stack, load_stack

_OUTCOMES: dict[StopOutcome, Outcome] = {
    StopOutcome.GRACEFUL: "stopped",
    StopOutcome.FORCED: "forced",
    StopOutcome.NOT_RUNNING: "not-running",
    StopOutcome.STALE_REMOVED: "stale-removed",
}


def down(
    home: Home,
    *,
    tier: str | None = None,
    on_outcome: Callable[[ServiceOutcome], None] = lambda _: None,
) -> tuple[ServiceOutcome, ...]:
    """Stop the services, also those that the stack no longer defines; never the watchdog.

    Args:
        home: Whose services.
        tier: Only this tier; None for everything.
        on_outcome: Told of each service as soon as it has stopped; from other threads.

    Raises:
        LockHeldError: Another command changes the services.
        UsageError: There is no such tier.
    """
    stack = _stack_if_readable(home)
    tiers = tuple(entry.name for entry in stack.tiers) if stack is not None else ()
    recorded = tuple(sorted(path.stem for path in home.pids.glob("*.pid")))
    names = tuple(dict.fromkeys((*tiers, *recorded)))
    is_chosen = chosen([name for name in names if name != WATCHDOG], tier)
    doomed = [name for name in names if name not in (GATEWAY, WATCHDOG) and is_chosen(name)]
    if not home.root.exists():
        return ()
    with acquire_lock(home.lock, "down"):
        dirs = state_dirs(home)

        def stop(name: str) -> ServiceOutcome:
            outcome = _stop(name, dirs, _port(stack, name))
            on_outcome(outcome)
            return outcome

        outcomes = [stop(GATEWAY)] if is_chosen(GATEWAY) else []
        with ThreadPoolExecutor(max_workers=max(1, len(doomed))) as pool:
            outcomes += pool.map(stop, doomed)
    return tuple(outcomes)


def _stop(name: str, dirs: StateDirs, port: int | None) -> ServiceOutcome:
    kind = "gateway" if name == GATEWAY else "engine"
    try:
        result = stop_service(name, dirs)
    except SupervisionError as error:
        return ServiceOutcome(name, kind, "failed", None, port, 0.0, str(error))
    return ServiceOutcome(name, kind, _OUTCOMES[result.outcome], result.pid, port, result.seconds)


def _stack_if_readable(home: Home) -> Stack | None:
    """The stack, or None: what runs can be stopped whatever has become of the stack file."""
    try:
        return load_stack(home.stack)
    except StackError:
        return None


def _port(stack: Stack | None, name: str) -> int | None:
    tier = stack.tier(name) if stack is not None else None
    return tier.port if tier is not None else None
