"""Stop services: the gateway first, so that nothing new reaches a tier that is going."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from mlx_catalog import CatalogError
from mlx_procsup import (
    StateDirs,
    StateFileError,
    StopOutcome,
    SupervisionError,
    acquire_lock,
    read_run,
    stop_service,
)
from mlx_stack.config import load_config
from mlx_stack.errors import StackError
from mlx_stack.home import Home
from mlx_stack.services.assembly import assemble, chosen
from mlx_stack.services.outcomes import Outcome, ServiceOutcome
from mlx_stack.services.recorded import recorded_services
from mlx_stack.services.service import GATEWAY, WATCHDOG
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
        on_outcome: Told of each service as soon as it has stopped, one at a time.

    Raises:
        LockHeldError: Another command changes the services.
        UsageError: There is no such tier.
    """
    if not home.root.exists():
        if tier is not None:
            chosen((), tier)
        return ()
    with acquire_lock(home.lock, "down"):
        return stop_services(home, tier=tier, on_outcome=on_outcome)


def stop_services(
    home: Home,
    *,
    tier: str | None = None,
    on_outcome: Callable[[ServiceOutcome], None] = lambda _: None,
) -> tuple[ServiceOutcome, ...]:
    """What `down` does, for a caller that holds the lock; arguments as there."""
    stack = _stack_if_readable(home)
    tiers = tuple(entry.name for entry in stack.tiers) if stack is not None else ()
    names = tuple(dict.fromkeys((*tiers, *recorded_services(home))))
    is_chosen = chosen([name for name in names if name != WATCHDOG], tier)
    doomed = [name for name in names if name not in (GATEWAY, WATCHDOG) and is_chosen(name)]
    dirs = home.state_dirs
    commands = _commands_for_lost_records(home, names, dirs)
    telling = Lock()

    def stop(name: str) -> ServiceOutcome:
        outcome = _stop(name, dirs, _port(home, stack, name), commands.get(name, ()))
        with telling:
            on_outcome(outcome)
        return outcome

    outcomes = [stop(GATEWAY)] if is_chosen(GATEWAY) else []
    with ThreadPoolExecutor(max_workers=max(1, len(doomed))) as pool:
        outcomes += pool.map(stop, doomed)
    return tuple(outcomes)


def _stop(name: str, dirs: StateDirs, port: int | None, command: tuple[str, ...]) -> ServiceOutcome:
    kind = "gateway" if name == GATEWAY else "engine"
    try:
        result = stop_service(name, dirs, command=command)
    except (SupervisionError, OSError) as error:
        return ServiceOutcome(name, kind, "failed", None, port, 0.0, str(error))
    return ServiceOutcome(name, kind, _OUTCOMES[result.outcome], result.pid, port, result.seconds)


def _stack_if_readable(home: Home) -> Stack | None:
    """The stack, or None: what runs can be stopped whatever has become of the stack file."""
    try:
        return load_stack(home.stack)
    except (StackError, OSError):
        return None


def _commands_for_lost_records(
    home: Home, names: tuple[str, ...], dirs: StateDirs
) -> dict[str, tuple[str, ...]]:
    """What services should run; it recognizes those whose run file is lost or damaged."""
    if not any(_is_record_lost(name, dirs) for name in (*names, GATEWAY)):
        return {}
    try:
        services = assemble(home, master_key="").services
    except (StackError, CatalogError, OSError):
        return {}
    return {service.name: service.spec.masked_command() for service in services}


def _is_record_lost(name: str, dirs: StateDirs) -> bool:
    if not dirs.pid_file(name).exists():
        return False
    try:
        return read_run(dirs, name) is None
    except StateFileError:
        return True


def _port(home: Home, stack: Stack | None, name: str) -> int | None:
    if name == GATEWAY:
        try:
            return load_config(home).litellm_port
        except (StackError, OSError):
            return None
    tier = stack.tier(name) if stack is not None else None
    return tier.port if tier is not None else None
