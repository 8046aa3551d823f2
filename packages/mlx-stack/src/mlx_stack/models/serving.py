"""What is known of a tier's model: from its catalog entry, else from its files."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mlx_catalog import (
    Catalog,
    CatalogEntry,
    EngineFit,
    ModelRole,
    ServingEngine,
    UnreadableModelError,
    engine_fit,
    read_model,
    read_role,
)
from mlx_catalog.config_fields import HIDDEN, integer, word
from mlx_catalog.model_files import load_config
from mlx_recommend import (
    DEFAULT_CONTEXT_TOKENS,
    PREFILL_STEP_TOKENS,
    STANDARD,
    TIER_KINDS,
    MemoryUse,
    ModelShape,
    Split,
    SplitKind,
    Workload,
    memory_use,
    prefill_step,
    shape_of_entry,
    shape_of_model,
    split,
)
from mlx_stack.engines.mlx_vlm_start import LONGEST_TEXT_TOKENS
from mlx_stack.engines.vllm_mlx import Serving, finds_mtp_heads
from mlx_stack.errors import StackError
from mlx_stack.models.disk.local import inspect_folder
from mlx_stack.models.own_code import is_allowed
from mlx_stack.stack import Tier

LAYER_INDEX = "model.safetensors.index.json"
"""What mlx-lm must find in a model's folder before it gives each Mac some of its layers."""
_STEP_FLAG = "prefill-step-size"


def serving_of(catalog: Catalog, tier: Tier, folder: Path) -> Serving:
    """How to serve `tier`: from its catalog entry, else from the `config.json` in `folder`.

    Raises:
        StackError: When the configuration is damaged.
    """
    entry = entry_of(catalog, tier)
    if not tier.role.chats:
        entry = entry or entry_of_folder(catalog, folder)
        return Serving(
            batching=False,
            dimensions=(entry and entry.dimensions) or _dimensions(tier, folder),
            shortens=entry is not None and entry.matryoshka is True,
            pooling=(entry and entry.pooling) or "",
            work_bytes=_work_bytes(entry, tier, folder) if tier.role.reads_only else None,
        )
    try:
        # the weights' headers are of no interest here
        fit, shape = fit_and_shape(entry, tier, folder / "config.json")
    except UnreadableModelError as error:
        raise StackError(str(error)) from error
    part = _part_of(shape, tier, 0)
    return Serving(
        tool_call_parser=entry.capabilities.tool_call_parser if entry is not None else "",
        reasoning_parser=entry.capabilities.reasoning_parser if entry is not None else "",
        batching=fit.batching,
        reuses_prefixes=fit.reuses_prefixes,
        multimodal=fit.multimodal,
        has_mtp=fit.multimodal and finds_mtp_heads(folder),
        cache_bytes=_cache_bytes(part, tier),
        prefill_step=_prefill_step(part, tier),
        runs_own_code=is_allowed(folder),
    )


def _work_bytes(entry: CatalogEntry | None, tier: Tier, folder: Path) -> int | None:
    """What is planned for the GPU beside the weights; None where that is unknown."""
    with suppress(UnreadableModelError):
        fit, shape = fit_and_shape(entry, tier, folder)
        memory = memory_of(shape, fit, tier)
        is_known = memory is not None and memory.kv_cache_bytes is not None
        return memory.overhead_bytes if memory is not None and is_known else None
    return None


def shape_of_tier(catalog: Catalog, tier: Tier, folder: Path) -> ModelShape | None:
    """What a tier's speed follows from; None where that isn't known."""
    try:
        return fit_and_shape(entry_of(catalog, tier), tier, folder)[1]
    except UnreadableModelError:
        return None


def entry_of(catalog: Catalog, tier: Tier) -> CatalogEntry | None:
    """The entry of the tier's model by its id or alias, or by the repository of its weights."""
    return catalog.get(tier.model) if tier.model in catalog else catalog.by_repo(tier.source)


def entry_of_folder(catalog: Catalog, folder: Path) -> CatalogEntry | None:
    """The entry of the model in `folder`: by what its download noted, else by the folder's name.

    A folder is named after a repository where its configuration has the same type, too.
    """
    local = inspect_folder(folder)
    if local is None:
        return None
    if local.model is not None and local.model in catalog:
        return catalog.get(local.model)
    if local.repo is not None:
        return catalog.by_repo(local.repo)
    with suppress(UnreadableModelError):
        model_type = word(load_config(folder / "config.json"), "model_type")
        return catalog.by_repo_name(folder.name, model_type)
    return None


def role_of_folder(catalog: Catalog, folder: Path) -> ModelRole:
    """What the model in `folder` is for: by its catalog entry, else by its files.

    One that can't be read fails when it is started.
    """
    entry = entry_of_folder(catalog, folder)
    if entry is not None:
        return entry.role
    with suppress(UnreadableModelError):
        return read_role(folder)
    return ModelRole.CHAT


