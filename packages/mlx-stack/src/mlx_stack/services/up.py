"""Start what is not running, side by side as memory allows, and wait until it is ready.

(decision 0016)
"""

import shlex
import stat
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial

from mlx_procsup import (
    NotReadyError,
    StartOutcome,
    StartPlan,
    StartResult,
    StopOutcome,
    SupervisionError,
    WantedState,
    acquire_lock,
    is_current,
    locate,
    set_wanted,
    start_all,
    stop_service,
)
from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.child_environment import inherited_environment
from mlx_stack.credentials import MASK, ensure_gateway_key
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import LOOPBACK, gateway_url
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import Assembly, assemble, chosen, write_gateway_files
from mlx_stack.services.gateway_reload import reload_gateway
from mlx_stack.services.one_token import ask_one_token
from mlx_stack.services.outcomes import Outcome, Outcomes, ServiceOutcome
from mlx_stack.services.service import (
    GATEWAY,
    KEY_VARIABLE,
    LITELLM,
    WATCHDOG,
    Kind,
    Service,
    known_services,
    service_names,
)

_ONE_TOKEN_TIMEOUT_S = 120.0

type OnOutcome = Callable[[ServiceOutcome], None]


def up(
    opened: OpenStack,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: OnOutcome = lambda _: None,
    on_hold: Callable[[str], None] = lambda _: None,
) -> Outcomes:
    """Start the services of the stack that are not running.

    What runs already stays, unless the stack means another command or configuration for it by
    now. What the stack no longer defines is stopped.

    Args:
        opened: Where the stack is defined.
        tier: Only this tier; None for all tiers and the gateway.
        timeout_s: How long each service may take, longer while its load visibly progresses.
        on_outcome: Gets each service as soon as it is ready or has failed.
        on_hold: Gets the name of each service that has to wait for memory.

    Raises:
        LockHeldError: When another command changes the services.
        StackError: When no stack is defined, a file is damaged, or the engines are not installed.
    """
    # before anything is written: without a stack, or with a mistyped tier, nothing is
    chosen(service_names(opened.stack), tier)
    _refuse_open_home(opened.home)
    with acquire_lock(opened.home.lock, "up"):
        assembly = assemble(opened, gateway_key=ensure_gateway_key(opened.home))
        return start_services(
            opened.home,
            assembly,
            tier=tier,
            timeout_s=timeout_s,
            on_outcome=on_outcome,
            on_hold=on_hold,
        )


def _refuse_open_home(home: Home) -> None:
    """Return where nobody else may change what is started from the state folder."""
    if home.root.stat().st_mode & stat.S_IWOTH:
        raise StackError(
            f"Every user of this machine may write to {home.root}, and services start from there.",
            hint=f"`chmod go-w {shlex.quote(str(home.root))}`; then run this again.",
        )


def start_services(
    home: Home,
    assembly: Assembly,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_outcome: OnOutcome = lambda _: None,
    on_hold: Callable[[str], None] = lambda _: None,
    is_wanted: Callable[[str], bool] = lambda _: True,
) -> Outcomes:
    """What `up` does, for a caller that holds the lock.

    Args:
        home: The state folder.
        assembly: The services that the stack defines.
        tier: As in `up`.
        timeout_s: As in `up`.
        on_outcome: As in `up`.
        on_hold: As in `up`.
        is_wanted: Services for which it says no are passed over.
    """
    write_gateway_files(home, assembly.gateway_settings)
    reload_gateway(home, assembly.gateway)
    defined = service_names(assembly.stack)
    is_chosen = chosen(defined, tier)
    outcomes: dict[str, ServiceOutcome] = {}

    def note(outcome: ServiceOutcome) -> None:
        outcomes[outcome.name] = outcome
        on_outcome(outcome)

    if tier is None:
        for name in known_services(home):
            # LiteLLM comes and goes by itself where it isn't always to run
            if name not in (*defined, WATCHDOG, LITELLM):
                _stop(home, name, "engine", note)
        if _is_outdated(home, assembly.litellm):
            _stop(home, LITELLM, "litellm", note)
    for outcome in _missing(assembly):
        if is_chosen(outcome.name) and is_wanted(outcome.name):
            # so that the watchdog starts it once its model is there
            set_wanted(home.state_dirs, outcome.name, WantedState.RUNNING)
            note(outcome)
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
    order = dict.fromkeys((*defined, *outcomes))
    return Outcomes(tuple(outcomes[name] for name in order if name in outcomes))


