"""What runs and how it feels: reads only, and asks every service at once."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from mlx_hwprobe import HardwareProfile
from mlx_procsup import (
    HttpReadiness,
    LastLook,
    ProbeTarget,
    ProcessSpec,
    ServiceState,
    ServiceStatus,
    WantedState,
    is_current,
    probe_all,
    read_last_look,
    readable_run,
    tail_with_archive,
)
from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.config import LiteLlmMode
from mlx_stack.credentials import read_gateway_key
from mlx_stack.engines import vllm_mlx
from mlx_stack.errors import StackError
from mlx_stack.gateway.endpoint import LIVENESS_PATH, LOOPBACK, gateway_url, running_url
from mlx_stack.gateway.events import has_been_ready
from mlx_stack.gateway.settings import has_cloud
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.models.shelf import service_of
from mlx_stack.nodes import group
from mlx_stack.open_stack import OpenStack
from mlx_stack.services import panics
from mlx_stack.services.agent_checks import verdicts
from mlx_stack.services.assembly import Assembly, assemble
from mlx_stack.services.at_gateway import AtGateway, ask_gateway
from mlx_stack.services.keep_awake import is_held_by, is_supported
from mlx_stack.services.loading import foresee_service
from mlx_stack.services.role_speeds import MeasuredRate, role_speeds
from mlx_stack.services.service import (
    GATEWAY,
    LITELLM,
    WATCHDOG,
    Kind,
    Service,
    engine_readiness,
    kind_of,
    known_services,
    litellm_port,
)
from mlx_stack.stack import Stack

_SHOWN_DECISIONS = 5
_LONGEST_LOAD_S = 10 * READY_TIMEOUT_S
_WITHOUT_PROCESS = (ServiceState.STOPPED, ServiceState.CRASHED)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service in the answer of `status`.

    Attributes:
        model: What a tier serves; None for others.
        port: Where it listens; None for the watchdog.
        pid: Its process; of a crashed service the one that died.
        memory_bytes: Resident memory, descendants included.
        restarts: How often the watchdog restarted it since the user last acted.
        loaded: Whether a tier has a process; None for others.
        is_at_rest: Whether its next request starts it.
        reason: Why it is not healthy; None where it is, or was stopped.
        wedged: Why it doesn't deliver though it may answer; None where nothing says so.
        last_look_s: Seconds since the watchdog last looked at everything; None of others.
        model_after_up: What `up` makes it serve instead; None where that stays.
        port_after_up: Where `up` makes it listen instead; None where that stays.
        is_defined: Whether the stack still has it; `up` stops what it hasn't.
        requests_running: How many requests it works on; None where the gateway doesn't say.
        requests_waiting: How many more wait for it.
        generation_tps: How fast its last answer was written.
        idle_s: How long it has been unused.
        rests_in_s: When it is ended if no request comes.
        loading_s: How long its load has taken; None where it doesn't load.
        loading_progress: How much of that is done, of 1; None where nothing tells.
        loading_left_s: How long it will take; None where nothing tells.
        waits_for: Those that have to make room in memory before it is started for a request.
        is_asked_for: Whether it loads, or waits for room, since a request needs it.
        panics: How often the Mac panicked over it since the user last named it to start it.
        after_panics: What follows from that, in words; None without a panic.
        agent_check: What its last check said of its fitness for agents; None where there was none.
        role: What a tier's model is for; None for others.
        measured: How fast a tier's model did that when it was measured last, where it isn't chat.
    """

    name: str
    kind: Kind
    state: str
    model: str | None
    port: int | None
    pid: int | None
    uptime_s: float | None
    response_ms: float | None
    memory_bytes: int | None
    last_error: str | None
    restarts: int
    flapping: bool
    loaded: bool | None = None
    is_at_rest: bool = False
    reason: str | None = None
    wedged: str | None = None
    last_look_s: float | None = None
    model_after_up: str | None = None
    port_after_up: int | None = None
    is_defined: bool = True
    requests_running: int | None = None
    requests_waiting: int | None = None
    generation_tps: float | None = None
    idle_s: float | None = None
    rests_in_s: float | None = None
    loading_s: float | None = None
    loading_progress: float | None = None
    loading_left_s: float | None = None
    waits_for: tuple[str, ...] = ()
    is_asked_for: bool = False
    panics: int = 0
    after_panics: str | None = None
    agent_check: str | None = None
    role: str | None = None
    measured: MeasuredRate | None = None

    @property
    def is_as_meant(self) -> bool:
        """Whether it is healthy, at rest, or just being started for a request."""
        return self.state == "healthy" or self.is_at_rest or self.is_asked_for

    @property
    def is_under_way(self) -> bool:
        """Whether it is about to be healthy."""
        return bool(self.waits_for) or self.loading_s is not None

    @property
    def shown_state(self) -> str:
        """The state in words for people."""
        if self.waits_for:
            return "waiting"
        if self.loading_s is not None:
            return "loading"
        return "unloaded" if self.is_at_rest else self.state

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        row = asdict(self)
        del row["is_at_rest"], row["is_asked_for"]
        return row


