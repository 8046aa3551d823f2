"""The services of a stack as processes: what to start, where, with which environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlx_procsup import HttpReadiness, ProcessSpec, StateDirs, WantedState, readable_run
from mlx_stack.engines import vllm_mlx
from mlx_stack.gateway import litellm
from mlx_stack.gateway.endpoint import LIVENESS_PATH, LOOPBACK, gateway_url
from mlx_stack.home import Home
from mlx_stack.stack import Stack, Tier

GATEWAY = "gateway"
WATCHDOG = "watchdog"

type Kind = Literal["engine", "gateway", "watchdog"]

_INHERITED = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"),
        *("LANG", "LC_ALL", "LC_CTYPE"),
        *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
    }
)
"""What a service takes over from the shell that started it; everything else is left behind."""


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack.

    Attributes:
        kind: What it is.
        spec: How it is started.
        port: Where it listens.
        tier: The tier that it serves; None for the gateway.
        load_bytes: The memory that it will hold once loaded; 0 where it doesn't matter.
    """

    kind: Kind
    spec: ProcessSpec
    port: int
    tier: Tier | None = None
    load_bytes: int = 0

    @property
    def name(self) -> str:
        """The name that its files and messages carry."""
        return self.spec.name


def inherited_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The part of the caller's environment that services see."""
    return {name: value for name, value in environment.items() if name in _INHERITED}


def engine_service(
    tier: Tier,
    command: tuple[str, ...],
    *,
    home: Home,
    environment: Mapping[str, str],
    load_bytes: int = 0,
) -> Service:
    """The engine process of `tier`.

    Args:
        tier: The tier to serve.
        command: The engine's command line.
        home: The working directory is its root.
        environment: What `inherited_environment` gave.
        load_bytes: The memory that it will hold once loaded.
    """
    spec = ProcessSpec(
        name=tier.name,
        command=command,
        env={**environment, **vllm_mlx.environment(home.engines / "huggingface")},
        cwd=home.root,
        readiness=HttpReadiness(f"http://{LOOPBACK}:{tier.port}/v1/models"),
    )
    return Service("engine", spec, tier.port, tier, load_bytes)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the gateway is started with.

    Attributes:
        program: LiteLLM's program.
        host: The address it binds.
        port: Its port.
        master_key: The key that clients must give.
        openrouter_key: OpenRouter's key, or "".
        fingerprint: Changes with its configuration file and its keys, which its command line
            doesn't show; a running gateway with another one is out of date.
    """

    program: Path
    host: str
    port: int
    master_key: str
    openrouter_key: str = ""
    fingerprint: str = ""


def gateway_service(
    settings: GatewaySettings, *, home: Home, environment: Mapping[str, str]
) -> Service:
    """The gateway process."""
    secrets = litellm.environment(
        master_key=settings.master_key, openrouter_key=settings.openrouter_key
    )
    spec = ProcessSpec(
        name=GATEWAY,
        command=litellm.command(
            settings.program, home.gateway_config, host=settings.host, port=settings.port
        ),
        env={**environment, **secrets},
        cwd=home.root,
        readiness=HttpReadiness(gateway_url(settings.host, settings.port) + LIVENESS_PATH),
        secret_env=litellm.SECRET_VARIABLES,
        fingerprint=settings.fingerprint,
    )
    return Service("gateway", spec, settings.port)


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
