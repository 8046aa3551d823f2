"""What the catalog knows of a tier's model, as the engine's command line needs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_stack.engines.vllm_mlx import ModelTraits
from mlx_stack.errors import StackError
from mlx_stack.stack import Tier

if TYPE_CHECKING:
    from mlx_catalog import Catalog, CatalogEntry
    from mlx_recommend import ModelShape


_PLAIN_ARCHITECTURES = frozenset({"transformer", "moe", "nas-transformer"})
"""Those whose every layer keeps the keys and values of the whole context."""


@dataclass(frozen=True, slots=True)
class Serving:
    """How a tier is to be served, beside what its definition says.

    Attributes:
        traits: What the engine can't find out about the model.
        cache_bytes: What it may keep of finished requests; None where the geometry is unknown.
    """

    traits: ModelTraits
    cache_bytes: int | None


def serving_of(catalog: "Catalog", tier: Tier, folder: Path) -> Serving:
    """How to serve `tier`: from its catalog entry, else from its files.

    Raises:
        StackError: The files are damaged.
    """
    from mlx_recommend import shape_of_config, shape_of_entry

    entry = entry_of(catalog, tier)
    if entry is not None:
        return Serving(traits_of(entry), cache_bytes(shape_of_entry(entry, tier.quant), tier))
    config = _read_config(folder)
    shape = shape_of_config(folder.name, config)
    return Serving(traits_of_files(folder.name, config), cache_bytes(shape, tier))


def entry_of(catalog: "Catalog", tier: Tier) -> "CatalogEntry | None":
    """The entry of the tier's model by its id or alias, or by the repository of its weights."""
    return catalog.get(tier.model) if tier.model in catalog else catalog.by_repo(tier.source)


def traits_of(entry: "CatalogEntry") -> ModelTraits:
    """The traits of a catalog entry."""
    from mlx_catalog.engine import engine_fit

    fit, able = engine_fit(entry), entry.capabilities
    return ModelTraits(
        tool_call_parser=able.tool_call_parser,
        reasoning_parser=able.reasoning_parser,
        batching=fit.batching,
        # the conditions are the same: whole keys and values in every layer of a text model
        reuses_prefixes=fit.paged_cache,
        multimodal=fit.multimodal,
    )


def traits_of_files(name: str, config: "dict[str, object]") -> ModelTraits:
    """The traits of a model that the catalog doesn't have; its parsers stay unknown."""
    from mlx_catalog.geometry import describe

    reading = describe(name, config, None)
    plain = reading.architecture in _PLAIN_ARCHITECTURES and not reading.vision
    return ModelTraits(reuses_prefixes=plain, multimodal=reading.vision)


def cache_bytes(shape: "ModelShape | None", tier: Tier) -> int | None:
    """What one request leaves behind at the tier's full context: keys, values and state.

    As much is kept for the next request that begins alike, so that a whole conversation is; it is
    what the memory plan counts as the prefix cache.
    """
    from mlx_recommend import DEFAULT_CONTEXT_TOKENS, Workload, memory_use

    if shape is None:
        return None
    tokens = tier.context_tokens or DEFAULT_CONTEXT_TOKENS
    workload = Workload(context_tokens=tokens, keeps_prefixes=True)
    return memory_use(shape, workload).prefix_cache_bytes


def _read_config(folder: Path) -> "dict[str, object]":
    from mlx_catalog import UnreadableModelError
    from mlx_catalog.geometry import load_config

    try:
        return load_config(folder / "config.json")
    except UnreadableModelError as error:
        raise StackError(str(error)) from error
