"""The gateway's settings: `gateway.yaml`, from the stack, the configuration and the models.

Every tier is a model; its catalog id and the user's aliases are more names for it. An id that
several tiers share is a name of the first of them, and the others are the first to stand in for it.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec
import yaml

from mlx_catalog import ModelRole
from mlx_gateway.settings import (
    SCHEMA_VERSION,
    GatewaySettings,
    LiteLlmSettings,
    ModelSettings,
    Role,
    TlsSettings,
    Upstream,
)
from mlx_stack.config import CloudFallback, Config, LiteLlmMode
from mlx_stack.errors import UsageError
from mlx_stack.gateway.endpoint import LOOPBACK
from mlx_stack.gateway.litellm import CLOUD_NAME
from mlx_stack.stack import Stack, Tier

SILENT_S = 600.0
"""How long an engine may say nothing that reads prompts on the thread that answers."""
_MOST_WAITING = 256
_MOST_SOUNDS_WAITING = 8
"""The gateway holds the whole of each in memory."""


@dataclass(frozen=True, slots=True)
class TierAtGateway:
    """What the gateway must know of a tier besides its definition.

    Attributes:
        sees_images: Whether its model reads images; None where that isn't known.
        calls_tools: Whether its engine finds calls of tools in what the model says.
        thinks: Whether its engine tells the model's thoughts from its answers.
        reads_in_silence: Whether its engine says nothing while it reads a prompt.
        dimensions: How long its vectors are, where it makes some; None where that isn't known.
        shortens: Whether the beginning of such a vector is one by itself.
        chat_only: Whether its engine has no APIs for answers but OpenAI's older two.
    """

    sees_images: bool | None = None
    calls_tools: bool | None = None
    thinks: bool | None = None
    reads_in_silence: bool = False
    dimensions: int | None = None
    shortens: bool = False
    chat_only: bool = False


def has_cloud(config: Config) -> bool:
    """Whether there is a way to OpenRouter: a key, and LiteLLM to use it."""
    return bool(config.openrouter_key) and config.litellm is not LiteLlmMode.NEVER


def build_settings(
    stack: Stack,
    config: Config,
    tiers: Mapping[str, TierAtGateway],
    *,
    litellm_port: int,
    node_urls: Mapping[str, str] = MappingProxyType({}),
    tls: TlsSettings | None = None,
) -> GatewaySettings:
    """The gateway's settings for `stack`.

    Args:
        litellm_port: Where LiteLLM listens, once it runs.
        node_urls: Where each node's gateway answers.
        tls: Where other Macs reach this one.

    Raises:
        UsageError: When a tier has a replica on what is no node.
    """
    litellm = f"http://{LOOPBACK}:{litellm_port}"
    models = {
        tier.name: _model(
            tier,
            tiers.get(tier.name, TierAtGateway()),
            fallback_chain(stack, tier, config),
            _replicas(tier, node_urls),
        )
        for tier in stack.tiers
    }
    if has_cloud(config):
        models[CLOUD_NAME] = ModelSettings(
            upstreams=(Upstream(litellm, CLOUD_NAME),),
            takes_overflow=config.cloud_fallback is CloudFallback.ALSO_TOO_LONG,
        )
    return GatewaySettings(
        schema_version=SCHEMA_VERSION,
        host=config.gateway_host,
        port=config.litellm_port,
        ollama_port=config.ollama_port or None,
        models=models,
        tls=tls,
        aliases=_aliases(stack, models),
        litellm=LiteLlmSettings(litellm) if has_cloud(config) else None,
        stable_prompts=config.stable_prompts,
        remote_images=config.remote_images,
    )


def with_model(
    settings: GatewaySettings, tier: Tier, known: TierAtGateway, names: Iterable[str]
) -> GatewaySettings:
    """The settings with a model that is served as `tier` once it is asked for.

    Its first name is the model's, the others are aliases; a name that is taken already is left out.
    """
    free = [name for name in names if name not in settings.models and name not in settings.aliases]
    if not free:
        return settings
    model = msgspec.structs.replace(_model(tier, known), takes_overflow=False)
    return msgspec.structs.replace(
        settings,
        models={**settings.models, free[0]: model},
        aliases={**settings.aliases, **dict.fromkeys(free[1:], free[0])},
    )


def with_names(settings: GatewaySettings, target: str, names: Iterable[str]) -> GatewaySettings:
    """The settings with more names for a model of theirs; those that are taken are left out."""
    free = [name for name in names if name not in settings.models and name not in settings.aliases]
    return msgspec.structs.replace(
        settings, aliases={**settings.aliases, **dict.fromkeys(free, target)}
    )


def render_settings(settings: GatewaySettings) -> str:
    """The YAML text of `gateway.yaml`; it holds no secret."""
    header = "# Generated by mlx-stack from stacks/default.yaml; changes here are overwritten.\n"
    document = msgspec.to_builtins(settings)
    return header + yaml.safe_dump(document, sort_keys=False, allow_unicode=True)


def fallback_chain(stack: Stack, tier: Tier, config: Config) -> tuple[str, ...]:
    """The models that a request to `tier` goes on to, in order.

    First the tiers that serve the same model, so that the model's own name means any of them; then
    the tiers after it in the stack, then those before it, the cloud last. Only what chats has a
    chain, and is in one: vectors and scores of another model would be worse than an error.
    """
    if not tier.role.chats:
        return ()
    position = stack.tiers.index(tier)
    others = [
        each for each in (*stack.tiers[position + 1 :], *stack.tiers[:position]) if each.role.chats
    ]
    others.sort(key=lambda other: other.model != tier.model)
    is_cloud_last = has_cloud(config) and config.cloud_fallback is not CloudFallback.NEVER
    return (*(other.name for other in others), *([CLOUD_NAME] if is_cloud_last else []))


def _replicas(tier: Tier, node_urls: Mapping[str, str]) -> tuple[Upstream, ...]:
    """Where other Macs serve a tier."""
    for each in tier.replicas:
        if each.node not in node_urls:
            raise UsageError(
                f"The tier {tier.name!r} has a replica on {each.node!r}, which is not a node.",
                hint=f"`mlx-stack nodes add URL --name {each.node}`, or take it out of the stack "
                "file.",
            )
    return tuple(Upstream(node_urls[each.node], each.tier, each.node) for each in tier.replicas)


def _model(
    tier: Tier,
    known: TierAtGateway,
    fallbacks: tuple[str, ...] = (),
    replicas: tuple[Upstream, ...] = (),
) -> ModelSettings:
    return ModelSettings(
        upstreams=(Upstream(f"http://{LOOPBACK}:{tier.port}", tier.model), *replicas),
        fallbacks=fallbacks,
        context_tokens=tier.context_tokens,
        # one sound after the other: an engine would let the others wait inside
        max_concurrent=1 if tier.role.is_of_sound else tier.concurrency,
        queue=_MOST_SOUNDS_WAITING if tier.role is ModelRole.SPEECH_TO_TEXT else _MOST_WAITING,
        sees_images=known.sees_images,
        calls_tools=known.calls_tools,
        thinks=known.thinks,
        silence_s=SILENT_S if known.reads_in_silence else None,
        role=Role(tier.role),
        dimensions=known.dimensions,
        shortens=known.shortens,
        chat_only=known.chat_only,
    )


def _aliases(stack: Stack, models: Collection[str]) -> dict[str, str]:
    """More names for the tiers: the user's own first, then the ids of their models.

    Aliases for models on this disk are left to the gateway, which finds these while it runs.
    """
    known = {*models, *(tier.model for tier in stack.tiers)}
    aliases = {
        name: target
        for name, target in stack.aliases.items()
        if name not in models and target in known
    }
    for tier in stack.tiers:
        if tier.model not in models:
            aliases.setdefault(tier.model, tier.name)
    return aliases
