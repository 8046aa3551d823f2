"""Lists of models with figures for a machine: the catalog's (decision 0037), the Hub's (0039)."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from mlx_catalog import (
    Catalog,
    CatalogEntry,
    CatalogError,
    EngineFit,
    ModelRole,
    Quant,
    engine_fit,
)
from mlx_catalog.model_files import describe
from mlx_hwprobe import HardwareProfile
from mlx_recommend import Estimate, Workload, estimate, shape_of_entry, shape_of_model
from mlx_stack.errors import StackError, UsageError
from mlx_stack.hardware import asked_hardware
from mlx_stack.models.hub.environment import HubEnvironment, read_environment
from mlx_stack.models.name import HubRepo, parse
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import listed_estimate
from mlx_stack.planning.saved_results import known_speeds

if TYPE_CHECKING:
    from mlx_catalog.hub import HubModel, RepoReading

_LISTED = 20
_ENTRY_FIELDS = (
    "id",
    "aliases",
    "alias_notes",
    "name",
    "family",
    "role",
    "params_b",
    "active_params_b",
    "architecture",
    "license",
    "gated",
    "max_context_tokens",
    "dimensions",
    "matryoshka",
    "pooling",
    "processor_repo",
    "capabilities",
    "tags",
    "confidence",
    "notes",
)
_SCORES = ("overall", "coding", "reasoning", "instruction_following")
_UNKNOWN_QUALITY: dict[str, object] = {"source": {}, **dict.fromkeys(_SCORES)}


@dataclass(frozen=True, slots=True)
class ModelFilter:
    """Which models are wanted; where the answer is unknown, a model is left out.

    Attributes:
        family: The start of a family's name, or None for all.
        role: What it is for; None for anything.
    """

    family: str | None = None
    tags: tuple[str, ...] = ()
    tool_calling: bool = False
    role: ModelRole | None = None

    def chosen(self, catalog: Catalog) -> Catalog:
        """The entries of `catalog` that are wanted."""
        wanted = True if self.tool_calling else None
        return catalog.filter(
            family=self.family, tags=self.tags, tool_calling=wanted, role=self.role
        )


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One entry on the machine, at the precision that would be pulled."""

    entry: CatalogEntry
    quant: Quant
    estimate: Estimate
    fit: EngineFit

    def to_document(self) -> dict[str, object]:
        """The model as JSON."""
        return {
            **entry_document(self.entry),
            "unservable_because": self.fit.unservable_because or None,
            "estimate": listed_estimate(self.estimate),
        }


def entry_document(entry: CatalogEntry) -> dict[str, object]:
    """What the catalog says of a model, as JSON."""
    plain = msgspec.to_builtins(entry)
    return {
        **{name: plain[name] for name in _ENTRY_FIELDS},
        "quality": plain["quality"] or _UNKNOWN_QUALITY,
        "sources": {quant: source for quant, source in plain["sources"].items() if source},
    }


@dataclass(frozen=True, slots=True)
class CatalogListing:
    """The wanted entries by family and size, and the machine that their figures are for."""

    hardware: HardwareProfile
    models: tuple[CatalogModel, ...]
    total: int

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "hardware": self.hardware.to_document(),
            "models": [model.to_document() for model in self.models],
        }


def list_catalog(
    opened: OpenStack, wanted: ModelFilter, *, hardware_spec: str | None = None
) -> CatalogListing:
    """The catalog's models that are `wanted`; reads only.

    Raises:
        InvalidCatalogError: When an entry of the user's breaks the schema.
        InvalidFileError: When the configuration, a saved result or the saved profile is damaged.
    """
    hardware = asked_hardware(opened.home, hardware_spec)
    default = opened.config.default_quant
    speeds = known_speeds(opened, hardware)
    models: list[CatalogModel] = []
    for entry in wanted.chosen(opened.catalog):
        quant = available_quant(entry, default)
        known = speeds.of_entry(entry, default)
        expected = estimate(shape_of_entry(entry, quant), hardware, Workload(), known)
        models.append(CatalogModel(entry, quant, expected, engine_fit(entry)))
    return CatalogListing(hardware, tuple(models), len(opened.catalog))


