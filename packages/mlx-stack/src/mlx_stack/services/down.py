"""Stop services: the gateway first, so that nothing new reaches a tier that is going."""

from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from mlx_catalog import CatalogError
from mlx_procsup import StateDirs, SupervisionError, WantedState, readable_run, stop_service
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import STOP, note_event
from mlx_stack.nodes.group import forget_ranks
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble, chosen, guests_seen
from mlx_stack.services.service import (
    GATEWAY,
    WATCHDOG,
    Outcomes,
    ServiceOutcome,
    known_services,
)
from mlx_stack.services.stack_lock import stack_lock
from mlx_stack.stack import Stack
from mlx_stack.steps import OnEvent, ignore


def down(
    opened: OpenStack,
    *,
    tier: str | None = None,
    on_event: OnEvent[ServiceOutcome] = ignore,
) -> Outcomes:
    """Stop the services, also those that the stack no longer defines; never the watchdog.

    Args:
        tier: Only this tier; None for everything.
        on_event: Gets each service as soon as it has stopped, one at a time.

    Raises:
        LockHeldError: When another command changes the services.
        UsageError: When there is no such tier.
    """
    if not opened.home.root.exists():
        chosen((), tier)
        return Outcomes(())
    with stack_lock(opened.home, "down"):
        return stop_services(opened, tier=tier, on_event=on_event)


def stop_services(
    opened: OpenStack,
    *,
    tier: str | None = None,
    kept: Collection[str] = (),
    on_event: OnEvent[ServiceOutcome] = ignore,
) -> Outcomes:
    """What `down` does, for a caller that holds the lock; arguments as there.

    Args:
        kept: Services that are left as they are.
    """
    # what runs can be stopped whatever has become of the stack file
    home, stack = opened.home, opened.readable_stack
    tiers = tuple(entry.name for entry in stack.tiers) if stack is not None else ()
    # a model without a tier has no name here until one is meant: it may have rested for weeks
    at_rest = guests_seen(home.state_dirs) if tier is not None else ()
    names = tuple(dict.fromkeys((*tiers, *known_services(home), *at_rest)))
    is_chosen = chosen([name for name in names if name != WATCHDOG], tier)
    spared = {GATEWAY, WATCHDOG, *kept}
    doomed = [name for name in names if name not in spared and is_chosen(name)]
    dirs = home.state_dirs
    commands = _commands_for_lost_records(opened, names, dirs)
    telling = Lock()

    def stop(name: str) -> ServiceOutcome:
        outcome = stop_one(
            name, dirs, port=_port(opened, stack, name), command=commands.get(name, ())
        )
        with telling:
            if outcome.outcome in ("stopped", "forced"):
                note_event(home, STOP, name)
            on_event(outcome)
        return outcome

    outcomes = [stop(GATEWAY)] if is_chosen(GATEWAY) else []
    with ThreadPoolExecutor(max_workers=max(1, len(doomed))) as pool:
        outcomes += pool.map(stop, doomed)
    return Outcomes(tuple(outcomes))


def stop_one(
    name: str,
    dirs: StateDirs,
    *,
    port: int | None = None,
    command: tuple[str, ...] = (),
    rests: bool = False,
) -> ServiceOutcome:
    """What came of stopping one service; a failure is an outcome, too.

    Args:
        rests: Whether a request may start it again.
    """
    wanted = WantedState.ON_REQUEST if rests else WantedState.STOPPED
    try:
        result = stop_service(name, dirs, command=command, wanted=wanted)
        forget_ranks(dirs.run, name)
    except (SupervisionError, OSError) as error:
        return ServiceOutcome(name, "failed", None, port, 0.0, str(error))
    return ServiceOutcome(name, result.outcome.value, result.pid, port, result.seconds)


def _commands_for_lost_records(
    opened: OpenStack, names: tuple[str, ...], dirs: StateDirs
) -> dict[str, tuple[str, ...]]:
    """What services should run; it recognizes those whose run file is lost or damaged."""
    if not any(_is_record_lost(name, dirs) for name in (*names, GATEWAY)):
        return {}
    try:
        services = assemble(opened, gateway_key="").services
    except (StackError, CatalogError, OSError):
        return {}
    return {service.name: service.spec.masked_command() for service in services}


def _is_record_lost(name: str, dirs: StateDirs) -> bool:
    return dirs.pid_file(name).exists() and readable_run(dirs, name) is None


def _port(opened: OpenStack, stack: Stack | None, name: str) -> int | None:
    if name == GATEWAY:
        try:
            return opened.config.litellm_port
        except (StackError, OSError):
            return None
    tier = stack.tier(name) if stack is not None else None
    return tier.port if tier is not None else None
