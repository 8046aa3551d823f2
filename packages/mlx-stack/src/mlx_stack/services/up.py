"""Start what is not running, side by side as memory allows, and wait until it is ready.

(decision 0016)
"""

import grp
import logging
import os
import pwd
import shlex
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial

from mlx_gateway.access import KEY_VARIABLE
from mlx_procsup import (
    NotReadyError,
    StartPlan,
    StartResult,
    StateDirs,
    SupervisionError,
    WaitsForMemory,
    WantedState,
    WatchEvent,
    is_current,
    locate,
    set_wanted,
    start_all,
)
from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.child_environment import inherited_environment
from mlx_stack.credentials import MASK, ensure_gateway_key
from mlx_stack.engines.kept_prompts import tidy
from mlx_stack.errors import StackError
from mlx_stack.gateway.events import note_start
from mlx_stack.home import Home
from mlx_stack.models.shelf import PREFIX
from mlx_stack.nodes import door
from mlx_stack.open_stack import OpenStack
from mlx_stack.services import panic_reports, panics
from mlx_stack.services.assembly import (
    Assembly,
    assemble,
    chosen,
    guests_seen,
    recorded_port,
    write_gateway_files,
)
from mlx_stack.services.down import stop_one
from mlx_stack.services.engine_door import prove
from mlx_stack.services.gateway_reload import reload_gateway
from mlx_stack.services.groups import without_impossible
from mlx_stack.services.old_prompts import remove_old_prompts
from mlx_stack.services.proof import proof_of
from mlx_stack.services.service import (
    GATEWAY,
    LITELLM,
    WATCHDOG,
    Listens,
    Outcomes,
    Service,
    ServiceEvent,
    ServiceOutcome,
    kind_of,
    known_services,
    service_names,
)
from mlx_stack.services.stack_lock import stack_lock
from mlx_stack.services.watch_log import note_in_log
from mlx_stack.steps import OnEvent, ignore

_log = logging.getLogger("mlx_stack")


def up(
    opened: OpenStack,
    *,
    tier: str | None = None,
    passes_over_missing: bool = False,
    timeout_s: float = READY_TIMEOUT_S,
    on_event: OnEvent[ServiceEvent] = ignore,
) -> Outcomes:
    """Start the services of the stack that are not running, lazy tiers only where one is named.

    What runs already stays, unless the stack means another command or configuration for it by
    now. What the stack no longer defines is stopped. Models without a tier that `down` stopped
    may be started by requests again.

    Args:
        tier: Only this tier, or model without one; None for all tiers and the gateway.
        passes_over_missing: Whether tiers whose model isn't here are left for later.
        timeout_s: How long each service may take, longer while its load visibly progresses.
        on_event: Gets each service that has to wait for memory, and each as soon as it is ready or
            has failed.

    Raises:
        LockHeldError: When another command changes the services.
        StackError: When no stack is defined, a file is damaged, or the engines are not installed.
    """
    # before anything is written: without a stack, or with a mistyped tier, nothing is
    chosen((*service_names(opened.stack), *guests_seen(opened.home.state_dirs)), tier)
    refuse_open_home(opened.home)
    with stack_lock(opened.home, "up"):
        take_panics(opened, tier)
        door.prepare(opened)
        assembly = assemble(opened, gateway_key=ensure_gateway_key(opened.home))
        assembly = without_impossible(opened, assembly, tier)
        return start_services(
            opened.home,
            assembly,
            tier=tier,
            timeout_s=timeout_s,
            on_event=on_event,
            is_wanted=lambda name: not (passes_over_missing and name in assembly.missing),
        )


def take_panics(opened: OpenStack, tier: str | None) -> None:
    """Note this Mac's panics before anything is started; those of what the user names are forgiven.

    Models without a tier can't be named: they are meant by the command for all.

    Args:
        tier: The tier that the user named; None for all.
    """
    home, now = opened.home, time.time()
    for panic in panics.take(home, panic_reports.folder_of(opened.variables), now):
        note_in_log(home, WatchEvent(now, panic.tier, "panic", panic.describe()))
    guests = (name for name in home.state_dirs.names() if name.startswith(PREFIX))
    panics.forgive(home, guests if tier is None else (tier,), now)


def refuse_open_home(home: Home) -> None:
    """Refuse a state folder that other users may write to: services start from it.

    Raises:
        StackError: When another user may write to it, or put another in its place.
    """
    root = home.root
    if root.stat().st_uid != os.geteuid():
        raise StackError(
            f"{root} belongs to another user, and services start from there.",
            hint=f'`sudo chown -R "$USER" {shlex.quote(str(root))}`; then run this again.',
        )
    for folder in (root, *root.resolve().parents):
        status = folder.stat()
        # in a folder like /tmp, nobody can move what belongs to others
        is_sticky = folder != root and bool(status.st_mode & stat.S_ISVTX)
        is_shared = folder == root and _is_shared(status)
        if not is_sticky and (status.st_mode & stat.S_IWOTH or is_shared):
            raise StackError(
                f"Other users of this machine may write to {folder}, and services start from "
                f"{'there' if folder == root else root}.",
                hint=f"`chmod go-w {shlex.quote(str(folder))}`; then run this again.",
            )