@dataclass(frozen=True, slots=True)
class AwakeStatus:
    """Whether the machine is kept from sleeping.

    Attributes:
        supported: Whether there is such a thing here: only macOS has it.
    """

    policy: str
    held: bool
    supported: bool


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole answer.

    Attributes:
        hardware: The machine, as `mlx-stack profile --json` gives it.
        changed: Services that run with another command than the stack file means by now.
        decisions: The last lines of the watchdog's log.
    """

    hardware: dict[str, Any]
    gateway_url: str
    services: tuple[ServiceRow, ...]
    changed: tuple[str, ...]
    decisions: tuple[str, ...]
    keep_awake: AwakeStatus

    @property
    def is_healthy(self) -> bool:
        """Whether the gateway is healthy, and every engine that, at rest, or starts on request."""
        return all(
            row.is_as_meant
            for row in self.services
            if row.kind in ("engine", "gateway") and row.is_defined
        )

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "hardware": self.hardware,
            "gateway_url": self.gateway_url,
            "services": [row.to_document() for row in self.services],
            "changed": list(self.changed),
            "decisions": list(self.decisions),
            "keep_awake": asdict(self.keep_awake),
        }


def read_status(opened: OpenStack, *, hardware: HardwareProfile | None = None) -> StatusReport:
    """The state of every service that the stack defines, and of what still runs without it.

    A service that runs is shown with the model and the port that it was started with.

    Raises:
        NoStackError: When no stack is defined.
        InvalidFileError: When the stack file or the configuration is damaged.
    """
    home, config = opened.home, opened.config
    assembly = _assembled(opened)
    meant = {each.name: each for each in assembly.watched} if assembly is not None else {}
    specs = {name: each.spec for name, each in meant.items()}
    shown = _shown(opened, specs)
    statuses = probe_all([each.target for each in shown], home.state_dirs)
    rows = [_row(status, each) for status, each in zip(statuses, shown, strict=True)]
    rows = [row for row in rows if row.is_defined or row.state not in ("stopped", "crashed")]
    record = panics.read(home)
    rows = [_with_panics(row, record) for row in rows]
    checked = verdicts(opened)
    rows = [replace(row, agent_check=checked.get(row.name)) for row in rows]
    roles, speeds = {tier.name: tier.role for tier in opened.stack.tiers}, role_speeds(opened)
    rows = [replace(row, role=roles.get(row.name), measured=speeds.get(row.name)) for row in rows]
    rows[-1] = _with_last_look(rows[-1], read_last_look(home.state_dirs), time.time())
    configured_url = gateway_url(config.gateway_host, config.litellm_port)
    said: dict[str, AtGateway] = {}
    if any(row.kind == "gateway" and row.state == "healthy" for row in rows):
        said = ask_gateway(home, running_url(home) or configured_url)
        rows = [*_never_started(rows, said), *rows]
    rows = [_with_requests(row, said.get(row.name)) for row in rows]
    rows = [_with_load(home, row, said.get(row.name), meant.get(row.name)) for row in rows]
    engines = [row for row in rows if row.kind == "engine"]
    ranks = [rank for row in engines for rank in _ranks(opened, row)]
    replicas = _replicas(opened.stack, said)
    rows = [*engines, *ranks, *replicas, *rows[len(engines) :]]
    return StatusReport(
        hardware=(hardware or known_hardware(home)).to_document(),
        gateway_url=f"{running_url(home) or configured_url}/v1",
        services=tuple(rows),
        changed=_changed(specs, statuses),
        decisions=tuple(tail_with_archive(home.state_dirs.log_file(WATCHDOG), _SHOWN_DECISIONS)),
        keep_awake=_keep_awake(config.keep_awake, rows[-1]),
    )


def _target(
    name: str, readiness: HttpReadiness | None, specs: dict[str, ProcessSpec]
) -> ProbeTarget:
    command = specs[name].masked_command() if name in specs else ()
    return ProbeTarget(name, readiness, command)


@dataclass(frozen=True, slots=True)
class _Shown:
    """A service to look at.

    Attributes:
        model: What it serves, as it was started; what the stack file says where it wasn't.
        port: Where it listens, likewise.
        meant: The model and the port that the stack file and the configuration say.
    """

    target: ProbeTarget
    model: str | None = None
    port: int | None = None
    meant: tuple[str | None, int | None] = (None, None)
    is_defined: bool = True


def _shown(opened: OpenStack, specs: dict[str, ProcessSpec]) -> list[_Shown]:
    """The tiers in their order, then processes without a tier, the gateway and what is behind."""
    home, stack, config = opened.home, opened.stack, opened.config
    names = [*(tier.name for tier in stack.tiers), *known_services(home)]
    shown = [
        _shown_engine(opened, name, specs)
        for name in dict.fromkeys(names)
        if kind_of(name) == "engine"
    ]
    url = running_url(home) or gateway_url(config.gateway_host, config.litellm_port)
    target = _target(GATEWAY, HttpReadiness(url + LIVENESS_PATH), specs)
    shown.append(_Shown(target, None, urlsplit(url).port, (None, config.litellm_port)))
    if has_cloud(config) or config.litellm is LiteLlmMode.ALWAYS:
        port = litellm_port(stack, config)
        url = f"http://{LOOPBACK}:{port}{LIVENESS_PATH}"
        shown.append(_Shown(_target(LITELLM, HttpReadiness(url), specs), None, port, (None, port)))
    return [*shown, _Shown(ProbeTarget(WATCHDOG))]


def _shown_engine(opened: OpenStack, name: str, specs: dict[str, ProcessSpec]) -> _Shown:
    dirs, tier = opened.home.state_dirs, opened.stack.tier(name)
    record = readable_run(dirs, name)
    model, port = (tier.model, tier.port) if tier is not None else (None, None)
    meant = (model, port)
    if record is not None and record.identity is not None:
        runs = vllm_mlx.served_by(record.command)
        model, port = runs[0] or model, runs[1] or port
    is_guest = tier is None and name in specs
    if is_guest:
        meant = (model, port)
    readiness = engine_readiness(name, port, dirs) if port is not None else None
    is_defined = tier is not None or is_guest
    return _Shown(_target(name, readiness, specs), model, port, meant, is_defined=is_defined)


def _row(status: ServiceStatus, shown: _Shown) -> ServiceRow:
    record, is_there = status.record, status.state not in _WITHOUT_PROCESS
    model, port = shown.meant
    return ServiceRow(
        name=status.name,
        kind=kind_of(status.name),
        state=status.state.value,
        model=shown.model,
        port=shown.port,
        pid=status.pid,
        uptime_s=_rounded(status.uptime_s),
        response_ms=_rounded(status.response_ms),
        memory_bytes=status.memory_bytes,
        last_error=status.last_error,
        restarts=len(record.restarts) if record is not None else 0,
        flapping=record is not None and record.flapping,
        loaded=is_there if kind_of(status.name) == "engine" else None,
        is_at_rest=status.state is ServiceState.STOPPED
        and record is not None
        and record.wanted is WantedState.ON_REQUEST,
        reason=_reason(status),
        wedged=status.wedged,
        model_after_up=model if is_there and model != shown.model else None,
        port_after_up=port if is_there and port != shown.port else None,
        is_defined=shown.is_defined,
    )


def _reason(status: ServiceStatus) -> str | None:
    """Why a service is not healthy."""
    if status.state in (ServiceState.HEALTHY, ServiceState.STOPPED):
        return None
    if status.last_error is None and status.response_ms is not None:
        return f"it answers only after {status.response_ms / 1000:.1f} s"
    return status.last_error


def _with_requests(row: ServiceRow, said: AtGateway | None) -> ServiceRow:
    """A tier's row with what the gateway says of it."""
    if said is None or row.kind not in ("engine", "replica"):
        return row
    return replace(
        row,
        requests_running=said.requests_running,
        requests_waiting=said.requests_waiting,
        generation_tps=_rounded(said.generation_tps),
        idle_s=_rounded(said.for_s) if said.state == "up" else None,
        rests_in_s=_rounded(said.rests_in_s),
        reason=row.reason or said.problem or None,
    )


