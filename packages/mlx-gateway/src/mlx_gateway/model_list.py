"""The list of models as OpenAI's, Anthropic's and Ollama's clients read it. Pure."""

import hashlib
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from http import HTTPStatus

from mlx_gateway.activation import Presence
from mlx_gateway.errors import ApiError
from mlx_gateway.keys import ClientKey
from mlx_gateway.routing import resolve
from mlx_gateway.settings import GatewaySettings, ModelSettings

_LONG_AGO = "1970-01-01T00:00:00Z"
_FOR_EVER = timedelta(days=100_000)
"""About as far away as Ollama puts the end of what it keeps."""
_FAMILY = "mlx"
"""Where Ollama's clients look for a model's facts; they need a name there, and take any."""


def model_list(
    settings: GatewaySettings,
    client: ClientKey,
    loaded: Collection[str],
    *,
    is_anthropics: bool,
) -> dict[str, object]:
    """Every name of every model that the client may use.

    Args:
        loaded: The models that can be asked without a wait for a start.
    """
    names = _names(settings, client)
    rows = [
        model_row(settings, name, client, loaded, is_anthropics=is_anthropics) for name in names
    ]
    if is_anthropics:
        first, last = (names[0], names[-1]) if names else (None, None)
        return {"data": rows, "has_more": False, "first_id": first, "last_id": last}
    return {"object": "list", "data": rows}


def model_row(
    settings: GatewaySettings,
    name: str,
    client: ClientKey,
    loaded: Collection[str],
    *,
    is_anthropics: bool,
) -> dict[str, object]:
    """One name.

    Raises:
        ApiError: When no model has it, or the client may not use it.
    """
    model, is_loaded = _model(settings, name, client), resolve(settings, name) in loaded
    if is_anthropics:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": _LONG_AGO,
            "context_length": model.context_tokens,
            "loaded": is_loaded,
        }
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "mlx-gateway",
        "context_length": model.context_tokens,
        "loaded": is_loaded,
    }


def ollama_tags(settings: GatewaySettings, client: ClientKey) -> dict[str, object]:
    """The same list in Ollama's shape, in which what isn't known is empty or 0, never null."""
    names = _names(settings, client)
    return {"models": [_ollama_row(settings, name) for name in names]}


def ollama_running(
    settings: GatewaySettings,
    client: ClientKey,
    up: Collection[str],
    presence: Callable[[str], Presence | None],
    now: datetime,
) -> dict[str, object]:
    """Those models that are ready, by the name that is their own; `up` holds all of these."""
    rows = [
        {
            **_ollama_row(settings, name),
            "size_vram": 0,
            "context_length": model.context_tokens or 0,
            "expires_at": _ends_at(presence(name), now),
        }
        for name, model in settings.models.items()
        if name in up and client.may_use(name)
    ]
    return {"models": rows}


def _ends_at(presence: Presence | None, now: datetime) -> str:
    """When a model is ended if nobody asks it, as Ollama says it: far away where it is kept."""
    left_s = None if presence is None else presence.rests_in_s
    if presence is not None and presence.state == "ending":
        left_s = 0
    longest_s = _FOR_EVER.total_seconds()
    kept_s = longest_s if left_s is None else min(left_s, longest_s)
    return (now + timedelta(seconds=kept_s)).isoformat(timespec="microseconds")


def ollama_details(settings: GatewaySettings, name: str, client: ClientKey) -> dict[str, object]:
    """What Ollama's clients ask of one model: what it can do, and how long its context is.

    Raises:
        ApiError: When no model has this name, or the client may not use it.
    """
    model = _model(settings, name, client)
    limit = model.context_tokens
    facts = {} if limit is None else {f"{_FAMILY}.context_length": limit}
    can = (model.calls_tools, "tools"), (model.sees_images, "vision"), (model.thinks, "thinking")
    return {
        "license": "",
        "modelfile": "",
        "parameters": "" if limit is None else f"num_ctx {limit}",
        "template": "",
        "details": _details(),
        "model_info": {"general.architecture": _FAMILY, **facts},
        "capabilities": ["completion", *(what for is_able, what in can if is_able)],
        "modified_at": _LONG_AGO,
    }


def not_allowed(client: ClientKey, model: str) -> ApiError:
    """The answer to a client whose key is not for this model."""
    tiers = ", ".join(client.tiers or ()) or "none"
    return ApiError(
        HTTPStatus.FORBIDDEN,
        f"The key {client.name!r} may not use {model!r}. It may use: {tiers}.",
        code="model_not_allowed",
        param="model",
    )


def _names(settings: GatewaySettings, client: ClientKey) -> list[str]:
    """Every name of a model that the client may use."""
    names = dict.fromkeys((*settings.models, *settings.aliases))
    return [name for name in names if client.may_use(resolve(settings, name))]


def _model(settings: GatewaySettings, name: str, client: ClientKey) -> ModelSettings:
    resolved = resolve(settings, name)
    if not client.may_use(resolved):
        raise not_allowed(client, resolved)
    return settings.models[resolved]


def _ollama_row(settings: GatewaySettings, name: str) -> dict[str, object]:
    known_as = settings.models[resolve(settings, name)].upstreams[0].model
    return {
        "name": name,
        "model": name,
        "modified_at": _LONG_AGO,
        "size": 0,
        "digest": hashlib.sha256(known_as.encode()).hexdigest(),
        "details": _details(),
    }


def _details() -> dict[str, object]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": _FAMILY,
        "families": [_FAMILY],
        "parameter_size": "",
        "quantization_level": "",
    }
