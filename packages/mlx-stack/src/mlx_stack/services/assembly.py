"""The stack file, the configuration, the engines and the models, put together into services."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mlx_recommend import PROCESS_BYTES
from mlx_stack import atomic_file
from mlx_stack.config import Config, LiteLlmMode
from mlx_stack.engines import vllm_mlx
from mlx_stack.engines.environment import EngineName, Environment, require_environment
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway import litellm
from mlx_stack.gateway.settings import TierAtGateway, build_settings, render_settings
from mlx_stack.home import Home
from mlx_stack.models.find import local_model_of, pull_name
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import serving_of
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.service import (
    GATEWAY,
    LITELLM,
    Service,
    engine_service,
    gateway_service,
    litellm_port,
    litellm_service,
)
from mlx_stack.stack import Stack, Tier, require_tier


@dataclass(frozen=True, slots=True)
class Assembly:
    """Everything that starting and watching needs.

    Attributes:
        engines: The tiers' services, in the order of the stack; those in `missing` left out.
        litellm: LiteLLM's service, whenever it runs; None where it never does.
        gateway_settings: The text of `gateway.yaml` that the stack means.
        missing: Tiers whose model is not on this disk, each with what to say about it.
    """

    stack: Stack
    config: Config
    engines: tuple[Service, ...]
    gateway: Service
    litellm: Service | None
    gateway_settings: str
    missing: dict[str, StackError]

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service that is to run: the tiers, LiteLLM if it always runs, then the gateway."""
        always = self.config.litellm is LiteLlmMode.ALWAYS
        behind = (self.litellm,) if always and self.litellm is not None else ()
        return (*self.engines, *behind, self.gateway)


def assemble(opened: OpenStack, *, gateway_key: str) -> Assembly:
    """The services that the stack file defines; writes nothing.

    Args:
        gateway_key: What clients must give; it goes into environments only.

    Raises:
        NoStackError: When no stack is defined.
        InvalidFileError: When the stack file or the configuration is damaged.
        UsageError: When a port of the gateway is a tier's as well.
        EngineMissingError: When vllm-mlx, or a LiteLLM that is always to run, is not installed.
        InvalidCatalogError: When one of the user's own catalog entries breaks the schema.
    """
    stack, config = opened.stack, opened.config
    _check_gateway_port(stack, config)
    engine = require_environment(opened.home.engines, EngineName.VLLM_MLX)
    engines: list[Service] = []
    missing: dict[str, StackError] = {}
    known: dict[str, TierAtGateway] = {}
    for tier in stack.tiers:
        try:
            folder = model_folder(opened, tier)
            serving = serving_of(opened.catalog, tier, folder)
        except StackError as error:
            missing[tier.name] = error
            continue
        known[tier.name] = TierAtGateway(
            sees_images=serving.multimodal,
            calls_tools=bool(serving.tool_call_parser),
            thinks=bool(serving.reasoning_parser),
            reads_in_silence=vllm_mlx.reads_in_silence(tier, serving),
        )
        engines.append(_engine_service(opened, tier, folder, serving, engine))
    text = gateway_settings(stack, config, known)
    gateway = gateway_service(opened, key=gateway_key, settings_text=text)
    litellm = _litellm_if_any(opened, gateway_key)
    return Assembly(stack, config, tuple(engines), gateway, litellm, text, missing)


def tier_service(opened: OpenStack, name: str) -> Service:
    """The engine of the tier `name` alone.

    Raises:
        StackError: There is no such tier, no engine is installed, or the model is not on this disk.
    """
    tier = opened.stack.tier(name)
    if tier is None:
        raise StackError(f"There is no tier {name!r} any more.")
    engine = require_environment(opened.home.engines, EngineName.VLLM_MLX)
    folder = model_folder(opened, tier)
    return _engine_service(opened, tier, folder, serving_of(opened.catalog, tier, folder), engine)


def _engine_service(
    opened: OpenStack,
    tier: Tier,
    folder: Path,
    serving: vllm_mlx.Serving,
    engine: Environment,
) -> Service:
    return engine_service(
        opened, tier, folder, serving, engine=engine, load_bytes=_load_bytes(folder)
    )


def _litellm_if_any(opened: OpenStack, gateway_key: str) -> Service | None:
    mode = opened.config.litellm
    if mode is LiteLlmMode.NEVER:
        return None
    try:
        return litellm_service(opened, key=gateway_key)
    except EngineMissingError:
        if mode is LiteLlmMode.ALWAYS:
            raise
        return None  # the request that needs it says so


def _check_gateway_port(stack: Stack, config: Config) -> None:
    owners = {tier.port: f"The tier {tier.name!r}" for tier in reversed(stack.tiers)}
    for key, port in (("litellm-port", config.litellm_port), ("ollama-port", config.ollama_port)):
        if port in owners:
            raise UsageError(
                f"{owners[port]} and the gateway share port {port}.",
                hint=f"Give the gateway another with `mlx-stack config set {key}`, or the "
                "tier in the stack file.",
            )
    if config.ollama_port == config.litellm_port:
        raise UsageError(
            f"`ollama-port` and `litellm-port` are both {config.litellm_port}.",
            hint="The gateway's first port answers Ollama's clients as well: "
            "`mlx-stack config reset ollama-port`.",
        )


def gateway_settings(
    stack: Stack, config: Config, known: Mapping[str, TierAtGateway] = MappingProxyType({})
) -> str:
    """The text of `gateway.yaml` for a stack; `known` as of `build_settings`."""
    port = litellm_port(stack, config)
    return render_settings(build_settings(stack, config, known, litellm_port=port))


def write_gateway_files(home: Home, settings_text: str) -> None:
    """Write `gateway.yaml` and `litellm.yaml`; a file that says the same is left alone."""
    texts = ((home.gateway_settings, settings_text), (home.litellm_config, litellm.render_config()))
    for path, text in texts:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic_file.write_text(path, text)


def model_folder(opened: OpenStack, tier: Tier) -> Path:
    """The local folder of a tier's model.

    Raises:
        StackError: It is not there, not whole, or brings Python that wasn't allowed.
    """
    found = local_model_of(opened, tier)
    if found is None:
        raise StackError(
            f"The model of tier {tier.name!r} ({tier.source}, {tier.quant}) is not on this disk.",
            hint=_hint(opened, tier, "downloads"),
        )
    if not found.is_whole:
        raise StackError(
            f"The model of tier {tier.name!r} in {found.path} is {found.integrity}: "
            f"{'; '.join(found.problems)}",
            hint=_hint(opened, tier, "completes"),
        )
    ensure_no_code(found.path, tier)
    return found.path


def _hint(opened: OpenStack, tier: Tier, verb: str) -> str:
    name = pull_name(opened, tier)
    if name is None:
        return f"Put it back, or take the tier out: `mlx-stack init --remove {tier.name}`."
    return f"`mlx-stack pull {name}` {verb} it."


def chosen(names: Iterable[str], tier: str | None) -> Callable[[str], bool]:
    """Which services a command with `--tier` is about: that tier alone, or all of them.

    Raises:
        UsageError: There is no such tier.
    """
    known = [name for name in names if name not in (GATEWAY, LITELLM)]
    if tier is not None:
        require_tier(tier, known)
    return lambda name: tier is None or name == tier


def _load_bytes(folder: Path) -> int:
    """The memory that an engine holds before its first request: the weights and the process."""
    weights_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return weights_bytes + PROCESS_BYTES