def _never_started(rows: list[ServiceRow], said: dict[str, AtGateway]) -> Iterator[ServiceRow]:
    """Models without a tier that were asked for, and refused or let wait before they had a process.

    They are where tiers are; nothing on this disk knows of them.
    """
    known = {row.name for row in rows}
    for each in {id(each): each for each in said.values()}.values():
        name = service_of(each.name)
        if (
            {name, each.name}.isdisjoint(known)
            and each.node is None
            and (each.problem or each.waits_for)
        ):
            yield ServiceRow(
                name=name,
                kind="engine",
                state=ServiceState.STOPPED.value,
                model=each.name,
                port=None,
                pid=None,
                uptime_s=None,
                response_ms=None,
                memory_bytes=None,
                last_error=None,
                restarts=0,
                flapping=False,
                loaded=False,
                is_at_rest=True,
            )


def _replicas(stack: Stack, said: dict[str, AtGateway]) -> Iterator[ServiceRow]:
    """The tiers on other Macs, as far as the gateway that runs knows them."""
    for tier in stack.tiers:
        for each in tier.replicas:
            name = each.shown(tier.name)
            at_gateway = said.get(name)
            is_up = at_gateway.is_up if at_gateway is not None else None
            state = ServiceState.HEALTHY if is_up else ServiceState.DOWN
            row = _elsewhere(
                *(name, "replica", ServiceState.STOPPED if is_up is None else state, tier.model),
                last_error="it does not answer" if is_up is False else None,
                reason="it does not answer; others get its requests" if is_up is False else None,
            )
            yield _with_requests(row, at_gateway)


