"""The command line of mlx_lm.server, for models that vllm-mlx's own mlx-lm can't load.

It has an environment of its own with a newer mlx-lm. Flags are those of mlx-lm 0.32.2; how it is
kept to one model, and made to answer like the other engines, is in `mlx_lm_start` (decision 0105).
"""

from pathlib import Path

from mlx_stack.engines.mlx_lm_start import PROGRAM
from mlx_stack.engines.vllm_mlx import (
    DEFAULT_CACHE_BYTES,
    LOOPBACK,
    MAX_ANSWER_TOKENS,
    Serving,
    closed_environment,
    words_of,
)
from mlx_stack.stack import FlagValue, Tier

_TOOL_PARSERS = {
    "gemma4": "gemma4",
    "glm47": "glm47",
    "hermes": "json_tools",
    "kimi": "kimi_k2",
    "kimi_k2": "kimi_k2",
    "minimax": "minimax_m2",
    "mistral": "mistral",
    "poolside_v1": "laguna",
    "qwen": "json_tools",
    "qwen3_coder": "qwen3_coder",
}
"""What mlx-lm calls the parsers that the catalog names as vllm-mlx does."""
_CONVERSATIONS = 10
"""How many prefixes are kept for each request that may run at once, within the memory for them."""


environment = closed_environment
"""What the engine needs in its environment."""


def command(
    start: tuple[str, ...], tier: Tier, model_folder: Path, serving: Serving
) -> tuple[str, ...]:
    """The command line that serves `tier` on loopback.

    Args:
        start: What runs the engine, `guarded(environment)`.
        tier: What to serve; requests must name `tier.model`.
        model_folder: The model's folder; absolute, so that nothing is ever downloaded.
        serving: How. Its parser of tool calls is for models in whose files the engine finds none;
            thoughts it finds by itself.
    """
    flags = flags_of(tier, model_folder, serving)
    return (*start, PROGRAM, *words_of(flags))


def rank_arguments(tier: Tier, serving: Serving) -> tuple[str, ...]:
    """What a part of the tier's model is called with on another Mac, which adds the folder.

    But for that the flags are those here: all parts must decide alike what they read and keep.
    """
    flags = flags_of(tier, Path(), serving)
    del flags["model"]
    return (PROGRAM, *words_of(flags))


def flags_of(tier: Tier, model_folder: Path, serving: Serving) -> dict[str, FlagValue]:
    """The flags by which a tier is served, with its own ones."""
    at_once = tier.concurrency if serving.batching else 1
    flags: dict[str, FlagValue] = {
        "served-model-name": tier.model,
        "host": LOOPBACK,
        "port": tier.port,
        "model": str(model_folder),
        "max-tokens": min(MAX_ANSWER_TOKENS, tier.context_tokens or MAX_ANSWER_TOKENS),
        "decode-concurrency": at_once,
        "prompt-concurrency": at_once,
        "prompt-cache-size": _CONVERSATIONS * at_once,
        # each Mac keeps its part of what is read
        "prompt-cache-bytes": serving.cache_bytes or DEFAULT_CACHE_BYTES // tier.macs,
    }
    if tier.mlx_lm_flags.get("pipeline"):
        # parts of different sizes would forget different conversations, and then wait for ever
        del flags["prompt-cache-bytes"]
        flags["prompt-cache-size"] = at_once + 1
    if parser := _TOOL_PARSERS.get(serving.tool_call_parser):
        flags["tool-parser"] = parser
    if serving.prefill_step is not None:
        flags["prefill-step-size"] = serving.prefill_step
    if serving.runs_own_code:
        flags["trust-remote-code"] = True
    return flags | tier.mlx_lm_flags
