"""Names of tools as engines take them, and the tools that they stand for.

vllm-mlx refuses names with other characters than letters, digits, `_` and `-`, or more than 64 of
them; Anthropic allows 128, and a client's name for the tool of an MCP server is easily that long.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

_TAKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NOT_TAKEN = re.compile(r"[^A-Za-z0-9_-]")


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool as the client knows it.

    Attributes:
        namespace: The namespace it is in; "" where it is in none.
        is_custom: Whether it takes text rather than JSON.
    """

    name: str
    namespace: str = ""
    is_custom: bool = False


type ClientTools = Mapping[str, ClientTool]
"""Tools by the names that the engine gets, where these differ from what the client sent."""


def engine_name(name: str, namespace: str = "") -> str:
    """The name that the engine gets; the same whenever the same tool is named."""
    joined = f"{namespace}__{name}" if namespace else name
    if _TAKEN.fullmatch(joined):
        return joined
    digest = hashlib.sha256(joined.encode()).hexdigest()[:12]
    return f"{_NOT_TAKEN.sub('_', joined)[:51]}_{digest}"
