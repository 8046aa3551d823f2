"""Start what is not running, side by side as memory allows, and wait until it is ready."""

from collections.abc import Callable
from functools import partial

from mlx_procsup import (
    NotReadyError,
    StartOutcome,
    StartPlan,
    StartResult,
    StopOutcome,
    SupervisionError,
    acquire_lock,
    start_all,
    stop_service,
)
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.gateway.endpoint import LOOPBACK, gateway_url
from mlx_stack.home import Home
from mlx_stack.services.assembly import Assembly, assemble, chosen, write_gateway_config
from mlx_stack.services.gateway_reload import reload_gateway
from mlx_stack.services.one_token import ask_one_token
from mlx_stack.services.outcomes import Outcome, ServiceOutcome
from mlx_stack.services.recorded import recorded_services
from mlx_stack.services.service import GATEWAY, WATCHDOG, Service, service_names
from mlx_stack.stack import load_stack

READY_TIMEOUT_S = 120.0
_ONE_TOKEN_TIMEOUT_S = 120.0

type Observer = Callable[[ServiceOutcome], None]


def up(
    home: Home,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: Observer = lambda _: None,
    on_hold: Callable[[str], None] = lambda _: None,
) -> tuple[ServiceOutcome, ...]:
    """Start the services of the stack that are not running.

    What runs already stays, unless the stack means another command or configuration for it by
    now. What the stack no longer defines is stopped.

    Args:
        home: Where the stack is defined.
        tier: Only this tier; None for all tiers and the gateway.
        timeout_s: How long each service may take, longer while its load visibly progresses.
        on_outcome: Told of each service as soon as it is ready or has failed.
        on_hold: Told the name of each service that has to wait for memory.

    Raises:
        LockHeldError: Another command changes the services.
        StackError: No stack is defined, a file is damaged, or the engines are not installed.
    """
    # before anything is written: without a stack, or with a mistyped tier, nothing is
    chosen(service_names(load_stack(home.stack)), tier)
    with acquire_lock(home.lock, "up"):
        return start_services(
            home, tier=tier, timeout_s=timeout_s, on_outcome=on_outcome, on_hold=on_hold
        )


def start_services(
    home: Home,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: Observer = lambda _: None,
    on_hold: Callable[[str], None] = lambda _: None,
    is_wanted: Callable[[str], bool] = lambda _: True,
) -> tuple[ServiceOutcome, ...]:
    """What `up` does, for a caller that holds the lock.

    Args:
        home: As in `up`.
        tier: As in `up`.
        timeout_s: As in `up`.
        on_outcome: As in `up`.
        on_hold: As in `up`.
        is_wanted: Services for which it says no are passed over.
    """
    assembly = assemble(home, master_key=ensure_gateway_key(home))
    write_gateway_config(home, assembly.gateway_config)
    reload_gateway(home, assembly.gateway)
    is_chosen = chosen(service_names(assembly.stack), tier)
    outcomes: dict[str, ServiceOutcome] = {}

    def note(outcome: ServiceOutcome) -> None:
        outcomes[outcome.name] = outcome
        on_outcome(outcome)

    if tier is None:
        for name in recorded_services(home):
            if name not in (*service_names(assembly.stack), WATCHDOG):
                _stop_stranger(home, name, note)
    ports = {each.name: each.port for each in assembly.stack.tiers}
    for name, error in assembly.missing.items():
        if is_chosen(name) and is_wanted(name):
            words = " ".join(filter(None, (error.message, error.hint)))
            note(ServiceOutcome(name, "engine", "failed", None, ports.get(name), 0.0, words))
    services = {
        service.name: service
        for service in assembly.services
        if is_chosen(service.name) and is_wanted(service.name)
    }
    results = start_all(
        [_plan(service, assembly) for service in services.values()],
        home.state_dirs,
        timeout_s=timeout_s,
        on_result=lambda result: (
            None if result.name == GATEWAY else note(_outcome(services[result.name], result))
        ),
        on_hold=on_hold,
    )
    for result in results:
        if result.name == GATEWAY:
            note(_verified_gateway(_outcome(services[GATEWAY], result), assembly, outcomes))
    order = [*service_names(assembly.stack), *outcomes]
    return tuple(outcomes[name] for name in dict.fromkeys(order) if name in outcomes)


def _plan(service: Service, assembly: Assembly) -> StartPlan:
    tier = service.tier
    if tier is None or tier.lazy or not assembly.config.auto_health_check:
        return StartPlan(service.spec, service.needs_bytes)
    base_url = f"http://{LOOPBACK}:{service.port}/v1"
    verify = partial(ask_one_token, base_url, tier.model, timeout_s=_ONE_TOKEN_TIMEOUT_S)
    return StartPlan(service.spec, service.needs_bytes, verify)


def _verified_gateway(
    outcome: ServiceOutcome, assembly: Assembly, outcomes: dict[str, ServiceOutcome]
) -> ServiceOutcome:
    """The gateway's outcome, after a request through it to a tier that is ready."""
    ready = next(
        (
            tier.name
            for tier in assembly.stack.tiers
            if not tier.lazy
            and tier.name in outcomes
            and outcomes[tier.name].outcome in ("started", "already-running")
        ),
        None,
    )
    if outcome.outcome != "started" or ready is None or not assembly.config.auto_health_check:
        return outcome
    spec = assembly.gateway.spec
    config = assembly.config
    base_url = f"{gateway_url(config.gateway_host, config.litellm_port)}/v1"
    try:
        ask_one_token(
            base_url, ready, key=gateway_key(assembly.gateway), timeout_s=_ONE_TOKEN_TIMEOUT_S
        )
    except SupervisionError as error:
        return outcome.failed(spec.mask(str(error)))
    return outcome


def gateway_key(gateway: Service) -> str:
    """The key that a gateway's clients must give."""
    from mlx_stack.gateway.litellm import MASTER_KEY_VARIABLE

    return gateway.spec.env[MASTER_KEY_VARIABLE]


def _stop_stranger(home: Home, name: str, note: Observer) -> None:
    """Stop a service that the stack no longer defines."""
    try:
        result = stop_service(name, home.state_dirs)
    except SupervisionError as error:
        note(ServiceOutcome(name, "engine", "failed", None, None, 0.0, str(error)))
        return
    if result.outcome in (StopOutcome.GRACEFUL, StopOutcome.FORCED):
        done: Outcome = "stopped" if result.outcome is StopOutcome.GRACEFUL else "forced"
        note(ServiceOutcome(name, "engine", done, result.pid, None, result.seconds))


def _outcome(service: Service, result: StartResult) -> ServiceOutcome:
    error = None
    if result.error is not None:
        tail = result.error.log_tail if isinstance(result.error, NotReadyError) else ()
        error = "\n".join((str(result.error), *tail))
    return ServiceOutcome(
        service.name,
        service.kind,
        _WORDS[result.outcome],
        result.pid,
        service.port,
        result.seconds,
        error,
    )


_WORDS: dict[StartOutcome, Outcome] = {
    StartOutcome.STARTED: "started",
    StartOutcome.ALREADY_RUNNING: "already-running",
    StartOutcome.FAILED: "failed",
    StartOutcome.SKIPPED: "skipped",
}