def _ranks(opened: OpenStack, row: ServiceRow) -> Iterator[ServiceRow]:
    """The parts of a tier's model, where it runs on several Macs: it is as well as the tier is."""
    tier = opened.stack.tier(row.name)
    if tier is None or not tier.workers:
        return
    known = group.read_ranks(opened.home.run, tier.name)
    for rank, host in enumerate(group.hosts_of(tier)):
        found = known.of(rank, host, row.pid) if known is not None else None
        state, reason = ServiceState(row.state), None
        if found is not None and found.state is group.RankState.ENDED:
            state, reason = ServiceState.CRASHED, found.reason
        elif found is not None and found.state is group.RankState.STARTING and row.loaded:
            state, reason = ServiceState.DOWN, "it is being started"
        elif state is ServiceState.CRASHED:
            reason = "it was ended with the others"
        elif state is not ServiceState.HEALTHY:
            reason = row.reason
        name = group.rank_name(tier.name, rank)
        error = reason if state is ServiceState.CRASHED else None
        yield _elsewhere(
            *(f"{name}@{host}", "rank", state, tier.model), last_error=error, reason=reason
        )


def _elsewhere(
    name: str,
    kind: Kind,
    state: ServiceState,
    model: str,
    *,
    last_error: str | None = None,
    reason: str | None = None,
) -> ServiceRow:
    """A row of what is no service of this Mac."""
    return ServiceRow(
        name=name,
        kind=kind,
        state=state.value,
        model=model,
        port=None,
        pid=None,
        uptime_s=None,
        response_ms=None,
        memory_bytes=None,
        last_error=last_error,
        restarts=0,
        flapping=False,
        reason=reason,
    )


