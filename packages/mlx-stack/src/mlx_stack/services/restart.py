"""Stop and start again under one lock, so that nothing comes in between."""

from dataclasses import dataclass

from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.nodes import door
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import assemble, chosen, guests_seen
from mlx_stack.services.down import stop_services
from mlx_stack.services.groups import without_impossible
from mlx_stack.services.service import Outcomes, ServiceEvent, service_names
from mlx_stack.services.stack_lock import stack_lock
from mlx_stack.services.up import start_services, take_panics
from mlx_stack.steps import OnEvent, ignore


@dataclass(frozen=True, slots=True)
class Restarted:
    """What was stopped, and what was started."""

    stopped: Outcomes
    started: Outcomes

    @property
    def is_success(self) -> bool:
        """Whether everything that was to run again does."""
        return self.started.is_success

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer: as `up`, and `stopped` as `down` has its services."""
        return {
            **self.started.to_document(),
            "stopped": self.stopped.to_document()["services"],
        }


def restart(
    opened: OpenStack,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_event: OnEvent[ServiceEvent] = ignore,
) -> Restarted:
    """Stop the services and start them again.

    Args:
        tier: Only this tier; None for all tiers and the gateway. Models without a tier, and lazy
            tiers, are stopped, and come back with their next request.
        timeout_s: How long each service may take, longer while its load visibly progresses.

    Raises:
        LockHeldError: When another command changes the services.
        StackError: When no stack is defined, a file is damaged, or the engines are not installed.
    """
    # before anything is written: without a stack, or with a mistyped tier, nothing is
    chosen((*service_names(opened.stack), *guests_seen(opened.home.state_dirs)), tier)
    with stack_lock(opened.home, "restart"):
        take_panics(opened, tier)
        # what can't be started again is not stopped
        door.prepare(opened)
        assembly = assemble(opened, gateway_key=ensure_gateway_key(opened.home))
        possible = without_impossible(opened, assembly, tier, ends_them=True)
        impossible = possible.missing.keys() - assembly.missing.keys()
        stopped = stop_services(opened, tier=tier, kept=impossible, on_event=on_event)
        started = start_services(
            opened.home, possible, tier=tier, timeout_s=timeout_s, on_event=on_event
        )
    return Restarted(stopped, started)
