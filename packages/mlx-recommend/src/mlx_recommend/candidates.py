"""Catalog entries as candidates for a machine: at which precision, and whether by default."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from mlx_catalog import CatalogEntry, Quant
from mlx_catalog.engine import asks_for_newer, engine_fit
from mlx_recommend.inputs import Measurement, ModelShape, Workload
from mlx_recommend.memory import memory_use
from mlx_recommend.shapes import shape_of_entry


class Exclusion(StrEnum):
    """Why a model is never chosen unless the user names it."""

    GATED = "gated"
    """Its licence has to be accepted on the Hub, and no token is set."""
    UNSERVABLE = "unservable"
    """The pinned engine has no module for it."""
    NEEDS_NEWER = "needs-newer"
    """It asks for a newer mlx-lm than the pinned engine's."""
    DOUBTFUL = "doubtful"
    """The catalog itself doubts its figures."""
    UNKNOWN_MEMORY = "unknown-memory"
    """Its geometry is not known well enough to say what it takes."""
    NO_WEIGHTS = "no-weights"
    """Nobody has published MLX weights at any precision: they would have to be converted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A model at the precision that it would be served at.

    Attributes:
        quant: The precision: the wanted one where such weights are published, else the nearest.
        exclusion: Why it is not chosen by default, or None.
    """

    entry: CatalogEntry
    quant: Quant
    shape: ModelShape
    measurements: tuple[Measurement, ...] = ()
    exclusion: Exclusion | None = None

    @property
    def excluded_because(self) -> str:
        """What the engine lacks for it; "" where that isn't why it is excluded."""
        if self.exclusion not in (Exclusion.UNSERVABLE, Exclusion.NEEDS_NEWER):
            return ""
        return engine_fit(self.entry).unservable_because or asks_for_newer(self.entry)

    @property
    def model(self) -> str:
        """The catalog id."""
        return self.entry.id

    @property
    def quality(self) -> float | None:
        """The catalog's overall quality, 0 to 100."""
        return self.entry.quality.overall if self.entry.quality is not None else None

    @property
    def longest_tokens(self) -> int:
        """The context that the model was made for; 0 where it has none."""
        return self.entry.max_context_tokens or 0

    @property
    def keeps_context_cheap(self) -> bool:
        """Whether most layers keep a state of fixed size instead of a growing cache."""
        return self.shape.is_recurrent


def candidate_of(
    entry: CatalogEntry,
    quant: Quant,
    *,
    allow_gated: bool,
    measurements: Sequence[Measurement] = (),
) -> Candidate:
    """`entry` as a candidate at `quant`, or at the nearest precision that is published."""
    served = _published(entry, quant)
    shape = shape_of_entry(entry, served or quant)
    return Candidate(
        entry=entry,
        quant=served or quant,
        shape=shape,
        measurements=tuple(measurements),
        exclusion=_exclusion(entry, shape, has_weights=served is not None, allow_gated=allow_gated),
    )


def _published(entry: CatalogEntry, wanted: Quant) -> Quant | None:
    """The wanted precision, else the smallest with ready weights."""
    for quant in (wanted, *Quant):
        source = entry.sources.get(quant)
        if source is not None and source.hf_repo is not None:
            return quant
    return None


def _exclusion(
    entry: CatalogEntry, shape: ModelShape, *, has_weights: bool, allow_gated: bool
) -> Exclusion | None:
    if asks_for_newer(entry):
        return Exclusion.NEEDS_NEWER
    if engine_fit(entry).unservable_because:
        return Exclusion.UNSERVABLE
    if memory_use(shape, Workload()).total_bytes is None:
        return Exclusion.UNKNOWN_MEMORY
    if not has_weights:
        return Exclusion.NO_WEIGHTS
    if entry.confidence == "low":
        return Exclusion.DOUBTFUL
    if entry.gated and not allow_gated:
        return Exclusion.GATED
    return None
