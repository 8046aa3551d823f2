"""The models on this disk as tiers that nobody defined: a request by name starts one."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_catalog import (
    CatalogEntry,
    CatalogError,
    EngineFit,
    ModelRole,
    ServingEngine,
    UnreadableModelError,
    engine_fit,
    read_model,
)
from mlx_recommend import PROCESS_BYTES, ModelShape
from mlx_stack.models.disk.local import LocalModel, file_size, list_local
from mlx_stack.models.find import local_model_of
from mlx_stack.models.serving import (
    entry_of,
    fit_and_shape,
    memory_of,
    role_of_folder,
    usual_context,
)
from mlx_stack.open_stack import OpenStack
from mlx_stack.stack import Tier

PREFIX = "model."
"""How the service of such a model is named, before its folder's name; no tier's has a dot."""
IDLE_S = 900
"""How long such a model stays without a request."""
_SHORTEST_CONTEXT = 8192
_NAME_BYTES = 64
_DIGEST_LETTERS = 8
_NO_PORT_YET = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelOnDisk:
    """A whole model in the models folder.

    Attributes:
        names: What it is called: its folder's name, then its catalog id and repository.
        served_by: The first tier of the stack that serves it; None where none does.
        tier: How it is served where no tier serves it; its port is still to be given.
        claim_bytes: What it holds at its full context, or at least once it is loaded.
    """

    names: tuple[str, ...]
    served_by: str | None
    tier: Tier
    claim_bytes: int


@dataclass(frozen=True, slots=True)
class Shelf:
    """What the models folder holds.

    Attributes:
        models: The whole ones.
        unusable: Why another can't be served, and what cures it, by each of its names.
    """

    models: tuple[ModelOnDisk, ...]
    unusable: Mapping[str, str]


def models_on_disk(opened: OpenStack, budget_bytes: int | None) -> Shelf:
    """Every model in the models folder.

    A whole one's tier is planned as `init --add` plans one, with half of the context and half again
    where all of it doesn't fit the budget.

    Raises:
        StackError: When the stack file or the configuration is damaged.
    """
    stack, users = opened.defined_stack, dict[Path, str]()
    for tier in stack.tiers if stack is not None else ():
        local = local_model_of(opened, tier)
        if local is not None:
            users.setdefault(local.path, tier.name)
    found = list_local(opened.config.model_dir)
    whole = tuple(
        _on_disk(opened, local, users.get(local.path), budget_bytes)
        for local in found
        if local.is_whole
    )
    unusable = {
        name: f"The model {name!r} {local.condition}. {local.cure}"
        for local in found
        if not local.is_whole
        for name in (local.path.name, local.model, local.repo)
        if name
    }
    return Shelf(whole, unusable)


def claim_of(opened: OpenStack, tier: Tier, folder: Path) -> int:
    """The memory that a tier's engine may come to hold."""
    return _claim(_shape_and_fit(opened, tier, folder), tier, folder)


def planned_bytes(opened: OpenStack, tier: Tier, folder: Path) -> int | None:
    """What a tier's engine holds at its full context, by plan; None where that is unknown."""
    return _planned(_shape_and_fit(opened, tier, folder), tier)


def load_bytes(folder: Path, macs: int = 1) -> int:
    """The memory that an engine holds before its first request: the weights and the process.

    Args:
        macs: How many the model is divided between; a little of it is on each of them.
    """
    weights_bytes = sum(file_size(path) or 0 for path in folder.glob("*.safetensors"))
    return weights_bytes // macs + PROCESS_BYTES


def service_of(folder: str) -> str:
    """The name of the service of the model in a folder of that name.

    One that is too long, or has characters that no service's name has, ends with a hash instead:
    two models as one service would end each other.
    """
    name = PREFIX + re.sub(r"[^A-Za-z0-9._-]", "-", folder)
    if name == PREFIX + folder and len(name) <= _NAME_BYTES:
        return name
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:_DIGEST_LETTERS]
    return f"{name[: _NAME_BYTES - _DIGEST_LETTERS - 1]}-{digest}"


def _on_disk(
    opened: OpenStack, local: LocalModel, served_by: str | None, budget_bytes: int | None
) -> ModelOnDisk:
    entry = None
    if local.model is not None and local.model in opened.catalog:
        entry = opened.catalog.get(local.model)
    elif local.repo is not None:
        entry = opened.catalog.by_repo(local.repo)
    folder = local.path.name
    tier = Tier(
        name=service_of(folder),
        model=entry.id if entry is not None else folder,
        quant=local.quant or (entry.quant_of(local.repo or "") if entry is not None else None),
        source=str(local.path),
        port=_NO_PORT_YET,
        vllm_flags={},
        lazy=True,
        idle_unload_s=IDLE_S,
        role=role_of_folder(opened.catalog, local.path),
    )
    tier = msgspec.structs.replace(tier, engine=engine_needed(entry, tier.role, local.path))
    known = _shape_and_fit(opened, tier, local.path)
    usual = tokens = usual_context(known[0] if known is not None else None, tier.name, tier.role)
    tier = msgspec.structs.replace(tier, context_tokens=tokens)
    claim = _claim(known, tier, local.path)
    while budget_bytes is not None and claim > budget_bytes and (tokens or 0) > _SHORTEST_CONTEXT:
        tokens = max((tokens or 0) // 2, _SHORTEST_CONTEXT)
        tier = msgspec.structs.replace(tier, context_tokens=tokens)
        claim = _claim(known, tier, local.path)
    if budget_bytes is not None and claim > budget_bytes:  # whatever its context
        tier = msgspec.structs.replace(tier, context_tokens=usual)
    names = dict.fromkeys((folder, tier.model, local.model, local.repo))
    return ModelOnDisk(
        names=tuple(name for name in names if name),
        served_by=served_by,
        tier=tier,
        claim_bytes=claim,
    )


def engine_needed(
    entry: CatalogEntry | None, role: ModelRole, folder: Path
) -> ServingEngine | None:
    """The engine that a model needs where that isn't the usual one of its role."""
    if not role.chats:
        return None
    try:
        fit = engine_fit(entry if entry is not None else read_model(folder / "config.json"))
    except UnreadableModelError:
        return None
    return fit.engine if fit.engine is ServingEngine.MLX_LM else None


def _shape_and_fit(
    opened: OpenStack, tier: Tier, folder: Path
) -> tuple[ModelShape, EngineFit] | None:
    try:
        fit, shape = fit_and_shape(entry_of(opened.catalog, tier), tier, folder)
    except (UnreadableModelError, CatalogError):
        return None
    return None if shape is None else (shape, fit)


def _claim(known: tuple[ModelShape, EngineFit] | None, tier: Tier, folder: Path) -> int:
    return max(_planned(known, tier) or 0, load_bytes(folder, tier.macs))


def _planned(known: tuple[ModelShape, EngineFit] | None, tier: Tier) -> int | None:
    planned = memory_of(*known, tier) if known is not None else None
    return planned.total_bytes if planned is not None else None