def _is_shared(status: os.stat_result) -> bool:
    """Whether a group of more than its owner may write to a folder."""
    if not status.st_mode & stat.S_IWGRP:
        return False
    try:
        owner, group = pwd.getpwuid(status.st_uid), grp.getgrgid(status.st_gid)
    except KeyError:
        return True
    # Linux gives each user a group of the same name
    return group.gr_name != owner.pw_name or bool(set(group.gr_mem) - {owner.pw_name})


def start_services(
    home: Home,
    assembly: Assembly,
    *,
    tier: str | None = None,
    timeout_s: float = READY_TIMEOUT_S,
    on_event: OnEvent[ServiceEvent] = ignore,
    is_wanted: Callable[[str], bool] = lambda _: True,
) -> Outcomes:
    """What `up` does, for a caller that holds the lock.

    Args:
        is_wanted: Services for which it says no are passed over.
    """
    write_gateway_files(home, assembly.gateway_settings)
    reload_gateway(home, assembly.gateway)
    defined = service_names(assembly.stack)
    is_chosen = chosen((*defined, *guests_seen(home.state_dirs)), tier)
    outcomes: dict[str, ServiceOutcome] = {}

    def note(event: ServiceEvent) -> None:
        if isinstance(event, ServiceOutcome):
            outcomes[event.name] = event
            if event.outcome == "started":
                note_start(home, event.name, assembly.stack.tier(event.name), event.seconds)
        on_event(event)

    for cleared in _cleared(home, assembly, tier, is_wanted):
        note(cleared)

    def is_due(name: str) -> bool:
        return is_chosen(name) and is_wanted(name) and name not in outcomes

    for failed in _missing(assembly):
        if is_due(failed.name):
            # so that the watchdog starts it once its model is there
            set_wanted(home.state_dirs, failed.name, WantedState.RUNNING)
            note(failed)
    services = [each for each in assembly.services if is_due(each.name)]
    _start(services, assembly, home, timeout_s, note)
    for problem in remove_old_prompts(home, _may_run_as_before(assembly, outcomes)):
        _log.warning("older prompts may still be in %s", problem)
    tidy(home.kept_prompts, assembly.stack.tiers)
    order = dict.fromkeys((*defined, *outcomes))
    return Outcomes(tuple(outcomes[name] for name in order if name in outcomes))


def _may_run_as_before(
    assembly: Assembly, outcomes: Mapping[str, ServiceOutcome]
) -> tuple[str, ...]:
    """The tiers that were not just seen to run as this version starts them."""
    return tuple(
        tier.name
        for tier in assembly.stack.tiers
        if tier.name not in outcomes
        or outcomes[tier.name].outcome not in ("started", "already-running", "not-running")
    )


def _cleared(
    home: Home, assembly: Assembly, tier: str | None, is_wanted: Callable[[str], bool]
) -> Iterator[ServiceOutcome]:
    """What is stopped, or put to rest, before anything is started."""
    if tier is None:
        yield from _stop_unmeant(home, assembly)
        yield from _at_rest(home, assembly, is_wanted)
    yield from _let_guests_come_again(home.state_dirs, assembly, tier, is_wanted)


def _stop_unmeant(home: Home, assembly: Assembly) -> Iterator[ServiceOutcome]:
    """Stop what runs and the stack doesn't mean, or not as it runs."""
    # LiteLLM comes and goes by itself where it isn't always to run
    guests = (guest.name for guest in assembly.guests)
    meant = (*service_names(assembly.stack), WATCHDOG, LITELLM, *guests)
    names = [name for name in known_services(home) if name not in meant]
    if _is_outdated(home, assembly.litellm):
        names.append(LITELLM)
    for name in names:
        outcome = stop_one(name, home.state_dirs)
        if outcome.outcome in ("stopped", "forced", "failed"):
            yield outcome


def _at_rest(
    home: Home, assembly: Assembly, is_wanted: Callable[[str], bool]
) -> Iterator[ServiceOutcome]:
    """The lazy tiers that don't run: their next request starts them.

    One that runs otherwise than the stack means by now is stopped.
    """
    specs = {service.name: service.spec for service in assembly.engines}
    for tier in assembly.stack.tiers:
        if not tier.lazy or not is_wanted(tier.name):
            continue
        spec, dirs = specs.get(tier.name), home.state_dirs
        found = locate(dirs, tier.name, spec.masked_command() if spec is not None else ())
        if found.own is not None and (spec is None or is_current(spec, found.record)):
            continue
        stopped = stop_one(tier.name, dirs, port=tier.port, rests=True)
        if stopped.outcome == "failed":
            yield stopped
            continue
        set_wanted(dirs, tier.name, WantedState.ON_REQUEST)
        yield ServiceOutcome(tier.name, "not-running", None, tier.port, 0.0, is_at_rest=True)