def available_quant(entry: CatalogEntry, default: Quant) -> Quant:
    """`default` where the entry has such weights, else the smallest that it has."""
    known: list[Quant] = [quant for quant, _ in entry.sources.items()]
    return default if default in known or not known else known[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class AvailableModel:
    """One repository of the Hub.

    Attributes:
        reading: Its own configuration; None where the catalog knows better, or it is unreadable.
        size_bytes: Its weights; None where neither Hub nor catalog says.
        note: Why something is missing; "" where nothing is.
    """

    listed: "HubModel"
    entry: CatalogEntry | None
    reading: "RepoReading | None"
    size_bytes: int | None
    estimate: Estimate | None
    note: str

    @property
    def role(self) -> ModelRole | None:
        """What it is for, as far as the catalog or its files tell."""
        if self.entry is not None:
            return self.entry.role
        return self.reading.model.role if self.reading is not None else None

    def to_document(self) -> dict[str, object]:
        """The repository as JSON."""
        model_type = self.entry.model_type if self.entry else None
        return {
            "repo": self.listed.repo,
            "catalog_id": self.entry.id if self.entry else None,
            "role": self.role,
            "downloads": self.listed.downloads,
            "likes": self.listed.likes,
            "gated": self.listed.gated,
            "last_modified": self.listed.last_modified or None,
            "size_bytes": self.size_bytes,
            "model_type": self.reading.model.model_type if self.reading else model_type,
            "quantization": self.reading.model.quantization if self.reading else None,
            "note": self.note or None,
            "estimate": listed_estimate(self.estimate) if self.estimate else None,
        }


@dataclass(frozen=True, slots=True)
class HubListing:
    """The repositories that were found, most downloaded first, and the machine."""

    query: str
    endpoint: str
    hardware: HardwareProfile
    models: tuple[AvailableModel, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {
            "query": self.query,
            "endpoint": self.endpoint,
            "hardware": self.hardware.to_document(),
            "models": [model.to_document() for model in self.models],
        }


def search_hub(
    opened: OpenStack,
    query: str,
    wanted: ModelFilter,
    *,
    hardware_spec: str | None = None,
    environment: HubEnvironment | None = None,
) -> HubListing:
    """The Hub's MLX models that match `query` and are `wanted`.

    Only listings, file lists and configurations are asked for, never weights. `environment` says
    which hub to ask; None is this process's.

    Raises:
        StackError: When `HF_HUB_OFFLINE` forbids asking, or the Hub doesn't answer usably.
    """
    from mlx_stack.models.hub.client import open_hub

    environment = environment or read_environment()
    if environment.is_offline:
        raise StackError(
            "HF_HUB_OFFLINE prevents requests to the Hub.",
            hint="Unset it, or see `mlx-stack models list --catalog`, which needs no connection.",
        )
    with suppress(UsageError):  # anything else is a query too
        named = parse(query, environment.endpoint)
        query = named.repo if isinstance(named, HubRepo) else query
    hardware, catalog = asked_hardware(opened.home, hardware_spec), opened.catalog
    with open_hub(environment.ready()) as hub:
        found = [
            row for row in hub.search(query, limit=_LISTED) if _is_wanted(row, catalog, wanted)
        ]
        unknown = [row.repo for row in found if catalog.by_repo(row.repo) is None]
        readings = hub.read_many(unknown)
    models = tuple(_described(row, catalog.by_repo(row.repo), readings, hardware) for row in found)
    return HubListing(query, environment.endpoint, hardware, models)


def _is_wanted(row: "HubModel", catalog: Catalog, wanted: ModelFilter) -> bool:
    entry = catalog.by_repo(row.repo)
    if wanted.tool_calling and (entry is None or entry.capabilities.tool_calling is not True):
        return False
    tags = {*row.tags, *(entry.tags if entry is not None else ())}
    if not set(wanted.tags) <= tags:
        return False
    if wanted.role is not None and (entry is None or entry.role is not wanted.role):
        return False
    family = (wanted.family or "").lower()
    return family in row.repo.lower() or (entry is not None and entry.family.startswith(family))


def _described(
    row: "HubModel",
    entry: CatalogEntry | None,
    readings: Mapping[str, "RepoReading | CatalogError"],
    hardware: HardwareProfile,
) -> AvailableModel:
    found = readings.get(row.repo)
    reading = None if isinstance(found, CatalogError) else found
    size_bytes = row.weights_bytes or (reading.weights_bytes if reading is not None else None)
    quant = entry.quant_of(row.repo) if entry is not None else None
    shape, note = None, "" if found is None else str(found)
    if entry is not None and quant is not None:
        shape, note = shape_of_entry(entry, quant), ""
        size_bytes = size_bytes or shape.weights_bytes
        shape = replace(shape, weights_bytes=size_bytes)
    elif reading is not None:
        model = describe(row.repo, reading.config, file_bytes=size_bytes)
        shape, note = shape_of_model(model), "; ".join(model.notes)
        shape = shape and replace(shape, role=reading.model.role)
    return AvailableModel(
        listed=row,
        entry=entry,
        reading=reading,
        size_bytes=size_bytes,
        estimate=None if shape is None else estimate(shape, hardware),
        note=note,
    )
