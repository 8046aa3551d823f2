"""The stack file, the configuration, the engines and the models, put together into services."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import msgspec

from mlx_gateway.settings import TlsSettings
from mlx_hwprobe import HwprobeError
from mlx_procsup import StateDirs, WantedState, readable_run
from mlx_recommend import budget_bytes
from mlx_stack import atomic_file
from mlx_stack.config import Config, LiteLlmMode
from mlx_stack.engines import vllm_mlx
from mlx_stack.engines.by_role import environment_name, environment_of
from mlx_stack.engines.environment import USUAL
from mlx_stack.engines.errors import EngineMissingError
from mlx_stack.errors import StackError, UsageError
from mlx_stack.gateway import litellm
from mlx_stack.gateway.settings import TierAtGateway, build_settings, render_settings
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.models.find import local_model_of, pull_name
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import serving_of
from mlx_stack.models.shelf import PREFIX, load_bytes, models_on_disk
from mlx_stack.nodes.file import Nodes, load_nodes
from mlx_stack.open_stack import OpenStack
from mlx_stack.services import panics
from mlx_stack.services.panics import Standing
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
        stack: The stack file, with what it says of tiers that are started smaller.
        missing: Tiers that can't be started, since their model or an engine besides the usual ones
            is not on this disk or the Mac panicked over them, each with what to say about it.
        guests: Models without a tier that a request has started, and that are to run.
    """

    stack: Stack
    config: Config
    engines: tuple[Service, ...]
    gateway: Service
    litellm: Service | None
    gateway_settings: str
    missing: dict[str, StackError]
    guests: tuple[Service, ...] = ()

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service that is to run: the tiers, LiteLLM if it always runs, then the gateway."""
        always = self.config.litellm is LiteLlmMode.ALWAYS
        behind = (self.litellm,) if always and self.litellm is not None else ()
        return (*self.engines, *behind, self.gateway)

    @property
    def watched(self) -> tuple[Service, ...]:
        """The same, and what requests have started besides, the gateway last."""
        return (*self.services[:-1], *self.guests, self.gateway)


def assemble(opened: OpenStack, *, gateway_key: str) -> Assembly:
    """The services that the stack file defines; writes nothing.

    Args:
        gateway_key: What clients must give; it goes into environments only.

    Raises:
        NoStackError: When no stack is defined.
        InvalidFileError: When the stack file or the configuration is damaged.
        UsageError: When a port of the gateway is a tier's as well, or a replica's node is unknown.
        EngineMissingError: When the usual engine that a tier needs, or a LiteLLM that is always to
            run, is not installed.
        InvalidCatalogError: When one of the user's own catalog entries breaks the schema.
    """
    record = panics.read(opened.home)
    stack, config = _as_it_may_run(opened.stack, record), opened.config
    _check_gateway_port(stack, config)
    for tier in stack.tiers:
        if environment_name(tier) in USUAL:
            environment_of(tier, opened.home.engines)
    engines: list[Service] = []
    missing: dict[str, StackError] = {}
    known: dict[str, TierAtGateway] = {}
    for tier in stack.tiers:
        try:
            folder, serving = _served(opened, tier, record)
            known[tier.name] = at_gateway(tier, serving)
            engines.append(_engine_service(opened, tier, folder, serving))
        except StackError as error:
            missing[tier.name] = error
    text = gateway_settings(opened.home, stack, config, load_nodes(opened.home.nodes), known)
    gateway = gateway_service(opened, key=gateway_key, settings_text=text)
    litellm = _litellm_if_any(opened, gateway_key)
    guests = tuple(_guests(opened, record))
    return Assembly(stack, config, tuple(engines), gateway, litellm, text, missing, guests)


def tier_service(opened: OpenStack, tier: Tier) -> Service:
    """The engine of one tier alone.

    Raises:
        StackError: When no engine is installed, or the model is not on this disk.
    """
    environment_of(tier, opened.home.engines)
    record = panics.read(opened.home)
    tier = _tier_as_it_may_run(tier, record)
    return _engine_service(opened, tier, *_served(opened, tier, record))


def _as_it_may_run(stack: Stack, record: panics.Record) -> Stack:
    """The stack file, its tiers as small as they are started after panics of this Mac."""
    tiers = tuple(_tier_as_it_may_run(tier, record) for tier in stack.tiers)
    return msgspec.structs.replace(stack, tiers=tiers)


def _tier_as_it_may_run(tier: Tier, record: panics.Record) -> Tier:
    return panics.smaller(tier) if record.standing(tier.name) is Standing.SMALLER else tier


def _served(opened: OpenStack, tier: Tier, record: panics.Record) -> tuple[Path, vllm_mlx.Serving]:
    """The folder of a tier's model, and how it is served.

    Raises:
        StackError: As of `model_folder`, and where the tier isn't started at all.
    """
    standing = record.standing(tier.name)
    if standing is Standing.NOT_AT_ALL:
        raise panics.refusal(tier.name, record)
    folder = model_folder(opened, tier)
    serving = serving_of(opened.catalog, tier, folder)
    return folder, panics.smaller_serving(serving) if standing is Standing.SMALLER else serving


def at_gateway(tier: Tier, serving: vllm_mlx.Serving) -> TierAtGateway:
    """What the gateway must know of a tier that is served so; its own flags come first."""
    flags = tier.vllm_flags
    if not tier.role.chats:
        return TierAtGateway(dimensions=serving.dimensions, shortens=serving.shortens)
    if tier.is_on_mlx_lm:  # it finds the parsers by itself, from the model's files
        return TierAtGateway(
            sees_images=False,
            chat_only=True,
            calls_tools=bool(serving.tool_call_parser) or None,
            thinks=bool(serving.reasoning_parser) or None,
        )
    return TierAtGateway(
        sees_images=serving.multimodal,
        calls_tools=bool(flags.get("tool-call-parser", serving.tool_call_parser)),
        thinks=bool(flags.get("reasoning-parser", serving.reasoning_parser)),
        reads_in_silence=vllm_mlx.reads_in_silence(tier, serving),
    )


def memory_budget(opened: OpenStack) -> int | None:
    """What all engines together may hold; None where the machine's memory is unknown."""
    try:
        hardware = known_hardware(opened.home)
    except (HwprobeError, StackError):
        return None
    return budget_bytes(hardware, pct=opened.config.memory_budget_pct)


