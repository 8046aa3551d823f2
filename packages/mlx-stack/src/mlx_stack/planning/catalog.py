"""The catalog's models, with figures for a machine (decision 0037)."""

from dataclasses import dataclass

import msgspec

from mlx_catalog import Catalog, CatalogEntry, EngineFit, Quant, engine_fit
from mlx_hwprobe import HardwareProfile
from mlx_recommend import Estimate, Workload, estimate, shape_of_entry
from mlx_stack.hardware import asked_hardware
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.estimate import listed_estimate
from mlx_stack.planning.saved_results import known_speeds

_ENTRY_FIELDS = (
    "id",
    "aliases",
    "alias_notes",
    "name",
    "family",
    "params_b",
    "active_params_b",
    "architecture",
    "license",
    "gated",
    "max_context_tokens",
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
        tags: Tags that a model must have, all of them.
        tool_calling: Only models that call tools.
    """

    family: str | None = None
    tags: tuple[str, ...] = ()
    tool_calling: bool = False

    def chosen(self, catalog: Catalog) -> Catalog:
        """The entries of `catalog` that are wanted."""
        wanted = True if self.tool_calling else None
        return catalog.filter(family=self.family, tags=self.tags, tool_calling=wanted)


@dataclass(frozen=True, slots=True)
class CatalogModel:
    """One entry on the machine, at the precision that would be pulled."""

    entry: CatalogEntry
    quant: Quant
    estimate: Estimate
    fit: EngineFit

    def to_document(self) -> dict[str, object]:
        """The model as JSON."""
        plain = msgspec.to_builtins(self.entry)
        return {
            **{name: plain[name] for name in _ENTRY_FIELDS},
            "quality": plain["quality"] or _UNKNOWN_QUALITY,
            "sources": {quant: source for quant, source in plain["sources"].items() if source},
            "unservable_because": self.fit.unservable_because or None,
            "estimate": listed_estimate(self.estimate),
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
    speeds = known_speeds(opened.home.benchmarks, hardware)
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
