"""The list of models as OpenAI's and Anthropic's clients read it. Pure."""

from mlx_gateway.routing import resolve
from mlx_gateway.settings import GatewaySettings


def model_list(settings: GatewaySettings, *, is_anthropics: bool) -> dict[str, object]:
    """Every name of every model."""
    names = list(dict.fromkeys((*settings.models, *settings.aliases)))
    rows = [model_row(settings, name, is_anthropics=is_anthropics) for name in names]
    if is_anthropics:
        return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}
    return {"object": "list", "data": rows}


def model_row(settings: GatewaySettings, name: str, *, is_anthropics: bool) -> dict[str, object]:
    """One name.

    Raises:
        ApiError: When no model has it.
    """
    model = settings.models[resolve(settings, name)]
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
