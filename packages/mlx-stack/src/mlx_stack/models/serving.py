"""What the catalog knows of a tier's model, as the engine's command line needs it."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_stack.engines.vllm_mlx import ModelTraits
from mlx_stack.errors import StackError
from mlx_stack.stack import Tier

if TYPE_CHECKING:
    from mlx_catalog import Catalog, CatalogEntry, EngineFit, ModelReading, Quant
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
    from mlx_catalog import engine_fit
    from mlx_recommend import shape_of_entry, shape_of_model

    entry = entry_of(catalog, tier)
    if entry is None:
        model = _read(folder)
        return Serving(_traits(engine_fit(model)), cache_bytes(shape_of_model(model), tier))
    quant = quant_of_tier(entry, tier)
    shape = shape_of_entry(entry, quant) if quant is not None else None
    return Serving(traits_of(entry), cache_bytes(shape, tier))


def entry_of(catalog: "Catalog", tier: Tier) -> "CatalogEntry | None":
    """The entry of the tier's model by its id or alias, or by the repository of its weights."""
    return catalog.get(tier.model) if tier.model in catalog else catalog.by_repo(tier.source)


def quant_of_tier(entry: "CatalogEntry", tier: Tier) -> "Quant | None":
    """The precision of a tier of a catalog model: as defined, else that of its repository."""
    return tier.quant or entry.quant_of(tier.source)


def traits_of(entry: "CatalogEntry") -> ModelTraits:
    """The traits of a catalog entry."""
    from mlx_catalog import engine_fit

    able = entry.capabilities
    return _traits(engine_fit(entry), able.tool_call_parser, able.reasoning_parser)


def _traits(
    fit: "EngineFit", tool_call_parser: str = "", reasoning_parser: str = ""
) -> ModelTraits:
    return ModelTraits(
        tool_call_parser=tool_call_parser,
        reasoning_parser=reasoning_parser,
        batching=fit.batching,
        reuses_prefixes=fit.reuses_prefixes,
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


def _read(folder: Path) -> "ModelReading":
    """What the configuration says: the weights' headers are of no interest here."""
    from mlx_catalog import UnreadableModelError, read_model

    try:
        return read_model(folder / "config.json")
    except UnreadableModelError as error:
        raise StackError(str(error)) from error