def _missing(assembly: Assembly) -> list[ServiceOutcome]:
    """The tiers that can't be started, since their model is not on this disk."""
    ports = {tier.name: tier.port for tier in assembly.stack.tiers}
    return [
        ServiceOutcome(
            name,
            "engine",
            "failed",
            None,
            ports[name],
            0.0,
            " ".join(filter(None, (error.message, error.hint))),
        )
        for name, error in assembly.missing.items()
    ]


def _plan(service: Service, assembly: Assembly) -> StartPlan:
    tier = service.tier
    if tier is None or tier.lazy or not assembly.config.auto_health_check:
        return StartPlan(service.spec, service.load_bytes)
    base_url = f"http://{LOOPBACK}:{service.port}/v1"
    verify = partial(ask_one_token, base_url, tier.model, timeout_s=_ONE_TOKEN_TIMEOUT_S)
    return StartPlan(service.spec, service.load_bytes, verify)


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
    config, spec = assembly.config, assembly.gateway.spec
    base_url = f"{gateway_url(config.gateway_host, config.litellm_port)}/v1"
    key = spec.env[KEY_VARIABLE]
    try:
        ask_one_token(base_url, ready, key=key, timeout_s=_ONE_TOKEN_TIMEOUT_S)
    except SupervisionError as error:
        return outcome.failed(spec.mask(str(error)))
    return outcome


def _is_outdated(home: Home, litellm: Service | None) -> bool:
    """Whether a LiteLLM runs that the stack no longer means: of another key or version, or none."""
    found = locate(home.state_dirs, LITELLM)
    return found.own is not None and not (litellm and is_current(litellm.spec, found.record))


def _stop(home: Home, name: str, kind: Kind, note: OnOutcome) -> None:
    """Stop a service that the stack doesn't mean as it runs."""
    try:
        result = stop_service(name, home.state_dirs)
    except SupervisionError as error:
        note(ServiceOutcome(name, kind, "failed", None, None, 0.0, str(error)))
        return
    if result.outcome in (StopOutcome.GRACEFUL, StopOutcome.FORCED):
        done: Outcome = "stopped" if result.outcome is StopOutcome.GRACEFUL else "forced"
        note(ServiceOutcome(name, kind, done, result.pid, None, result.seconds))


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


@dataclass(frozen=True, slots=True)
class PlannedService:
    """One service as `up --dry-run` shows it.

    Attributes:
        name: The service.
        kind: What it is.
        port: Where it would listen.
        command: Its command line.
        environment: Its variables besides those that come from the shell; secrets masked.
        shell_line: Both as one line for a shell.
        problem: Why it can't be started, or None.
    """

    name: str
    kind: str
    port: int | None
    command: tuple[str, ...]
    environment: dict[str, str]
    shell_line: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DryRun:
    """What `up` would run: the exact commands, secrets masked.

    Attributes:
        services: In the order of the stack.
    """

    services: tuple[PlannedService, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"dry_run": True, "services": [asdict(each) for each in self.services]}


def plan_up(opened: OpenStack, *, tier: str | None = None) -> DryRun:
    """The services that `up` would start or leave running; nothing is written or started.

    Raises:
        StackError: When no stack is defined, a file is damaged, or the engines are not installed.
    """
    assembly = assemble(opened, gateway_key=MASK)
    defined = service_names(assembly.stack)
    is_chosen = chosen(defined, tier)
    planned = {
        name: PlannedService(name, "engine", None, (), {}, "", error.message)
        for name, error in assembly.missing.items()
    } | {service.name: _planned(service, opened.variables) for service in assembly.services}
    return DryRun(tuple(planned[name] for name in defined if is_chosen(name)))


def _planned(service: Service, variables: Mapping[str, str]) -> PlannedService:
    spec = service.spec
    inherited = inherited_environment(variables)
    own = {name: value for name, value in spec.env.items() if inherited.get(name) != value}
    shown = {name: MASK if name in spec.secret_env else value for name, value in own.items()}
    return PlannedService(
        service.name,
        service.kind,
        service.port,
        spec.masked_command(),
        dict(sorted(shown.items())),
        spec.shell_line(frozenset(own)),
    )
