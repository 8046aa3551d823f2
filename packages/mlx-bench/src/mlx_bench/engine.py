"""Which engine answers, as far as its own pages say."""

from collections.abc import Callable

from mlx_bench._json_values import as_list, as_object, as_text
from mlx_bench.report import Engine

type GetJson = Callable[[str], dict[str, object] | None]
"""Gives the JSON object at an address, or None."""

_OWNERS = {"vllm-mlx": "vllm-mlx", "vllm": "vllm", "library": "ollama", "llamacpp": "llama.cpp"}


def identify_engine(get_json: GetJson, base_url: str, server_header: str) -> Engine:
    """The engine behind a base URL: `owned_by` of its models and its version page.

    vLLM and its kin answer `/version`, Ollama `/api/version`; others leave the version empty.
    """
    root = base_url.rstrip("/").removesuffix("/v1")
    version = ""
    for page in ("/version", "/api/version"):
        version = version or as_text((get_json(root + page) or {}).get("version"))
    models = as_list((get_json(base_url.rstrip("/") + "/models") or {}).get("data"))
    owner = as_text(as_object(models[0]).get("owned_by")) if models else ""
    return Engine(name=_OWNERS.get(owner, owner) or server_header, version=version)