def fit_and_shape(
    entry: CatalogEntry | None, tier: Tier, path: Path
) -> tuple[EngineFit, ModelShape | None]:
    """How the engine serves a tier's model, and what its memory follows from, if that is known.

    Args:
        path: The model's folder or `config.json`, which is read where there is no entry.

    Raises:
        UnreadableModelError: When the files are damaged.
    """
    engine = tier.engine or ServingEngine.VLLM_MLX
    if entry is None:
        model = read_model(path)
        return engine_fit(model, engine), shape_of_model(model)
    quant = tier.quant or entry.quant_of(tier.source)
    shape = shape_of_entry(entry, quant) if quant is not None else None
    return engine_fit(entry, engine), shape


def memory_of(
    shape: ModelShape | None, fit: EngineFit, tier: Tier, rank: int = 0
) -> MemoryUse | None:
    """What a tier's engine holds at its full context; None where that is unknown.

    Args:
        rank: The Mac, of those that the tier's model is divided between: 0 is this one.
    """
    shape = _part_of(shape, tier, rank)
    if shape is None:
        return None
    if not tier.role.chats:
        tokens = tier.context_tokens or LONGEST_TEXT_TOKENS
        return memory_use(replace(shape, role=tier.role), Workload(context_tokens=tokens))
    flags = tier.mlx_lm_flags if tier.is_on_mlx_lm else tier.vllm_flags
    tokens, step = tier.context_tokens or DEFAULT_CONTEXT_TOKENS, flags.get(_STEP_FLAG)
    if not isinstance(step, int) or step < 1:
        step = prefill_step(shape, tokens, tier.concurrency)
    workload = Workload(
        context_tokens=tokens,
        concurrency=tier.concurrency,
        prefill_step_tokens=step,
        keeps_prefixes=fit.reuses_prefixes,
    )
    return memory_use(shape, workload)


def split_of(shape: ModelShape, tier: Tier) -> Split:
    """How a tier's model is divided between its Macs."""
    by_layers = bool(tier.mlx_lm_flags.get("pipeline"))
    kind = SplitKind.PIPELINE if by_layers else SplitKind.TENSOR
    return split(shape, tier.macs, kind)


def _part_of(shape: ModelShape | None, tier: Tier, rank: int) -> ModelShape | None:
    """The part of a model that one of the tier's Macs has: all of it where there is no other.

    None where it can't be divided so, or that is unknown.
    """
    if shape is None or not tier.workers:
        return shape
    shares = split_of(shape, tier).shares
    return shares[rank].shape if shares else None


def usual_context(
    shape: ModelShape | None, tier_name: str, role: ModelRole = ModelRole.CHAT
) -> int | None:
    """The context of a tier of that name, at most what its model was trained for.

    None for a model of sounds, which has none.
    """
    if role.is_of_sound:
        return None
    usual = next((kind.context_tokens for kind in TIER_KINDS if kind.name == tier_name), None)
    tokens = (usual or STANDARD.context_tokens) if role.chats else LONGEST_TEXT_TOKENS
    longest = shape.max_context_tokens if shape is not None else None
    return min(tokens, longest) if longest is not None else tokens


def _dimensions(tier: Tier, folder: Path) -> int | None:
    """How long the vectors of an embedder are; None for others, or where its files don't say.

    Raises:
        StackError: When its configuration is damaged.
    """
    if tier.role is not ModelRole.EMBEDDING:
        return None
    try:
        dense = sorted(folder.glob("*_Dense/config.json"))
        if dense:
            return integer(load_config(dense[-1]), "out_features")
        return integer(load_config(folder / "config.json"), *HIDDEN)
    except UnreadableModelError as error:
        raise StackError(str(error)) from error


def _prefill_step(shape: ModelShape | None, tier: Tier) -> int | None:
    """The step that the memory plan counts on; None where that is the engine's own."""
    if shape is None:
        return None
    tokens = tier.context_tokens or DEFAULT_CONTEXT_TOKENS
    step = prefill_step(shape, tokens, tier.concurrency)
    return step if step != PREFILL_STEP_TOKENS else None


def _cache_bytes(shape: ModelShape | None, tier: Tier) -> int | None:
    """What as many conversations as run at once leave behind at the tier's full context.

    Keys, values and state are kept for the next turn of each; it is what the memory plan counts as
    the prefix cache.
    """
    if shape is None:
        return None
    workload = Workload(
        context_tokens=tier.context_tokens or DEFAULT_CONTEXT_TOKENS,
        concurrency=tier.concurrency,
        keeps_prefixes=True,
    )
    return memory_use(shape, workload).prefix_cache_bytes
