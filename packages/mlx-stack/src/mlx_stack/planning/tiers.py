"""Tiers from recommended and named models, with the memory that they take (decision 0044)."""

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mlx_catalog import CatalogError, ModelRole, Quant, ServingEngine
from mlx_hwprobe import HardwareProfile, HwprobeError
from mlx_recommend import (
    DEFAULT_CONTEXT_TOKENS,
    MemoryUse,
    Option,
    ReadingTier,
    Speed,
    SplitKind,
    Workload,
    estimate_group,
)
from mlx_stack.errors import StackError, UsageError
from mlx_stack.hardware import known_hardware
from mlx_stack.models.disk.local import inspect_folder
from mlx_stack.models.download.selection import PROCESSOR_FILES
from mlx_stack.models.errors import ModelCodeError
from mlx_stack.models.find import local_model_of, local_models, weights_of
from mlx_stack.models.own_code import ensure_no_code
from mlx_stack.models.serving import (
    LAYER_INDEX,
    entry_of,
    fit_and_shape,
    memory_of,
    usual_context,
)
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import (
    DescribedModel,
    ask_nobody,
    describe_model,
    estimate_described,
)
from mlx_stack.stack import TIER_NAME, FlagValue, Host, Tier

_NO_PORT_YET = 1
_LONGEST_NAME = 32


@dataclass(frozen=True, slots=True)
class PlannedTier:
    """A tier, and what there is to know before it runs.

    Attributes:
        memory: What it takes at its full context; None where that is unknown.
        is_present: Whether its model is on this disk, whole.
        generation_tps: How fast it writes; None where that is unknown, or it was not asked.
    """

    tier: Tier
    memory: MemoryUse | None
    is_present: bool = False
    note: str = ""
    generation_tps: Speed | None = None

    @property
    def download_bytes(self) -> int | None:
        """What is still to be downloaded, about; None where that is unknown."""
        if self.is_present:
            return 0
        return self.memory.weights_bytes if self.memory is not None else None

    @property
    def memory_bytes(self) -> int | None:
        """Its share of the Mac's memory, its process included; None where that is unknown."""
        return self.memory.with_process_bytes if self.memory is not None else None

    @property
    def gpu_bytes(self) -> int | None:
        """The part of that which the GPU's limit is for; None where that is unknown."""
        return self.memory.total_bytes if self.memory is not None else None

    def to_document(self) -> dict[str, object]:
        """The tier as JSON."""
        tier = self.tier
        return {
            "name": tier.name,
            "model": tier.model,
            "quant": tier.quant,
            "source": tier.source,
            "port": tier.port,
            "context_tokens": tier.context_tokens,
            "concurrency": tier.concurrency,
            "role": tier.role,
            "memory_bytes": self.memory_bytes,
            "is_present": self.is_present,
        }


def recommended_tier(chosen: Option) -> PlannedTier:
    """The tier that a plan proposes; its port is still to be given."""
    candidate, workload = chosen.candidate, chosen.estimate.workload
    tier = Tier(
        name=chosen.kind.name,
        model=candidate.model,
        quant=candidate.quant,
        source=weights_of(candidate.entry, candidate.quant)[0],
        port=_NO_PORT_YET,
        vllm_flags={},
        context_tokens=workload.context_tokens,
        concurrency=workload.concurrency,
    )
    speed = chosen.estimate.generation_tps
    return PlannedTier(tier, chosen.estimate.memory, generation_tps=speed)


def reading_tier(chosen: ReadingTier) -> PlannedTier:
    """The tier beside those that chat that a plan proposes, which is never unloaded."""
    candidate, workload = chosen.candidate, chosen.estimate.workload
    tier = Tier(
        name=chosen.name,
        model=candidate.model,
        quant=candidate.quant,
        source=weights_of(candidate.entry, candidate.quant)[0],
        port=_NO_PORT_YET,
        vllm_flags={},
        context_tokens=workload.context_tokens,
        concurrency=workload.concurrency,
        role=chosen.role,
        pinned=True,
    )
    return PlannedTier(tier, chosen.estimate.memory)


