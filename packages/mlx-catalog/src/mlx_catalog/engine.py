"""What the pinned engine can do with a model, found by running it."""

from dataclasses import dataclass

from mlx_catalog.model_files import ModelReading
from mlx_catalog.model_types import model_types
from mlx_catalog.schema import CatalogEntry

PINNED_ENGINE = "vllm-mlx 0.6.0"
PINNED_MLX_LM = (0, 31, 3)
"""The mlx-lm that the pinned engine requires: `>=0.31.3,<0.32`."""
_WITH_A_TEXT_ROUTE = frozenset({"qwen3_5", "qwen3_5_moe"})
"""Models with a vision tower whose textual half the engine builds for requests without pictures,
and that were tried. It does so for Gemma 4 as well, which was not."""


@dataclass(frozen=True, slots=True)
class EngineFit:
    """How the pinned engine serves a model.

    Attributes:
        unservable_because: Why it can't be served at all; "" where it can.
        multimodal: Whether it is served by the engine's multimodal half (mlx-vlm), which a model
            with a vision tower is, for text alone as well.
        batching: Whether several requests at once work with its caches.
        reuses_prefixes: Whether what two requests begin with alike is read once, with mlx-stack's
            additions to the engine.
    """

    unservable_because: str
    multimodal: bool
    batching: bool
    reuses_prefixes: bool


def engine_fit(model: CatalogEntry | ModelReading) -> EngineFit:
    """How the pinned engine serves a model of the catalog, or one that was read (decision 0023)."""
    if isinstance(model, CatalogEntry):
        multimodal, why = model.capabilities.vision is True, _unservable_because(model)
    else:
        multimodal, why = model.vision, ""
    row = model_types().get(model.model_type)
    batching = row is None or not row.unbatched
    textual = not multimodal or model.model_type in _WITH_A_TEXT_ROUTE
    return EngineFit(why, multimodal, batching, row is not None and textual)


def _unservable_because(entry: CatalogEntry) -> str:
    if entry.capabilities.vision or entry.role.reads_only:
        return ""  # mlx-vlm has the modules of all multimodal entries, embedders and rerankers
    if not entry.role.chats:
        return f"no engine serves {entry.role} yet"
    if entry.min_mlx_lm_version is None:
        return f"no released mlx-lm has the module {entry.model_type!r}"
    return asks_for_newer(entry)


def asks_for_newer(entry: CatalogEntry) -> str:
    """That the entry asks for a newer mlx-lm than the engine holds; "" where it doesn't.

    A multimodal entry may be served all the same, by mlx-vlm's module; nobody has measured it.
    """
    needed = entry.min_mlx_lm_version or "0"
    if tuple(int(part) for part in needed.split(".")) <= PINNED_MLX_LM:
        return ""
    pinned = ".".join(str(part) for part in PINNED_MLX_LM)
    return f"it needs mlx-lm {needed}; {PINNED_ENGINE} holds {pinned}"
