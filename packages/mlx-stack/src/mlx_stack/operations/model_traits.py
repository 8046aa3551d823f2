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
    entry = entry_of(catalog, tier)
    shape = shape_of_files(folder) if entry is None else shape_of_catalog(entry, tier)
    return Serving(traits_of(entry), cache_bytes(shape, tier))


def entry_of(catalog: "Catalog", tier: Tier) -> "CatalogEntry | None":
    """The entry of the tier's model by its id or alias, or by the repository of its weights."""
    return catalog.get(tier.model) if tier.model in catalog else catalog.by_repo(tier.source)


def traits_of(entry: "CatalogEntry | None") -> ModelTraits:
    """The traits of a catalog entry; of a model that nobody knows, those that suit any."""
    from mlx_catalog.engine import engine_fit

    if entry is None:
        return ModelTraits()
    fit, able = engine_fit(entry), entry.capabilities
    return ModelTraits(
        tool_call_parser=able.tool_call_parser,
        reasoning_parser=able.reasoning_parser,
        batching=fit.batching,
        multimodal=fit.multimodal,
    )


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


def shape_of_catalog(entry: "CatalogEntry", tier: Tier) -> "ModelShape":
    """The shape of an entry at the tier's precision."""
    from mlx_recommend import shape_of_entry

    return shape_of_entry(entry, tier.quant)


def shape_of_files(folder: Path) -> "ModelShape | None":
    """The shape that a model folder's `config.json` tells, or None where it doesn't tell enough.

    Raises:
        StackError: The file is damaged.
    """
    from mlx_catalog import UnreadableModelError
    from mlx_catalog.geometry import load_config
    from mlx_recommend import shape_of_config

    try:
        config = load_config(folder / "config.json")
    except UnreadableModelError as error:
        raise StackError(str(error)) from error
    return shape_of_config(folder.name, config)