def defined_tier(opened: OpenStack, tier: Tier) -> PlannedTier:
    """A tier of the stack as it is. Asks nobody but this machine."""
    entry, speed = entry_of(opened.catalog, tier), None
    name = entry.id if entry is not None else tier.source
    with suppress(StackError, CatalogError):  # what can't be read is reported where it is served
        if not tier.workers:
            speed = _speed(opened, describe_model(opened, name, tier.quant, ask_nobody))
    return PlannedTier(tier, planned_memory(opened, tier), generation_tps=speed)


def added_tier(
    opened: OpenStack,
    model: str,
    name: str | None,
    *,
    context_tokens: int | None,
    concurrency: int,
    hosts: tuple[Host, ...] = (),
) -> PlannedTier:
    """The tier that serves a model that the user named; its port is still to be given.

    Args:
        context_tokens: The context of a model that chats; None for the usual one. Others have the
            usual one, as those that a plan proposes.
        hosts: The Macs that the model is divided between, if it is.

    Raises:
        UsageError: When the tier's name isn't one, the model has no usable weights, or it can't be
            divided so.
        UnknownModelError: When there is no such model.
        ModelCodeError: When it brings Python code that wasn't allowed.
    """
    found = describe_model(opened, model)
    _refuse_code(opened, found)
    _refuse_speechless(found)
    _refuse_without_processor(opened, found)
    own_name = _name_of(found)
    quant = Quant(found.quant) if found.quant in Quant else None
    tier_name = name if name is not None else tier_name_of(own_name)
    if re.fullmatch(TIER_NAME, tier_name) is None:
        raise UsageError(
            f"{tier_name!r} can't be the name of a tier.",
            hint="Use up to 32 lower-case letters, digits and dashes, starting with a letter: "
            "--as coder.",
        )
    usual = usual_context(found.shape, tier_name, found.role)
    tier = Tier(
        name=tier_name,
        model=own_name,
        quant=quant,
        source=_source_of(found, quant),
        port=_NO_PORT_YET,
        vllm_flags={},
        context_tokens=(context_tokens or usual) if found.role.chats else usual,
        concurrency=concurrency,
        role=found.role,
        engine=ServingEngine.MLX_LM if hosts else found.engine_needed,
        hosts=hosts,
    )
    tier = _divided(opened, tier, found) if hosts else tier
    note, repo = found.note, found.found.repo
    if repo is not None and repo.revision is not None:
        note = f"`mlx-stack pull {repo.repo}@{repo.revision}` fetches that revision. {note}".strip()
    if tier.is_on_mlx_lm:
        note = f"mlx-lm serves it, an engine that `mlx-stack up` installs. {note}".strip()
    memory = memory_of(found.shape, found.fit, tier)
    return PlannedTier(
        tier, memory, note=note, generation_tps=None if hosts else _speed(opened, found)
    )


def _divided(opened: OpenStack, tier: Tier, found: DescribedModel) -> Tier:
    """The tier, its model divided in the way that is quicker if all its Macs are like this one.

    Raises:
        UsageError: When it can't be divided between so many.
    """
    if not found.role.chats:
        raise UsageError(f"{found.name} has the role {found.role}: only chat models are divided.")
    if found.shape is None:
        return tier
    here = HardwareProfile()
    with suppress(HwprobeError):
        here = known_hardware(opened.home)
    work = Workload(
        context_tokens=tier.context_tokens or DEFAULT_CONTEXT_TOKENS, concurrency=tier.concurrency
    )
    local = local_model_of(opened, tier)
    folder = local.path if local is not None and local.is_whole else None
    has_index = folder is None or (folder / LAYER_INDEX).is_file()
    kind = None if has_index else SplitKind.TENSOR
    divided = estimate_group(found.shape, [here] * tier.macs, work, kind).split
    if divided.refusals:
        hint = "Name another number of Macs with --host, or another model."
        if not has_index:
            hint = f"Its layers can't be divided either: its folder has no {LAYER_INDEX}. {hint}"
        raise UsageError(
            f"{found.name} can't be divided between {tier.macs} Macs: {divided.refusals[0]}.",
            hint=hint,
        )
    flags: dict[str, FlagValue] = {"pipeline": True} if divided.kind is SplitKind.PIPELINE else {}
    return msgspec.structs.replace(tier, role=ModelRole.CHAT, mlx_lm_flags=flags)


