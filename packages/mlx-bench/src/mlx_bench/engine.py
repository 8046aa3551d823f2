"""Which engine answers, as far as its own pages say."""

import msgspec

from mlx_bench.client import StreamingClient
from mlx_bench.errors import EndpointError
from mlx_bench.report import EngineVersion

_OWNERS = {"vllm-mlx": "vllm-mlx", "vllm": "vllm", "library": "ollama", "llamacpp": "llama.cpp"}


class _VersionPage(msgspec.Struct):
    version: str


def identify_engine(client: StreamingClient, server_header: str) -> EngineVersion:
    """The engine behind an endpoint: `owned_by` of its models and its version page.

    vLLM and its forks answer `/version`, Ollama `/api/version`; others leave the version out.
    """
    root = client.endpoint.base_url.rstrip("/").removesuffix("/v1")
    pages = (client.get(root + page, _VersionPage) for page in ("/version", "/api/version"))
    version = next((page.version for page in pages if page), None)
    try:
        models = client.list_models()
    except EndpointError:
        models = ()
    owner = (models[0].owned_by if models else None) or ""
    return EngineVersion(_OWNERS.get(owner, owner) or server_header or None, version)
