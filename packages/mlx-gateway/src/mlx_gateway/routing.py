"""Which model a name means, and which models a request may go to. Pure.

(decision 0004)
"""

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus

from mlx_gateway.errors import ApiError
from mlx_gateway.settings import GatewaySettings, ModelSettings, Role, Upstream

_NEAR_NAMES = 3
_BYTES_PER_TOKEN_AT_LEAST = 2
"""No ordinary prompt has more tokens than half its bytes: a word piece of English or code has about
four, a Chinese character three bytes and at most about one and a half tokens."""
_BYTES_PER_TOKEN_AT_MOST = 16
"""More than a token of text has, even of long words and of indented code."""
CHATTING = frozenset({Role.CHAT, Role.VISION})
"""The roles whose models may stand in for each other: vectors of another model would be worse than
an error, and so would the scores of another reranker."""
_DOES = {
    Role.CHAT: "chats",
    Role.VISION: "reads images",
    Role.EMBEDDING: "makes embeddings",
    Role.RERANK: "ranks documents",
    Role.SPEECH_TO_TEXT: "transcribes speech",
    Role.TEXT_TO_SPEECH: "speaks",
}


ANSWER_TOKENS = 1024
"""How many tokens could be read while an answer of a usual length is written: writing one takes
about as long as reading eight, and most answers of agents are calls of tools."""


@dataclass(frozen=True, slots=True)
class NodeLoad:
    """What an upstream works on.

    Attributes:
        running: How many requests.
        unread_tokens: What it had not read of their prompts when they came.
    """

    running: int = 0
    unread_tokens: int = 0

    @property
    def outstanding_tokens(self) -> int:
        """The work that is left, at the most, as tokens to be read."""
        return self.unread_tokens + ANSWER_TOKENS * self.running

    def with_one(self, unread_tokens: int) -> "NodeLoad":
        """With one request more."""
        return NodeLoad(self.running + 1, self.unread_tokens + unread_tokens)

    def without_one(self, unread_tokens: int) -> "NodeLoad":
        """With one request less."""
        return NodeLoad(max(self.running - 1, 0), max(self.unread_tokens - unread_tokens, 0))


IDLE = NodeLoad()


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
                f" Did you mean {', '.join(near)}?" if near else f" Available: {', '.join(known)}."
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
    others = [
        each
        for each in dict.fromkeys(models[name].fallbacks)
        if each != name and _may_chat(models[name]) and _may_chat(models[each])
    ]
    others.sort(
        key=lambda each: (settings.is_cloud(models[each].upstreams[0].root), is_at_rest(each))
    )
    return tuple(RouteOption(each, models[each]) for each in (name, *others))


def require_role(settings: GatewaySettings, name: str, roles: Collection[Role]) -> None:
    """Return if the model has one of these roles, or nobody knows its role.

    Raises:
        ApiError: When it has another; the message names the models that have one of these.
    """
    role = settings.models[name].role
    if role is None or role in roles:
        return
    wanted = _DOES[min(roles, key=list(Role).index)]
    able = [other for other, model in settings.models.items() if model.role in roles]
    hint = (
        f"Use {' or '.join(map(repr, able))}."
        if able
        else "No other model on this server does, either."
    )
    raise ApiError(
        HTTPStatus.BAD_REQUEST,
        f"The model {name!r} {_DOES[role]}, but the request needs one that {wanted}. {hint}",
        code="unsupported_model",
        param="model",
    )


def _may_chat(model: ModelSettings) -> bool:
    return model.role is None or model.role in CHATTING


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


def refuse_far_too_long(name: str, text: str, context_tokens: int, param: str) -> None:
    """Return if a text may fit the context; its engine doesn't count what it only reads.

    Args:
        param: The field that holds it.

    Raises:
        ApiError: When no tokenizer makes so few tokens of it.
    """
    most_bytes = context_tokens * _BYTES_PER_TOKEN_AT_MOST
    if len(text) <= most_bytes and len(text.encode("utf-8", "replace")) <= most_bytes:
        return
    raise ApiError(
        HTTPStatus.BAD_REQUEST,
        f"A text in `{param}` is too long for {name}: it has {len(text):,} characters, and the "
        f"model reads {context_tokens:,} tokens.",
        code="context_length_exceeded",
        param=param,
    )


def fewest_tokens(
    upstreams: Sequence[Upstream], loads: Mapping[str, NodeLoad], unseen: Mapping[str, int]
) -> Upstream:
    """The upstream with the fewest outstanding plus unseen tokens, the first of those that tie.

    Args:
        loads: What each works on, by its root; missing for nothing.
        unseen: How many tokens of the prompt each has not read yet, by its root; missing for none.
    """

    def cost(upstream: Upstream) -> tuple[int, int]:
        load = loads.get(upstream.root, IDLE)
        return load.outstanding_tokens + unseen.get(upstream.root, 0), load.running

    return min(upstreams, key=cost)