def _speed(opened: OpenStack, found: DescribedModel) -> Speed | None:
    with suppress(HwprobeError):
        expected = estimate_described(opened, found, known_hardware(opened.home))
        return expected.generation_tps if expected is not None else None
    return None


def _refuse_code(opened: OpenStack, found: DescribedModel) -> None:
    """Return where what is known of a model names no Python that wasn't allowed."""
    folder = found.folder
    if found.entry is not None:
        local = next(iter(local_models(opened, found.found)), None)
        folder = local.path if local is not None and local.is_whole else None
    if folder is not None:
        ensure_no_code(folder)
    elif found.own_code is not None:
        raise ModelCodeError(f"config.json of {found.name}", found.own_code, found.name)


def _refuse_speechless(found: DescribedModel) -> None:
    """Return where the engine has what a model needs to speak."""
    because = found.fit.unservable_because
    if found.role is ModelRole.TEXT_TO_SPEECH and because:
        raise UsageError(
            f"{found.name} can't be served: {because}.",
            hint="soprano-80m needs no such package: `mlx-stack init --add soprano-80m`. "
            "Qwen3-TTS doesn't either.",
        )


def _refuse_without_processor(opened: OpenStack, found: DescribedModel) -> None:
    """Return unless a model of sounds is here without its processor, as older pulls left it."""
    repo = found.entry.processor_repo if found.entry is not None else None
    if repo is None:
        return
    folders = [each.path for each in local_models(opened, found.found) if each.is_whole]
    if not folders or any(
        all((folder / name).is_file() for name in PROCESSOR_FILES) for folder in folders
    ):
        return
    raise UsageError(
        f"{folders[0]} can't be served yet: its tokenizer and processor are missing.",
        hint=f"`mlx-stack pull {found.name}` fetches them from {repo}.",
    )


def tier_name_of(model: str) -> str:
    """A tier's name for a model: its last part, in the letters that a tier's name may have."""
    name = re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-")
    name = name if name[:1].isalpha() else f"m-{name}"
    return name[:_LONGEST_NAME].rstrip("-")


def planned_memory(opened: OpenStack, tier: Tier) -> MemoryUse | None:
    """What a defined tier takes; None where neither the catalog nor its files tell."""
    entry, local = entry_of(opened.catalog, tier), local_model_of(opened, tier)
    folder = local.path if local is not None else opened.config.model_dir / tier.source
    if entry is None and not (folder / "config.json").is_file():
        return None
    fit, shape = fit_and_shape(entry, tier, folder)
    return memory_of(shape, fit, tier)


def _name_of(found: DescribedModel) -> str:
    """What the model is called at the gateway: its id, else the last part of its name."""
    if found.entry is not None:
        return found.entry.id
    folder = found.found.folder
    return folder.name if folder is not None else Path(found.name).name


def _source_of(model: DescribedModel, quant: Quant | None) -> str:
    """What the stack file says of where the weights are: a repository, or a folder.

    Raises:
        UsageError: When it is a `config.json` without weights, or the catalog has no such weights.
    """
    found = model.found
    if found.source is None and found.entry is not None and quant is not None:
        return weights_of(found.entry, quant)[0]
    assert found.source is not None
    if found.path is not None and found.path.is_file():
        local = inspect_folder(found.path.parent)
        if local is None or not local.is_whole:
            raise UsageError(f"{found.name} is a file: a tier serves a model's folder.")
    return found.source
