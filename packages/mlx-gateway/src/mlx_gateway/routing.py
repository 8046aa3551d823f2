"""Which model a name means, and which models a request may go to. Pure.

(decision 0004)
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from mlx_gateway.errors import ApiError
from mlx_gateway.settings import GatewaySettings, ModelSettings, Upstream

_NEAR_NAMES = 3
_BYTES_PER_TOKEN_AT_LEAST = 2
"""No ordinary prompt has more tokens than half its bytes: a word piece of English or code has about
four, a Chinese character three bytes and at most about one and a half tokens."""


@dataclass(frozen=True, slots=True)
class RouteOption:
    """A model that a request may go to."""

    name: str
    model: ModelSettings


def resolve(settings: GatewaySettings, asked: str) -> str:
    """The model that the name `asked` means: a model's own name or an alias.

    Ollama's clients put `:latest` after a name that has no tag.

    Raises:
        ApiError: When there is no such model; the message names the nearest.
    """
    name = asked
    if name not in settings.models and name not in settings.aliases:
        name = name.removesuffix(":latest")
    while name not in settings.models:
        if name not in settings.aliases:
            known = [*settings.models, *settings.aliases]
            near = difflib.get_close_matches(asked, known, n=_NEAR_NAMES)
            hint = (
                f" Did you mean {', '.join(near)}?" if near else f" There are: {', '.join(known)}."
            )
            raise ApiError(
                HTTPStatus.NOT_FOUND,
                f"The model {asked[:256]!r} does not exist.{hint}",
                code="model_not_found",
                param="model",
            )
        name = settings.aliases[name]
    return name


def candidates(
    settings: GatewaySettings,
    name: str,
    is_at_rest: Callable[[str], bool] = lambda _: False,
) -> tuple[RouteOption, ...]:
    """The model `name`, then those that stand in when it fails, each once.

    Those that would have to start first come after those that run, and the cloud after both.
    """
    models = settings.models
    others = [each for each in dict.fromkeys(models[name].fallbacks) if each != name]
    others.sort(
        key=lambda each: (settings.is_cloud(models[each].upstreams[0].root), is_at_rest(each))
    )
    return tuple(RouteOption(each, models[each]) for each in (name, *others))


def needs_count(model: ModelSettings, prompt_bytes: int) -> bool:
    """Whether a prompt of so many bytes may be too long, so that its tokens must be counted."""
    limit = model.context_tokens
    return limit is not None and prompt_bytes > limit * _BYTES_PER_TOKEN_AT_LEAST


def too_long(name: str, prompt_tokens: int, context_tokens: int) -> ApiError:
    """The answer to a prompt that no model takes.

    Its words are those on which Claude Code compacts a conversation, its code the one on which
    Codex does.
    """
    return ApiError(
        HTTPStatus.BAD_REQUEST,
        f"prompt is too long: {prompt_tokens} tokens > {context_tokens} maximum of {name}",
        code="context_length_exceeded",
        param="messages",
        tokens=(prompt_tokens, context_tokens),
    )


def least_busy(upstreams: Sequence[Upstream], in_flight: dict[str, int]) -> Upstream:
    """The upstream with the fewest requests in flight, the first of those that tie."""
    return min(upstreams, key=lambda upstream: in_flight.get(upstream.root, 0))
