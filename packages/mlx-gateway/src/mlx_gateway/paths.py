"""Every path that a gateway answers by itself, and the API that is spoken there."""

from collections.abc import Mapping

from mlx_gateway.protocols.api import Api
from mlx_gateway.protocols.audio import Speech, Transcriptions, Translations
from mlx_gateway.protocols.embeddings import Embeddings
from mlx_gateway.protocols.messages_by_chat import CountTokensByChat, MessagesByChat
from mlx_gateway.protocols.ollama import OllamaChat, OllamaEmbed, OllamaGenerate
from mlx_gateway.protocols.openai_chat import ChatCompletions, Completions
from mlx_gateway.protocols.rerank import Rerank
from mlx_gateway.protocols.responses_by_chat import ResponsesByChat

_OPENAI, _ANTHROPIC, _RERANK, _OLLAMA = Api(), MessagesByChat(), Rerank(), OllamaChat()

COUNTING = CountTokensByChat()
APIS: dict[str, Api] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": ResponsesByChat(),
    "/v1/messages": _ANTHROPIC,
    "/v1/messages/count_tokens": COUNTING,
    "/v1/embeddings": Embeddings(),
    "/v1/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/audio/transcriptions": Transcriptions(),
    "/v1/audio/translations": Translations(),
    "/v1/audio/speech": Speech(),
    "/api/chat": _OLLAMA,
    "/api/generate": OllamaGenerate(),
    "/api/embed": OllamaEmbed(),
}
"""Those that take a request for a model."""
CONVERSATIONS = frozenset({"/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"})
"""Where each request holds the whole of its conversation."""
LIVENESS = frozenset({"/health/liveliness", "/health/liveness"})
MODELS = "/v1/models"
OLLAMA_SHOW = "/api/show"
STATUS = "/v1/status"
SHOWN = frozenset({STATUS, "/metrics", "/api/tags", "/api/ps", "/api/version"})
"""What is read, besides the list of models."""


def api_of(path: str, headers: Mapping[bytes, bytes]) -> Api:
    """The API in whose shape a request at `path` is answered."""
    other = _ANTHROPIC if b"anthropic-version" in headers else _OPENAI
    if path.startswith("/api/"):
        return APIS.get(path, _OLLAMA)
    return _ANTHROPIC if path.startswith("/v1/messages") else APIS.get(path, other)


def versioned(path: str) -> str:
    """`/models` → `/v1/models`: clients whose base URL lacks `/v1` mean the same."""
    path = path.rstrip("/") or "/"
    with_version = f"/v1{path}"
    is_known = with_version in APIS or with_version.startswith(MODELS)
    return with_version if is_known else path