def _let_guests_come_again(
    dirs: StateDirs, assembly: Assembly, tier: str | None, is_wanted: Callable[[str], bool]
) -> Iterator[ServiceOutcome]:
    """Models without a tier that were stopped, or run otherwise than they should by now.

    The next request for them starts them.
    """
    specs = {guest.name: guest.spec for guest in assembly.guests}
    for name in guests_seen(dirs) if tier is None or tier.startswith(PREFIX) else ():
        found, port = locate(dirs, name), recorded_port(dirs, name)
        if tier not in (None, name) or found.record is None or not is_wanted(name):
            continue
        if found.own is not None and name in specs and is_current(specs[name], found.record):
            if tier is not None:
                yield ServiceOutcome(name, "already-running", found.own.pid, port, 0.0)
            continue
        if found.record.wanted is WantedState.ON_REQUEST and tier is None:
            continue
        stopped = stop_one(name, dirs, port=port, rests=True)
        if stopped.outcome == "failed":
            yield stopped
            continue
        set_wanted(dirs, name, WantedState.ON_REQUEST)
        yield ServiceOutcome(name, "not-running", None, port, 0.0, is_at_rest=True)


def _is_outdated(home: Home, litellm: Service | None) -> bool:
    """Whether a LiteLLM runs that the stack no longer means: of another key or version, or none."""
    found = locate(home.state_dirs, LITELLM)
    return found.own is not None and not (litellm and is_current(litellm.spec, found.record))


def _missing(assembly: Assembly) -> Iterator[ServiceOutcome]:
    """The tiers that can't be started; the stack knows why."""
    for tier in assembly.stack.tiers:
        error = assembly.missing.get(tier.name)
        if error is not None:
            words = f"{error.message} {error.hint or ''}".rstrip()
            yield ServiceOutcome(tier.name, "failed", None, tier.port, 0.0, words)


def _start(
    services: Sequence[Service],
    assembly: Assembly,
    home: Home,
    timeout_s: float,
    note: OnEvent[ServiceEvent],
) -> None:
    """Bring services up side by side; the gateway is asked for an answer when all are there."""
    by_name = {service.name: service for service in services}

    def note_result(event: StartResult | WaitsForMemory) -> None:
        if isinstance(event, WaitsForMemory):
            note(event)
        elif event.name != GATEWAY:
            note(_outcome(by_name[event.name], event))
        elif event.error is None:
            note(Listens(GATEWAY))

    plans = [_plan(service, assembly) for service in services]
    results = start_all(
        plans, home.state_dirs, timeout_s=timeout_s, on_event=note_result, on_loading=note
    )
    for result in results:
        if result.name == GATEWAY:
            note(_verified_gateway(_outcome(by_name[GATEWAY], result), assembly, results))


def _plan(service: Service, assembly: Assembly) -> StartPlan:
    tier = service.tier
    if tier is None or not assembly.config.auto_health_check:
        return StartPlan(service.spec, service.load_bytes)
    proof = proof_of(tier.role, service.dimensions)
    verify = partial(prove, service.spec, tier.model, proof)
    return StartPlan(service.spec, service.load_bytes, verify)


def _verified_gateway(
    outcome: ServiceOutcome, assembly: Assembly, results: Sequence[StartResult]
) -> ServiceOutcome:
    """The gateway's outcome, after a request through it to a tier that is ready."""
    running = {result.name for result in results if result.error is None}
    ready = next((tier for tier in assembly.stack.tiers if tier.name in running), None)
    if outcome.outcome != "started" or ready is None or not assembly.config.auto_health_check:
        return outcome
    spec = assembly.gateway.spec
    try:
        prove(spec, ready.name, proof_of(ready.role), key=spec.env[KEY_VARIABLE])
    except SupervisionError as error:
        return replace(outcome, outcome="failed", error=spec.mask(str(error)))
    return outcome


def _outcome(service: Service, result: StartResult) -> ServiceOutcome:
    error = None
    if result.error is not None:
        tail = result.error.log_tail if isinstance(result.error, NotReadyError) else ()
        error = "\n".join((str(result.error), *tail))
    return ServiceOutcome(
        service.name,
        result.outcome.value,
        result.pid,
        service.port,
        result.seconds,
        error,
    )


@dataclass(frozen=True, slots=True)
class PlannedService:
    """One service as `up --dry-run` shows it.

    Attributes:
        environment: Its variables besides those that come from the shell; secrets masked.
        shell_line: Both as one line for a shell.
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
    """What `up` would run: the exact commands, secrets masked."""

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
        kind_of(service.name),
        service.port,
        spec.masked_command(),
        dict(sorted(shown.items())),
        spec.shell_line(frozenset(own)),
    )