def guest_names(dirs: StateDirs) -> tuple[str, ...]:
    """The services of models without a tier that are to run."""
    return tuple(
        name
        for name in dirs.names()
        if name.startswith(PREFIX)
        and (record := readable_run(dirs, name)) is not None
        and record.wanted is WantedState.RUNNING
    )


def guests_seen(dirs: StateDirs) -> tuple[str, ...]:
    """The services of models without a tier that a request has started, now or some time ago."""
    return tuple(
        name
        for name in dirs.names()
        if name.startswith(PREFIX) and readable_run(dirs, name) is not None
    )


def recorded_port(dirs: StateDirs, name: str) -> int | None:
    """The port of the engine that was last started as this service."""
    record = readable_run(dirs, name)
    return vllm_mlx.served_by(record.command)[1] if record is not None else None


def _guests(opened: OpenStack, record: panics.Record) -> Iterator[Service]:
    names = guest_names(opened.home.state_dirs)
    for model in models_on_disk(opened, memory_budget(opened)).models if names else ():
        port = recorded_port(opened.home.state_dirs, model.tier.name)
        if model.tier.name not in names or port is None:
            continue
        tier = _tier_as_it_may_run(msgspec.structs.replace(model.tier, port=port), record)
        with suppress(StackError):  # what became unusable is stopped with the next `up`
            yield _engine_service(opened, tier, *_served(opened, tier, record))


def _engine_service(
    opened: OpenStack, tier: Tier, folder: Path, serving: vllm_mlx.Serving
) -> Service:
    engine = environment_of(tier, opened.home.engines)
    needs_bytes = load_bytes(folder, tier.macs)
    return engine_service(opened, tier, folder, serving, engine=engine, load_bytes=needs_bytes)


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
    ports = {"litellm-port": config.litellm_port, "ollama-port": config.ollama_port}
    if config.node_host:
        ports["node-port"] = config.node_port
    for key, port in ports.items():
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
    if config.node_host and config.node_port in (config.litellm_port, config.ollama_port):
        raise UsageError(
            f"`node-port` is {config.node_port}, like another port of the gateway.",
            hint="Choose another one: `mlx-stack config set node-port PORT`.",
        )


def gateway_settings(
    home: Home,
    stack: Stack,
    config: Config,
    nodes: Nodes,
    known: Mapping[str, TierAtGateway] = MappingProxyType({}),
) -> str:
    """The text of `gateway.yaml` for a stack; `known` as of `build_settings`."""
    port, urls = litellm_port(stack, config), {node.name: node.url for node in nodes.nodes}
    return render_settings(
        build_settings(
            *(stack, config, known), litellm_port=port, node_urls=urls, tls=_node_door(home, config)
        )
    )


def _node_door(home: Home, config: Config) -> TlsSettings | None:
    """Where other Macs reach this one, if they may."""
    if not config.node_host:
        return None
    files = str(home.node_certificate), str(home.node_key)
    return TlsSettings(config.node_host, config.node_port, *files)


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
    found, is_guest = local_model_of(opened, tier), tier.name.startswith(PREFIX)
    whose = f"The model {tier.model!r}" if is_guest else f"The model of tier {tier.name!r}"
    if found is None:
        raise StackError(
            f"{whose} ({tier.source}, {tier.quant}) is not on this disk.",
            hint=_hint(opened, tier, "downloads"),
        )
    if not found.is_whole:
        raise StackError(
            f"{whose} {found.condition}.",
            hint=found.cure if is_guest else _hint(opened, tier, "completes"),
        )
    ensure_no_code(found.path, tier)
    return found.path


def _hint(opened: OpenStack, tier: Tier, verb: str) -> str:
    name = pull_name(opened, tier)
    if tier.name.startswith(PREFIX):
        return "Put it back."
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
