"""Whether a model runs on a machine, in how much memory, how fast (decisions 0042 and 0104)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mlx_catalog import (
    CatalogEntry,
    EightBitCache,
    EngineFit,
    ModelReading,
    ModelRole,
    Quant,
    ServingEngine,
    engine_fit,
    read_model,
)
from mlx_hwprobe import HardwareProfile
from mlx_recommend import (
    Estimate,
    Measurement,
    ModelShape,
    Workload,
    estimate,
    kept_context_bytes,
    memory_use,
    shape_of_entry,
    shape_of_model,
)
from mlx_stack.errors import MissingError
from mlx_stack.hardware import asked_hardware
from mlx_stack.models.find import FoundModel, find, guessing, local_models, offered
from mlx_stack.models.hub.environment import read_environment
from mlx_stack.models.name import HubRepo
from mlx_stack.models.own_code import code_field
from mlx_stack.models.serving import entry_of_folder
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.saved_results import known_speeds

if TYPE_CHECKING:
    from mlx_catalog.hub import RepoReading

type HubReader = Callable[[HubRepo], "RepoReading"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedModel:
    """A model that was named, and what is known of it without running it.

    Attributes:
        quant: The precision asked for, or what the files have; None where that is unknown.
        shape: What memory and speed follow from; None where the files don't tell enough.
        folder: Where it is on this disk, whole; None where it isn't, or it wasn't looked for.
        role: What it is for, as far as is known.
        own_code: The field of the Hub's `config.json` that names Python to run; None without one.
    """

    found: FoundModel
    quant: str | None
    shape: ModelShape | None
    fit: EngineFit
    folder: Path | None = None
    own_code: str | None = None
    note: str = ""
    role: ModelRole = ModelRole.CHAT

    def to_document(self, workload: Workload) -> dict[str, object]:
        """What an estimate is of, as JSON."""
        return {
            "model": self.name,
            "quant": self.quant,
            "role": self.role,
            "note": self.note or None,
            "context_tokens": workload.context_tokens,
            "concurrency": workload.concurrency,
            "speed_context_tokens": workload.tokens_in_speed,
        }

    def with_role(self, role: ModelRole) -> "DescribedModel":
        """The same model, of another role than its files tell."""
        shape = self.shape and replace(self.shape, role=role)
        return replace(self, role=role, shape=shape)

    @property
    def name(self) -> str:
        """The catalog id, the repository, or the path."""
        return self.found.entry.id if self.found.entry is not None else self.found.name

    @property
    def entry(self) -> CatalogEntry | None:
        """The catalog's entry, where it has one."""
        return self.found.entry

    @property
    def engine_needed(self) -> ServingEngine | None:
        """The engine that it needs where that isn't the usual one of its role."""
        needs_it = self.role.chats and self.fit.engine is ServingEngine.MLX_LM
        return ServingEngine.MLX_LM if needs_it else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EightBitFigures:
    """What changes if the engine keeps the caches of finished requests in 8 bits.

    Attributes:
        facts: Whether answers stay what they are, and who measured that.
        conversation_bytes: What is kept of one conversation at the full context.
        plain_bytes: The same in 16 bits.
        total_bytes: What the model takes in all.
    """

    facts: EightBitCache
    conversation_bytes: int | None
    plain_bytes: int | None
    total_bytes: int | None

    def to_document(self) -> dict[str, object]:
        """The figures as JSON."""
        return {
            "safe": self.facts.safe,
            "source": self.facts.source,
            "conversation_bytes": self.conversation_bytes,
            "conversation_bytes_16bit": self.plain_bytes,
            "total_bytes": self.total_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEstimate:
    """A model on a machine.

    Attributes:
        estimate: What to expect; None where nothing is known of the model's parameters.
    """

    model: DescribedModel
    hardware: HardwareProfile
    workload: Workload
    estimate: Estimate | None

    @property
    def has_mtp_heads(self) -> bool:
        """Whether the catalog knows that the model has heads for multi-token prediction."""
        return self.model.entry is not None and self.model.entry.has_mtp_heads

    @property
    def eight_bit_cache(self) -> EightBitFigures | None:
        """The figures with an 8-bit KV cache; None where no one measured what it does to answers.

        They are given where it does harm as well: that is known too.
        """
        facts = self.model.entry.kv_8bit if self.model.entry is not None else None
        if facts is None or self.estimate is None:
            return None
        shape, work = self.estimate.shape, replace(self.workload, kept_kv_bits=8)
        return EightBitFigures(
            facts=facts,
            conversation_bytes=kept_context_bytes(shape, work),
            plain_bytes=kept_context_bytes(shape, self.workload),
            total_bytes=memory_use(shape, work).total_bytes,
        )

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        expected, eight_bit = self.estimate, self.eight_bit_cache
        return {
            **self.model.to_document(self.workload),
            "hardware": self.hardware.to_document(),
            **(unknown_figures(self.hardware) if expected is None else expected.to_document()),
            "mtp": self._mtp_document() if self.has_mtp_heads else None,
            "kv_8bit": eight_bit.to_document() if eight_bit is not None else None,
        }

    def _mtp_document(self) -> dict[str, object]:
        speed = self.estimate.mtp_tps if self.estimate is not None else None
        drafts = self.estimate.shape.drafts if self.estimate is not None else None
        return {
            "generation_tps": speed.to_document() if speed is not None else None,
            "acceptance": {"low": drafts.low, "high": drafts.high} if drafts is not None else None,
            "source": drafts.source if drafts is not None else None,
        }


def unknown_figures(hardware: HardwareProfile) -> dict[str, object]:
    """The fields of an estimate where nothing can be estimated."""
    parts = ("weights", "kv_cache", "state", "overhead", "total", "prefix_cache", "process")
    limit_bytes = hardware.gpu_memory_limit_bytes or hardware.memory_bytes
    memory = {**{f"{part}_bytes": None for part in parts}, "limit_bytes": limit_bytes}
    names = ("fits", "max_context_tokens", "read_bytes_per_token")
    names = (*names, "generation_tps", "prompt_tps", "ttft_s")
    return {**dict.fromkeys(names), "memory": memory}


def listed_estimate(expected: Estimate) -> dict[str, object]:
    """An estimate in a list of models: with what it is for."""
    return {
        "quant": expected.shape.quant or None,
        "context_tokens": expected.workload.context_tokens,
        "concurrency": expected.workload.concurrency,
        **expected.to_document(),
    }


def ask_nobody(repo: HubRepo) -> NoReturn:
    """Raises `MissingError`: a reader of the Hub for those who may only look on this machine."""
    raise MissingError(f"{repo.repo} is only on the Hub.")


def read_from_hub(repo: HubRepo) -> "RepoReading":
    """What the Hub says of a repository, with the user's endpoint and token.

    Raises:
        MissingError: When `HF_HUB_OFFLINE` forbids asking.
        StackError: When it doesn't answer, or has no such repository.
    """
    from mlx_stack.models.hub.client import open_hub

    environment = read_environment()
    if environment.is_offline:
        raise MissingError(
            f"{repo.repo} is not in the catalog, and HF_HUB_OFFLINE prevents requests to the Hub.",
            hint="Unset HF_HUB_OFFLINE, or name a local folder.",
        )
    where = (repo.repo, repo.revision or "main")
    with open_hub(environment.ready(), *where) as hub:
        return hub.read(*where)


def estimate_model(
    opened: OpenStack,
    name: str,
    *,
    hardware_spec: str | None = None,
    quant: Quant | None = None,
    workload: Workload | None = None,
    use_measured: bool = True,
    read_hub: HubReader = read_from_hub,
) -> ModelEstimate:
    """What to expect of a model; reads only.

    Args:
        name: A catalog id, a Hub repository, a model folder or a `config.json`.
        hardware_spec: The machine; None is this one.
        quant: The precision; None is the model's own, or for a catalog entry the default.
        workload: Context and concurrency; None is the defaults.
        use_measured: Whether saved and published figures replace computed ones.
        read_hub: Asks the Hub, only where nothing else knows the model.

    Raises:
        UnknownModelError: When there is no such model; with the nearest names of the catalog.
        UnreadableModelError: When the local files are damaged.
        StackError: When the Hub doesn't answer, or has no such repository.
    """
    model = describe_model(opened, name, quant, read_hub)
    hardware = asked_hardware(opened.home, hardware_spec)
    workload = workload or Workload()
    expected = estimate_described(opened, model, hardware, workload, use_measured=use_measured)
    return ModelEstimate(model=model, hardware=hardware, workload=workload, estimate=expected)


def estimate_described(
    opened: OpenStack,
    model: DescribedModel,
    hardware: HardwareProfile,
    workload: Workload | None = None,
    *,
    use_measured: bool = True,
) -> Estimate | None:
    """What to expect of a model that was looked up; None where its parameters are unknown."""
    if model.shape is None:
        return None
    known = _measurements(opened, model, hardware) if use_measured else ()
    return estimate(model.shape, hardware, workload or Workload(), known)


def describe_model(
    opened: OpenStack,
    text: str,
    quant: Quant | None = None,
    read_hub: HubReader = read_from_hub,
) -> DescribedModel:
    """The model that `text` means, from the catalog, its files here, or the Hub, in this order.

    Args:
        quant: The precision asked for; None is the model's own, or for an entry the default.
        read_hub: Asks the Hub, only where nothing else knows the model.
    """
    found = find(opened, text)
    if found.entry is not None:
        own = found.entry.quant_of(found.repo.repo) if found.repo is not None else None
        wanted = quant or own or offered(found.entry, opened.config.default_quant)
        shape, fit = shape_of_entry(found.entry, wanted), engine_fit(found.entry)
        role = found.entry.role
        return DescribedModel(
            found=found, quant=wanted, shape=shape, fit=fit, note=found.note, role=role
        )
    if found.path is not None:
        described = _described(found, read_model(found.path), quant, folder=found.folder)
        entry = entry_of_folder(opened.catalog, found.folder) if found.folder is not None else None
        return described if entry is None else described.with_role(entry.role)
    local = next(iter(local_models(opened, found, quant)), None)
    if local is not None and local.is_whole:
        return _described(found, read_model(local.path), quant, folder=local.path)
    assert found.repo is not None
    with guessing(opened, found.repo):
        reading = read_hub(found.repo)
    return _described(found, reading.model, quant, own_code=code_field(reading.config))


def _described(
    found: FoundModel,
    model: ModelReading,
    quant: Quant | None,
    *,
    folder: Path | None = None,
    own_code: str | None = None,
) -> DescribedModel:
    note, shape = "; ".join(model.notes), shape_of_model(model, quant)
    if (shape is None or shape.weights_bytes is None) and not note:
        note = "its configuration doesn't say how many parameters it has"
    said = quant or model.quant or model.quantization or None
    return DescribedModel(
        found=found,
        quant=said,
        shape=shape,
        fit=engine_fit(model),
        folder=folder,
        own_code=own_code,
        note=note,
        role=model.role,
    )


def _measurements(
    opened: OpenStack, model: DescribedModel, hardware: HardwareProfile
) -> Sequence[Measurement]:
    speeds = known_speeds(opened, hardware)
    if model.entry is not None:
        return speeds.of_entry(model.entry, opened.config.default_quant)
    return speeds.of_source(model.found.source or "", model.quant or "")
