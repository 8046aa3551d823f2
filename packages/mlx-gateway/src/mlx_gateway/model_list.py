"""The list of models as OpenAI's and Anthropic's clients read it. Pure."""

from http import HTTPStatus

from mlx_gateway.errors import ApiError
from mlx_gateway.keys import ClientKey
from mlx_gateway.routing import resolve
from mlx_gateway.settings import GatewaySettings


def model_list(
    settings: GatewaySettings, client: ClientKey, *, is_anthropics: bool
) -> dict[str, object]:
    """Every name of every model that the client may use."""
    all_names = dict.fromkeys((*settings.models, *settings.aliases))
    names = [name for name in all_names if client.may_use(resolve(settings, name))]
    rows = [model_row(settings, name, client, is_anthropics=is_anthropics) for name in names]
    if is_anthropics:
        first, last = (names[0], names[-1]) if names else (None, None)
        return {"data": rows, "has_more": False, "first_id": first, "last_id": last}
    return {"object": "list", "data": rows}


def model_row(
    settings: GatewaySettings, name: str, client: ClientKey, *, is_anthropics: bool
) -> dict[str, object]:
    """One name.

    Raises:
        ApiError: When no model has it, or the client may not use it.
    """
    resolved = resolve(settings, name)
    if not client.may_use(resolved):
        raise not_allowed(client, resolved)
    model = settings.models[resolved]
    if is_anthropics:
        return {
            "type": "model",
            "id": name,
            "display_name": name,
            "created_at": "1970-01-01T00:00:00Z",
            "context_length": model.context_tokens,
        }
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "mlx-gateway",
        "context_length": model.context_tokens,
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
