"""The stack file, the configuration, the engines and the models, put together into services."""

import hashlib
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from mlx_recommend import PROCESS_OVERHEAD_BYTES
from mlx_stack import atomic_file
from mlx_stack.config import Config
from mlx_stack.engines import vllm_mlx
from mlx_stack.engines.environment import Engine, require_environment
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway import litellm
from mlx_stack.gateway.names import require_tier
from mlx_stack.home import Home
from mlx_stack.models.disk import find_local
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import serving_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.service import (
    GATEWAY,
    GatewaySettings,
    Service,
    engine_service,
    gateway_service,
    inherited_environment,
)
from mlx_stack.stack import Stack, Tier


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that starting and watching needs.

    Attributes:
        stack: The stack file.
        config: The configuration in force.
        engines: The tiers' services, in the order of the stack; those in `missing` left out.
        gateway: The gateway's service.
        gateway_config: The text of `litellm.yaml` that the stack means.
        missing: Tiers whose model is not on this disk, each with what to say about it.
    """

    stack: Stack
    config: Config
    engines: tuple[Service, ...]
    gateway: Service
    gateway_config: str
    missing: dict[str, StackError]

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service that can be started: the tiers, then the gateway."""
        return (*self.engines, self.gateway)


def assemble(opened: OpenStack, *, master_key: str) -> Assembly:
    """The services that the stack file defines; writes nothing.

    Args:
        opened: Where the stack is defined.
        master_key: The gateway's key; it goes into the gateway's environment only.

    Raises:
        NoStackError: No stack is defined.
        InvalidFileError: The stack file or the configuration is damaged.
        UsageError: The gateway's port is a tier's as well.
        EngineMissingError: vllm-mlx or LiteLLM is not installed.
        InvalidCatalogError: One of the user's own catalog entries breaks the schema.
    """
    home, stack, config = opened.home, opened.stack, opened.config
    _check_gateway_port(stack, config)
    vllm_program = require_environment(home.engines, Engine.VLLM_MLX).program("vllm-mlx")
    litellm_program = require_environment(home.engines, Engine.LITELLM).program("litellm")
    variables = inherited_environment()
    engines: list[Service] = []
    missing: dict[str, StackError] = {}
    silent: set[str] = set()
    for tier in stack.tiers:
        try:
            folder = model_folder(config.model_dir, tier)
            serving = serving_of(opened.catalog, tier, folder)
        except StackError as error:
            missing[tier.name] = error
        else:
            if vllm_mlx.reads_in_silence(tier, serving.traits):
                silent.add(tier.name)
            engines.append(
                engine_service(
                    tier,
                    vllm_mlx.command(
                        vllm_program,
                        tier,
                        folder,
                        serving.traits,
                        cache_bytes=serving.cache_bytes,
                    ),
                    home=home,
                    environment=variables,
                    # a lazy tier takes its memory with the first request
                    load_bytes=0 if tier.lazy else _load_bytes(folder),
                )
            )
    text = gateway_config(stack, config, silent_tiers=silent)
    settings = GatewaySettings(
        program=litellm_program,
        host=config.gateway_host,
        port=config.litellm_port,
        master_key=master_key,
        openrouter_key=config.openrouter_key,
        # the part before the colon needs a new process, the rest only a reload
        fingerprint=":".join(
            (
                _digest(master_key, config.openrouter_key),
                _digest(text),
            )
        ),
    )
    gateway = gateway_service(settings, home=home, environment=variables)
    return Assembly(stack, config, tuple(engines), gateway, text, missing)


def _check_gateway_port(stack: Stack, config: Config) -> None:
    for tier in stack.tiers:
        if tier.port == config.litellm_port:
            raise UsageError(
                f"The tier {tier.name!r} and the gateway share port {tier.port}.",
                hint="Give the gateway another with `mlx-stack config set litellm-port`, or the "
                "tier in the stack file.",
            )


def gateway_config(stack: Stack, config: Config, *, silent_tiers: Container[str] = ()) -> str:
    """The text of `litellm.yaml` for a stack; `silent_tiers` as of `litellm.build_config`."""
    cloud = bool(config.openrouter_key)
    return litellm.render_config(
        litellm.build_config(stack, cloud=cloud, silent_tiers=silent_tiers)
    )


def write_gateway_config(home: Home, text: str) -> None:
    """Write `litellm.yaml`; a file that says the same is left alone."""
    path = home.gateway_config
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        atomic_file.write_text(path, text)


def model_folder(model_dir: Path, tier: Tier) -> Path:
    """The local folder of a tier's model.

    Raises:
        StackError: It is not there, not whole, or brings Python that wasn't allowed.
    """
    found = find_local(model_dir, tier.source, tier.quant)
    if found is None:
        raise StackError(
            f"The model of tier {tier.name!r} ({tier.source}, {tier.quant}) is not on this disk.",
            hint=_hint(tier, "downloads"),
        )
    if not found.is_whole:
        raise StackError(
            f"The model of tier {tier.name!r} in {found.path} is {found.integrity}: "
            f"{'; '.join(found.problems)}",
            hint=_hint(tier, "completes"),
        )
    ensure_no_code(found.path, tier)
    return found.path


def _hint(tier: Tier, verb: str) -> str:
    if tier.pull_name is None:
        return f"Put it back, or take the tier out: `mlx-stack init --remove {tier.name}`."
    return f"`mlx-stack pull {tier.pull_name}` {verb} it."


def chosen(names: Iterable[str], tier: str | None) -> Callable[[str], bool]:
    """Which services a command with `--tier` is about: that tier alone, or all of them.

    Raises:
        UsageError: There is no such tier.
    """
    known = [name for name in names if name != GATEWAY]
    if tier is not None:
        require_tier(tier, known)
    return lambda name: tier is None or name == tier


def _load_bytes(folder: Path) -> int:
    """The memory that an engine holds before its first request: the weights and the process."""
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return weights_bytes + PROCESS_OVERHEAD_BYTES


def _digest(*parts: str) -> str:
    """A short digest that tells two configurations apart and gives no part away."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
