"""The services of a stack as processes: what to start, where, with which environment."""

import hashlib
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from mlx_gateway.access import KEY_VARIABLE
from mlx_procsup import (
    HttpReadiness,
    Loading,
    ProcessSpec,
    StateDirs,
    WaitsForMemory,
    WantedState,
    readable_run,
)
from mlx_stack.child_environment import inherited_environment
from mlx_stack.config import Config, KeepAwake
from mlx_stack.engines import guard, kept_on_disk, mlx_lm, vllm_mlx
from mlx_stack.engines.by_role import engine_of
from mlx_stack.engines.environment import EngineName, Environment, require_environment
from mlx_stack.gateway import endpoint, litellm
from mlx_stack.gateway.endpoint import LIVENESS_PATH, LOOPBACK, gateway_url
from mlx_stack.home import HOME_VARIABLE, Home
from mlx_stack.nodes import group
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.engine_door import latest_asker
from mlx_stack.stack import Stack, Tier

GATEWAY = endpoint.GATEWAY
LITELLM = "litellm"
WATCHDOG = "watchdog"

_OF_THE_HUB = frozenset({"HF_ENDPOINT", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"})
"""What a pull from the page must know; a token is read from its file."""

_GROUP_CHECK = "mlx_stack.services.groups"
"""The module whose `main` says what speaks against the start of a tier on several Macs."""

type Kind = Literal["engine", "rank", "replica", "gateway", "litellm", "watchdog"]
type OutcomeWord = Literal[
    "started",
    "already-running",
    "failed",
    "skipped",
    "stopped",
    "forced",
    "not-running",
    "stale-removed",
]
"""What `up` and `down` did, in the words of mlx-procsup."""

_KINDS: dict[str, Kind] = {GATEWAY: "gateway", LITELLM: "litellm", WATCHDOG: "watchdog"}


def kind_of(name: str) -> Kind:
    """What the service of that name is: no tier may have the name of another kind."""
    return _KINDS.get(name, "engine")


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack.

    Attributes:
        tier: The tier that it serves; None for the gateway.
        load_bytes: The memory that it will hold once loaded; 0 where it doesn't matter.
        dimensions: How long its vectors are; None where it makes none, or that isn't known.
    """

    spec: ProcessSpec
    port: int
    tier: Tier | None = None
    load_bytes: int = 0
    dimensions: int | None = None

    @property
    def name(self) -> str:
        """The name that its files and messages carry."""
        return self.spec.name


@dataclass(frozen=True, slots=True)
class ServiceOutcome:
    """What became of one service.

    Attributes:
        error: Why it failed or was skipped, with the end of its log; else None.
        is_at_rest: Whether the next request for it starts it.
    """

    name: str
    outcome: OutcomeWord
    pid: int | None
    port: int | None
    seconds: float
    error: str | None = None
    is_at_rest: bool = False

    def to_document(self) -> dict[str, object]:
        """One row of the JSON answer."""
        row = {"name": self.name, "kind": kind_of(self.name), **asdict(self)}
        del row["is_at_rest"]
        return {**row, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True, slots=True)
class Listens:
    """The gateway listens; whether an answer comes through it shows once the tiers are ready."""

    name: str


type ServiceEvent = ServiceOutcome | WaitsForMemory | Loading | Listens


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What `up` or `down` did."""

    services: tuple[ServiceOutcome, ...]

    @property
    def is_success(self) -> bool:
        """Whether nothing failed and nothing had to be left out."""
        return all(each.outcome not in ("failed", "skipped") for each in self.services)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"services": [each.to_document() for each in self.services]}


def engine_service(
    opened: OpenStack,
    tier: Tier,
    folder: Path,
    serving: vllm_mlx.Serving,
    *,
    engine: Environment,
    load_bytes: int = 0,
    dirs: StateDirs | None = None,
) -> Service:
    """The engine process of `tier`.

    Args:
        opened: Where it works, and what it inherits.
        dirs: Where its state is kept; by default with that of the stack's services.
    """
    home = opened.home
    kept = _kept_bounds(home, tier) if dirs is None else ""
    dirs = dirs or home.state_dirs
    program = engine_of(tier)
    command = program.command(vllm_mlx.guarded(engine), tier, folder, serving)
    environment = program.environment(home.engines / "huggingface")
    if tier.workers:
        plan = group.Plan(
            tier=tier.name,
            run=str(dirs.run),
            own_address=tier.own_address,
            ring_port=tier.ring_port(0),
            rdma=tier.rdma_devices,
            workers=tier.workers,
            model=folder.name,
            arguments=mlx_lm.rank_arguments(tier, serving),
            environment=environment,
            keeps_awake=opened.config.keep_awake != KeepAwake.NEVER,
            check=(sys.executable, "-P", "-m", _GROUP_CHECK, str(home.root), tier.name),
        )
        command, environment = group.command(plan, command), group.environment(opened.variables)
    spec = ProcessSpec(
        name=tier.name,
        command=command,
        env={
            **inherited_environment(opened.variables),
            **environment,
            guard.SCRATCH_VARIABLE: str(dirs.run / f"{tier.name}.tmp"),
            **({kept_on_disk.VARIABLE: kept} if kept else {}),
        },
        cwd=home.root,
        readiness=engine_readiness(tier.name, tier.port, dirs),
        start_secret=guard.SECRET_VARIABLE,
        fingerprint=kept,
    )
    return Service(spec, tier.port, tier, load_bytes, serving.dimensions)


def _kept_bounds(home: Home, tier: Tier) -> str:
    """Where the tier's engine keeps conversations on disk; "" where it keeps none."""
    if tier.ssd_cache_gb is None:
        return ""
    return kept_on_disk.DiskBounds(
        home.kept_prompts / tier.name, tier.ssd_cache_gb * 10**9
    ).render()


def engine_readiness(tier: str, port: int, dirs: StateDirs) -> HttpReadiness:
    """How to ask whether the engine of the tier of that name, on that port, is ready."""
    url = f"http://{LOOPBACK}:{port}/v1/models"
    return HttpReadiness(url, ask=latest_asker(dirs, tier))


def gateway_service(opened: OpenStack, *, key: str, settings_text: str) -> Service:
    """The gateway process.

    Args:
        opened: Where it listens, and the state folder, from which it reads everything else.
        key: What clients must give; it travels in the environment.
    """
    home, config = opened.home, opened.config
    host, port = config.gateway_host, config.litellm_port
    ports = (port, config.ollama_port) if config.ollama_port else (port,)
    doors = (config.node_host, str(config.node_port), _authority(home)) if config.node_host else ()
    inherited = inherited_environment(opened.variables, also=_OF_THE_HUB)
    url = gateway_url(host, port)
    spec = ProcessSpec(
        name=GATEWAY,
        # the address at the end tells whoever reads the run file, or `ps`, where this one answers
        command=(sys.executable, "-P", "-m", "mlx_stack.gateway_process", url),
        env={**inherited, HOME_VARIABLE: str(home.root), KEY_VARIABLE: key},
        cwd=home.root,
        readiness=HttpReadiness(url + LIVENESS_PATH),
        secret_env=frozenset({KEY_VARIABLE}),
        # the part before the colon needs a new process, the rest only a reload
        fingerprint=f"{_digest(key, host, *map(str, ports), *doors)}:{_digest(settings_text)}",
    )
    return Service(spec, port)


def _authority(home: Home) -> str:
    """What this Mac is known by to others; "" where it has nothing yet."""
    try:
        return home.node_ca.read_text(errors="replace")
    except OSError:
        return ""


def litellm_service(opened: OpenStack, *, key: str) -> Service:
    """LiteLLM's process; `key` is the gateway's, which implies LiteLLM's own.

    Raises:
        EngineMissingError: When it is not installed.
    """
    home, config = opened.home, opened.config
    program = require_environment(home.engines, EngineName.LITELLM).program("litellm")
    port = litellm_port(opened.stack, config)
    variables = litellm.environment(
        master_key=litellm.master_key(key), openrouter_key=config.openrouter_key
    )
    spec = ProcessSpec(
        name=LITELLM,
        command=litellm.command(program, home.litellm_config, host=LOOPBACK, port=port),
        env={**inherited_environment(opened.variables), **variables},
        cwd=home.root,
        readiness=HttpReadiness(f"http://{LOOPBACK}:{port}{LIVENESS_PATH}"),
        secret_env=litellm.SECRET_VARIABLES,
        fingerprint=_digest(key, config.openrouter_key, litellm.render_config()),
    )
    return Service(spec, port)


def litellm_port(stack: Stack, config: Config) -> int:
    """Where LiteLLM listens: the first port above the gateway's that nothing else here has."""
    taken = {config.ollama_port, *(tier.port for tier in stack.tiers)}
    port = config.litellm_port + 1
    while port in taken:
        port += 1
    return port


def service_names(stack: Stack) -> list[str]:
    """The names of a stack's services: the tiers in their order, then the gateway."""
    return [*(tier.name for tier in stack.tiers), GATEWAY]


def known_services(home: Home) -> tuple[str, ...]:
    """The services that left traces in the state folder, whatever the stack file says.

    They have a PID file, or were started and not stopped, or could not be started yet.
    """
    dirs = home.state_dirs
    return tuple(
        name for name in dirs.names() if dirs.pid_file(name).exists() or _is_wanted(dirs, name)
    )


def _is_wanted(dirs: StateDirs, name: str) -> bool:
    record = readable_run(dirs, name)
    return record is not None and record.wanted is WantedState.RUNNING


def _digest(*parts: str) -> str:
    """A short digest that tells two configurations apart and gives no part away."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