def _with_load(
    home: Home, row: ServiceRow, said: AtGateway | None, service: Service | None
) -> ServiceRow:
    """A tier's row with how far its load is.

    One that nobody waits for at the gateway loads if it has not been ready since it was started.
    """
    is_asked_for = said is not None and said.state == "starting"
    if said is not None and said.waits_for:
        return replace(row, waits_for=said.waits_for, is_asked_for=True)
    if service is None or row.kind != "engine" or row.state != "down" or row.wedged:
        return row
    called, seconds = (said.name if said is not None else row.name), row.uptime_s or 0.0
    if not is_asked_for and (
        seconds > _LONGEST_LOAD_S or has_been_ready(home, called, time.time() - seconds)
    ):
        return row
    load = foresee_service(home, service, called, seconds=seconds, held_bytes=row.memory_bytes)
    return replace(
        row,
        last_error=None,
        reason="it is loading",
        loading_s=_rounded(load.seconds),
        loading_progress=None if load.progress is None else round(load.progress, 3),
        loading_left_s=_rounded(load.left_s),
        is_asked_for=is_asked_for,
    )


def _with_panics(row: ServiceRow, record: panics.Record) -> ServiceRow:
    """The row with what is held against it."""
    held = record.held_against(row.name)
    if not held:
        return row
    words = panics.words_of(row.name, record)
    reason = row.reason
    if record.standing(row.name) is panics.Standing.NOT_AT_ALL and not row.loaded:
        reason = words
    return replace(row, panics=len(held), after_panics=words, reason=reason)


def _with_last_look(row: ServiceRow, look: LastLook | None, now: float) -> ServiceRow:
    """The watchdog's row: one that lives and doesn't look watches nothing."""
    if row.state != ServiceState.HEALTHY or look is None or look.pid != row.pid:
        return row
    ago_s = max(now - look.at, 0.0)
    row = replace(row, last_look_s=round(ago_s, 1))
    if not look.is_late(now):
        return row
    reason = f"it has not checked anything for {ago_s:.0f} s"
    return replace(row, state=ServiceState.DOWN.value, reason=reason, last_error=reason)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _assembled(opened: OpenStack) -> Assembly | None:
    """What each service should run, as far as that can be said: without the engines, nothing."""
    try:
        return assemble(opened, gateway_key=read_gateway_key(opened.home) or "")
    except StackError:
        return None


def _changed(specs: dict[str, ProcessSpec], statuses: list[ServiceStatus]) -> tuple[str, ...]:
    """The running services that `up` would restart, since the stack means another command."""
    return tuple(
        status.name
        for status in statuses
        if status.state not in _WITHOUT_PROCESS
        and status.record is not None
        and status.name in specs
        and not is_current(specs[status.name], status.record)
    )


def _keep_awake(policy: str, watchdog: ServiceRow) -> AwakeStatus:
    held = watchdog.state == "healthy" and watchdog.pid is not None and is_held_by(watchdog.pid)
    return AwakeStatus(policy, held=held, supported=is_supported())
