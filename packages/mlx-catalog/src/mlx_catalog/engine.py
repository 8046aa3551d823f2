"""What the pinned engine accepts, and which of its switches suit which entry.

The limits were found by running it: what each parser extracts, and how its prefix caches restore
each kind of layer.
"""

from dataclasses import dataclass

from mlx_catalog.parsers import REASONING_PARSERS, TOOL_CALL_PARSERS
from mlx_catalog.schema import CatalogEntry

__all__ = [
    "PINNED_ENGINE",
    "PINNED_MLX_LM",
    "REASONING_PARSERS",
    "TOOL_CALL_PARSERS",
    "EngineFit",
    "engine_fit",
    "serve_flags",
]

PINNED_ENGINE = "vllm-mlx 0.6.0"
PINNED_MLX_LM = (0, 31, 3)
"""The mlx-lm that the pinned engine requires: `>=0.31.3,<0.32`."""


@dataclass(frozen=True, slots=True)
class EngineFit:
    """How the pinned engine serves an entry.

    Attributes:
        unservable_because: Why it can't be served at all; "" where it can.
        multimodal: Whether it is served by the engine's multimodal half (mlx-vlm), which a model
            with a vision tower is, for text alone as well.
        batching: Whether `--continuous-batching` works with its caches.
        paged_cache: Whether `--use-paged-cache` gives right answers and saves work.
    """

    unservable_because: str
    multimodal: bool
    batching: bool
    paged_cache: bool


def engine_fit(entry: CatalogEntry) -> EngineFit:
    """How the pinned engine serves `entry`."""
    geometry = entry.geometry
    multimodal = entry.capabilities.vision is True
    # A cache list for each layer (attention and state side by side) has no batched form.
    batching = entry.architecture not in ("mamba2-parallel-hybrid", "moe-chunked")
    # With sliding windows a partly matching prefix is restored at two different offsets: wrong
    # answers. Recurrent states are not restored at all, and the multimodal half has no such cache.
    paged = not multimodal and geometry.recurrent is None and geometry.sliding_layers == 0
    return EngineFit(_unservable_because(entry), multimodal, batching, paged and batching)


def serve_flags(entry: CatalogEntry) -> tuple[str, ...]:
    """The switches of `vllm-mlx serve` that make `entry` call tools and show its thinking."""
    able = entry.capabilities
    flags: list[str] = []
    if able.tool_call_parser:
        flags += ["--enable-auto-tool-choice", "--tool-call-parser", able.tool_call_parser]
    if able.reasoning_parser:
        flags += ["--reasoning-parser", able.reasoning_parser]
    return tuple(flags)


def _unservable_because(entry: CatalogEntry) -> str:
    if entry.capabilities.vision:
        return ""  # mlx-vlm has the modules of all multimodal entries
    if entry.min_mlx_lm_version is None:
        return f"no released mlx-lm has the module {entry.model_type!r}"
    needed = tuple(int(part) for part in entry.min_mlx_lm_version.split("."))
    if needed > PINNED_MLX_LM:
        pinned = ".".join(str(part) for part in PINNED_MLX_LM)
        return f"it needs mlx-lm {entry.min_mlx_lm_version}; {PINNED_ENGINE} holds {pinned}"
    return ""
