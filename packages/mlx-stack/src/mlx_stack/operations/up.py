"""Start what is not running, side by side, and wait until each service is ready."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mlx_procsup import (
    NotReadyError,
    ServiceState,
    StateDirs,
    SupervisionError,
    acquire_lock,
    probe_service,
    start_service,
    stop_service,
    target_of,
    wait_for_healthy,
)
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.operations.assembly import assemble, chosen, write_gateway_config
from mlx_stack.operations.outcomes import Outcome, ServiceOutcome
from mlx_stack.paths import Home
from mlx_stack.services import Service, service_names, state_dirs
from mlx_stack.stack import load_stack

READY_TIMEOUT_S = 120.0

type Observer = Callable[[ServiceOutcome], None]


def up(
    home: Home,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: Observer = lambda _: None,
) -> tuple[ServiceOutcome, ...]:
    """Start the services of the stack that are not running.

    Args:
        home: Where the stack is defined.
        tier: Only this tier; None for all tiers and the gateway.
        timeout_s: How long each service may take, longer while its load visibly progresses.
        on_outcome: Told of each service as soon as it is ready or has failed; from other threads.

    Raises:
        LockHeldError: Another command changes the services.
        StackError: No stack is defined, a file is damaged, or the engines are not installed.
    """
    load_stack(home.stack)  # before anything is written: without a stack nothing is
    with acquire_lock(home.lock, "up"):
        assembly = assemble(home, master_key=ensure_gateway_key(home))
        write_gateway_config(home, assembly.stack, assembly.config)
        is_chosen = chosen(service_names(assembly.stack), tier)
        services = [service for service in assembly.services if is_chosen(service.name)]
        outcomes = {
            name: ServiceOutcome(
                name, "engine", "failed", None, None, 0.0, f"{error.message} {error.hint or ''}"
            )
            for name, error in assembly.missing.items()
            if is_chosen(name)
        }
        for failed in outcomes.values():
            on_outcome(failed)
        dirs = state_dirs(home)

        def bring_up(service: Service) -> ServiceOutcome:
            return _bring_up(service, dirs, timeout_s, on_outcome)

        with ThreadPoolExecutor(max_workers=max(1, len(services))) as pool:
            outcomes |= {outcome.name: outcome for outcome in pool.map(bring_up, services)}
    order = [name for name in service_names(assembly.stack) if name in outcomes]
    return tuple(outcomes[name] for name in order)


def _bring_up(
    service: Service, dirs: StateDirs, timeout_s: float, on_outcome: Observer
) -> ServiceOutcome:
    """Make one service run its present command and answer."""
    began = time.monotonic()
    pid: int | None = None
    try:
        status = probe_service(target_of(service.spec), dirs)
        is_current = status.record is not None and (
            status.record.command == service.spec.masked_command()
        )
        if status.state in (ServiceState.HEALTHY, ServiceState.DEGRADED) and is_current:
            outcome = _outcome(service, "already-running", status.pid, began)
        else:
            if status.state is not ServiceState.STOPPED:
                stop_service(service.name, dirs, command=service.spec.command, wanted=None)
            started = start_service(service.spec, dirs)
            pid = started.pid
            wait_for_healthy(started, timeout_s)
            outcome = _outcome(service, "started", pid, began)
    except NotReadyError as error:
        words = "\n".join((str(error), *error.log_tail))
        outcome = _outcome(service, "failed", error.pid, began, words)
    except SupervisionError as error:
        outcome = _outcome(service, "failed", pid, began, str(error))
    on_outcome(outcome)
    return outcome


def _outcome(
    service: Service, outcome: Outcome, pid: int | None, began: float, error: str | None = None
) -> ServiceOutcome:
    seconds = time.monotonic() - began
    return ServiceOutcome(service.name, service.kind, outcome, pid, service.port, seconds, error)
