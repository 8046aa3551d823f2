"""LiteLLM as the gateway: its configuration file, its command line and its environment.

Every tier is a model name; so are the tier's catalog id and the user's aliases. Each name carries
the whole fallback chain by itself, since LiteLLM looks fallbacks up by the name that was asked for.
"""

from collections.abc import Container, Mapping
from pathlib import Path

from mlx_stack.stack import Stack, Tier

MASTER_KEY_VARIABLE = "LITELLM_MASTER_KEY"
OPENROUTER_KEY_VARIABLE = "OPENROUTER_API_KEY"
SECRET_VARIABLES = frozenset({MASTER_KEY_VARIABLE, OPENROUTER_KEY_VARIABLE})
"""Environment variables whose values must never be shown."""
CONFIG_DIGEST_HEADER = "x-mlx-stack-config"
"""In the answer of the liveness probe: the SHA-256 of the configuration that is in force."""
CLOUD_NAME = "cloud"
"""The model name of OpenRouter at the gateway, where a key is set."""
CLOUD_MODEL = "openrouter/auto"
"""OpenRouter's own router: it picks a model, so no model name of theirs can grow stale here."""
REQUEST_TIMEOUT_S = 600
"""A prefill of 100,000 tokens takes minutes on a small Mac; a request may take this long."""
HOOKS = Path(__file__).parent / "hooks"
"""Modules that LiteLLM imports in its own environment."""

SILENCE_FIELD = "mlx_stack_silence_s"
"""In a model's `model_info`: how long its engine may say nothing before a request is given up; our
hook's own default where it is missing."""

type Config = dict[str, object]


def build_config(stack: Stack, *, cloud: bool, silent_tiers: Container[str] = ()) -> Config:
    """LiteLLM's configuration for `stack`.

    Args:
        stack: The tiers in order of importance, and the aliases.
        cloud: Whether an OpenRouter key will be in the gateway's environment.
        silent_tiers: Those whose engines say nothing while they read a prompt, however long that
            takes.
    """
    names = model_names(stack)
    return {
        "model_list": [
            *(
                _model(name, tier, is_silent=tier.name in silent_tiers)
                for name, tiers in names.items()
                for tier in tiers
            ),
            *([_cloud_model()] if cloud else []),
        ],
        "router_settings": {
            "fallbacks": [
                {name: chain}
                for name, tiers in names.items()
                if (chain := fallback_chain(stack, tiers[0], cloud=cloud))
            ],
            # the engine would read an overlong prompt for minutes before it fails, or forget half
            "enable_pre_call_checks": True,
            "context_window_fallbacks": [
                {name: chain}
                for name, tiers in names.items()
                if (chain := longer_context_chain(stack, tiers[0], cloud=cloud))
            ],
            # a dead tier refuses at once and a busy one only gets busier: fall back, don't retry
            "num_retries": 0,
            "timeout": REQUEST_TIMEOUT_S,
        },
        "litellm_settings": {
            "request_timeout": REQUEST_TIMEOUT_S,
            "callbacks": ["mlx_stack_gateway.plugin.tier_health"],
            # by way of /v1/responses, `max_tokens` below 16 would be raised to 16
            "use_chat_completions_url_for_anthropic_messages": True,
            "drop_params": True,  # a client's parameter that the engine lacks is no reason to fail
        },
        "general_settings": {
            "master_key": f"os.environ/{MASTER_KEY_VARIABLE}",
            "custom_auth": "mlx_stack_gateway.plugin.authenticate",
        },
    }


def model_names(stack: Stack) -> dict[str, tuple[Tier, ...]]:
    """Every model name that the gateway answers to, with the tiers that serve it.

    A catalog id that several tiers share is served by all of them.
    """
    names: dict[str, tuple[Tier, ...]] = {tier.name: (tier,) for tier in stack.tiers}
    for tier in stack.tiers:
        if all(tier.model != other.name for other in stack.tiers):
            names[tier.model] = (*names.get(tier.model, ()), tier)
    for alias, target in stack.aliases.items():
        names[alias] = tuple(tier for tier in stack.tiers if tier.name == target)
    return names


def fallback_chain(stack: Stack, tier: Tier, *, cloud: bool) -> list[str]:
    """The model names that a request to `tier` is handed on to, in order.

    First the tiers after it in the stack, then those before it, the cloud last.
    """
    position = stack.tiers.index(tier)
    others = [*stack.tiers[position + 1 :], *stack.tiers[:position]]
    return [other.name for other in others] + ([CLOUD_NAME] if cloud else [])


def longer_context_chain(stack: Stack, tier: Tier, *, cloud: bool) -> list[str]:
    """The model names that a prompt too long for `tier` is handed on to, in order.

    Only what is known to take more: tiers with a longer context, shortest first, the cloud last.
    A tier without a stated context refuses nothing, so it needs no chain.
    """
    context_tokens = tier.context_tokens
    if context_tokens is None:
        return []
    longer = [each for each in stack.tiers if (each.context_tokens or 0) > context_tokens]
    longer.sort(key=lambda each: each.context_tokens or 0)
    return [each.name for each in longer] + ([CLOUD_NAME] if cloud else [])


def render_config(config: Config) -> str:
    """The YAML text of `litellm.yaml`; it holds no secret."""
    import yaml

    header = "# Generated by mlx-stack from stacks/default.yaml; changes here are overwritten.\n"
    return header + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def command(program: Path, config: Path, *, host: str, port: int) -> tuple[str, ...]:
    """The gateway's command line."""
    return (
        str(program),
        "--config",
        str(config),
        "--host",
        host,
        "--port",
        str(port),
    )


def environment(*, master_key: str, openrouter_key: str) -> Mapping[str, str]:
    """What the gateway needs in its environment, secrets among it."""
    variables = {
        MASTER_KEY_VARIABLE: master_key,
        # else every start waits for a download of the prices of cloud models
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONPATH": str(HOOKS),
        # none: a page in a browser has no business here
        "LITELLM_CORS_ORIGINS": ",",
        "LITELLM_CORS_ALLOW_CREDENTIALS": "False",
        # no pages for browsers: they would be one more thing to keep closed
        "DISABLE_ADMIN_UI": "True",
        "NO_DOCS": "True",
        "NO_REDOC": "True",
        "PYTHONUNBUFFERED": "1",
    }
    if openrouter_key:
        variables[OPENROUTER_KEY_VARIABLE] = openrouter_key
    return variables


def _model(name: str, tier: Tier, *, is_silent: bool) -> dict[str, object]:
    info = {
        # said outright, since LiteLLM looks names like `gpt-4o` up in a table of cloud models
        "mode": "chat",
        "max_input_tokens": tier.context_tokens,
        SILENCE_FIELD: REQUEST_TIMEOUT_S if is_silent else None,
    }
    return {
        "model_name": name,
        "litellm_params": {
            "model": f"openai/{tier.model}",
            "api_base": f"http://127.0.0.1:{tier.port}/v1",
            "api_key": "none",  # engines listen on loopback and ask for no key
        },
        "model_info": {key: value for key, value in info.items() if value is not None},
    }


def _cloud_model() -> dict[str, object]:
    return {
        "model_name": CLOUD_NAME,
        "litellm_params": {
            "model": CLOUD_MODEL,
            "api_key": f"os.environ/{OPENROUTER_KEY_VARIABLE}",
        },
    }
