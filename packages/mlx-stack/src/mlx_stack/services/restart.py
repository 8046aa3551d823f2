"""Stop and start again under one lock, so that nothing comes in between."""

from collections.abc import Callable
from dataclasses import dataclass

from mlx_procsup import acquire_lock
from mlx_stack.home import Home
from mlx_stack.services.down import stop_services
from mlx_stack.services.dry_run import plan_up
from mlx_stack.services.outcomes import ServiceOutcome
from mlx_stack.services.up import READY_TIMEOUT_S, start_services
from mlx_stack.stack import load_stack


@dataclass(frozen=True, slots=True)
class RestartOutcome:
    """What was stopped, and what was started."""

    stopped: tuple[ServiceOutcome, ...]
    started: tuple[ServiceOutcome, ...]


def restart(
    home: Home,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: Callable[[ServiceOutcome], None] = lambda _: None,
) -> RestartOutcome:
    """Stop the services and start them again.

    Args:
        home: Where the stack is defined.
        tier: Only this tier; None for all tiers and the gateway.
        timeout_s: How long each service may take, longer while its load visibly progresses.
        on_outcome: Told of each service that has stopped, and of each that is ready or has failed.

    Raises:
        LockHeldError: Another command changes the services.
        StackError: No stack is defined, a file is damaged, or the engines are not installed.
    """
    load_stack(home.stack)  # before anything is written: without a stack nothing is
    with acquire_lock(home.lock, "restart"):
        plan_up(home, tier=tier)  # what can't be started again is not stopped
        stopped = stop_services(home, tier=tier, on_outcome=on_outcome)
        started = start_services(home, tier=tier, timeout_s=timeout_s, on_outcome=on_outcome)
    return RestartOutcome(stopped, started)
