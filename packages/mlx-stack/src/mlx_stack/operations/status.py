"""What runs and how it feels: reads only, and asks every service at once."""

from dataclasses import asdict, dataclass
from typing import Any

from mlx_procsup import HttpReadiness, ProbeTarget, ServiceState, ServiceStatus, probe_all
from mlx_stack.config import load_config
from mlx_stack.errors import MissingError
from mlx_stack.operations.assembly import assemble
from mlx_stack.operations.hardware import known_hardware
from mlx_stack.paths import Home
from mlx_stack.services import GATEWAY, LOOPBACK, WATCHDOG, Kind, state_dirs
from mlx_stack.stack import Stack, load_stack


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """One service in the answer of `status`.

    Attributes:
        name: The service.
        kind: What it is.
        state: healthy, degraded, down, crashed or stopped.
        model: What a tier serves; None for others.
        port: Where it listens; None for the watchdog.
        pid: Its process; of a crashed service the one that died.
        uptime_s: How long it has run.
        response_ms: How long its answer took.
        memory_bytes: Resident memory, descendants included.
        last_error: What is wrong with it, or None.
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


@dataclass(frozen=True, slots=True)
class StatusReport:
    """The whole answer.

    Attributes:
        hardware: The machine, as `mlx-stack profile --json` gives it.
        gateway_url: The OpenAI-compatible endpoint.
        services: The tiers in the stack's order, the gateway, the watchdog.
        changed: Services that run with another command than the stack file means by now.
    """

    hardware: dict[str, Any]
    gateway_url: str
    services: tuple[ServiceRow, ...]
    changed: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether every engine and the gateway is healthy."""
        return all(row.state == "healthy" for row in self.services if row.kind != "watchdog")

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "hardware": self.hardware,
            "gateway_url": self.gateway_url,
            "services": [asdict(row) for row in self.services],
            "changed": list(self.changed),
        }


def read_status(home: Home) -> StatusReport:
    """The state of every service that the stack defines.

    Raises:
        NoStackError: No stack is defined.
        InvalidFileError: The stack file or the configuration is damaged.
    """
    stack = load_stack(home.stack)
    config = load_config(home)
    targets = [*_tier_targets(stack), _gateway_target(config.litellm_port), ProbeTarget(WATCHDOG)]
    statuses = probe_all(targets, state_dirs(home))
    kinds: list[Kind] = [*("engine" for _ in stack.tiers), "gateway", "watchdog"]
    models = [*(tier.model for tier in stack.tiers), None, None]
    ports = [*(tier.port for tier in stack.tiers), config.litellm_port, None]
    rows = [
        _row(status, kind, model, port)
        for status, kind, model, port in zip(statuses, kinds, models, ports, strict=True)
    ]
    return StatusReport(
        hardware=known_hardware(home).to_json(),
        gateway_url=f"http://{LOOPBACK}:{config.litellm_port}/v1",
        services=tuple(rows),
        changed=_changed(home, statuses),
    )


def _tier_targets(stack: Stack) -> list[ProbeTarget]:
    return [
        ProbeTarget(tier.name, HttpReadiness(f"http://{LOOPBACK}:{tier.port}/v1/models"))
        for tier in stack.tiers
    ]


def _gateway_target(port: int) -> ProbeTarget:
    return ProbeTarget(GATEWAY, HttpReadiness(f"http://{LOOPBACK}:{port}/health/liveliness"))


def _row(status: ServiceStatus, kind: Kind, model: str | None, port: int | None) -> ServiceRow:
    return ServiceRow(
        name=status.name,
        kind=kind,
        state=status.state.value,
        model=model,
        port=port,
        pid=status.pid,
        uptime_s=_rounded(status.uptime_s),
        response_ms=_rounded(status.response_ms),
        memory_bytes=status.memory_bytes,
        last_error=status.last_error,
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)


def _changed(home: Home, statuses: list[ServiceStatus]) -> tuple[str, ...]:
    """The running services that `up` would restart, since the stack file means another command."""
    try:
        assembly = assemble(home, master_key="")
    except MissingError:  # without the engines nothing can be said, and nothing can be started
        return ()
    wanted = {service.name: service.spec.masked_command() for service in assembly.services}
    return tuple(
        status.name
        for status in statuses
        if status.state not in (ServiceState.STOPPED, ServiceState.CRASHED)
        and status.record is not None
        and status.name in wanted
        and status.record.command != wanted[status.name]
    )
