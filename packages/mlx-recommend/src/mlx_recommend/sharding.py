"""One model on several Macs: whether it can be divided, and what each of them holds.

`split` is the arithmetic of mlx-lm 0.32. Tensor parallelism divides the layers evenly; embedding
and output layer stay whole on each Mac, unless the type divides the latter. Pipeline parallelism
deals out whole layers, the first Mac getting the last ones (decision 0116).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from mlx_catalog import Division
from mlx_recommend.inputs import ModelShape, UndividedWeights, Workload
from mlx_recommend.memory import MemoryUse, memory_use


class SplitKind(StrEnum):
    """How a model is divided."""

    TENSOR = "tensor"
    """Each Mac has a part of every layer."""
    PIPELINE = "pipeline"
    """Each Mac has some of the layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What one Mac has of a model.

    Attributes:
        rank: Its number in the group; the first is 0.
        layers: The layers that it has, or has a part of.
        shape: The part as if it were a model: what its memory and speed follow from.
    """

    rank: int
    layers: int
    shape: ModelShape

    def memory(self, workload: Workload) -> MemoryUse:
        """What the Mac needs for its part, with every request at its full context."""
        return memory_use(self.shape, workload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A model divided between Macs.

    Attributes:
        refusals: Why it can't be divided in this way, each as a sentence without a full stop; none
            where it can, or where its type is unknown.
        shares: What each Mac gets; none where it can't be divided, or too little is known of it.
    """

    kind: SplitKind
    macs: int
    refusals: tuple[str, ...] = ()
    shares: tuple[Share, ...] = ()


def split(shape: ModelShape, macs: int, kind: SplitKind) -> Split:
    """The model `shape` divided between so many Macs.

    A type that the table of types lacks isn't refused: the engine may know it.
    """
    refusals = tuple(_refusals(shape, macs, kind))
    if refusals or shape.division is None or shape.undivided is None:
        return Split(kind=kind, macs=macs, refusals=refusals)
    if kind is SplitKind.TENSOR:
        part = _tensor_part(shape, shape.division, shape.undivided, macs)
        shares = [
            Share(rank=rank, layers=shape.division.layers, shape=part) for rank in range(macs)
        ]
    else:
        shares = [
            Share(rank=rank, layers=layers, shape=_pipeline_part(shape, shape.undivided, layers))
            for rank, layers in enumerate(pipeline_layers(shape.division.layers, macs))
        ]
    return Split(kind=kind, macs=macs, shares=tuple(shares))


def pipeline_layers(layers: int, macs: int) -> tuple[int, ...]:
    """How many layers each Mac gets, the first one first: those get what is left over."""
    base, extra = divmod(layers, macs)
    return tuple(base + (rank < extra) for rank in range(macs))


def _refusals(shape: ModelShape, macs: int, kind: SplitKind) -> Iterator[str]:
    division = shape.division
    if not shape.role.chats:
        yield "only models that chat are divided between Macs"
    elif division is None:
        return
    elif not division.tensor and not division.pipeline:
        yield f"mlx-lm can't divide models of the type {division.model_type} between Macs"
    elif kind is SplitKind.PIPELINE:
        if not division.pipeline:
            yield f"mlx-lm can divide models of the type {division.model_type} by tensor only"
        elif division.layers < macs:
            yield f"it has {division.layers} layers, fewer than there are Macs"
    elif not division.tensor:
        yield f"mlx-lm can divide models of the type {division.model_type} by pipeline only"
    else:
        yield from _tensor_refusals(division, macs)


def _tensor_refusals(division: Division, macs: int) -> Iterator[str]:
    uneven = [
        f"its {each.count:,} {each.words} can't be divided evenly by {macs} Macs"
        for each in division.counts
        if each.count % macs and not (each.is_shared and macs % each.count == 0)
    ]
    yield from uneven
    for each in division.widths:
        if uneven:
            return  # so is the width of what there is an uneven number of
        if each.width % macs:
            yield f"the width of {each.words}, {each.width:,}, can't be divided by {macs} Macs"
        elif each.width // macs % each.group_size:
            part = f"{each.width:,} divided by {macs} Macs"
            groups = f"groups of {each.group_size} quantized weights"
            yield f"the width of {each.words}, {part}, isn't a whole number of {groups}"


def _tensor_part(
    shape: ModelShape, division: Division, whole: UndividedWeights, macs: int
) -> ModelShape:
    """What each Mac gets of every layer."""
    output_bytes = 0.0 if division.divides_output else whole.output_bytes
    output_params = 0.0 if division.divides_output else whole.output_params
    read_bytes = whole.in_layers_bytes + output_bytes
    read_params = whole.in_layers_params + output_params
    # latents are of all heads together, so that each Mac caches all of them
    kv_parts = min(macs, division.kv_heads) if division.kv_heads else 1
    return replace(
        shape,
        weights_bytes=_part(shape.weights_bytes, macs, read_bytes + whole.beside_bytes),
        decode_weight_bytes=_part_of(shape.decode_weight_bytes, macs, read_bytes),
        routed_weight_bytes=shape.routed_weight_bytes / macs,
        decode_params=_part_of(shape.decode_params, macs, read_params),
        prefill_params=_part_of(shape.prefill_params, macs, whole.in_layers_params),
        routed_params=shape.routed_params / macs,
        fp4_params=shape.fp4_params / macs,
        growing_kv_elements=_part(shape.growing_kv_elements, kv_parts),
        sliding_kv_elements=_part(shape.sliding_kv_elements, kv_parts),
        state_bytes=_part(shape.state_bytes, macs),
        growing_query_heads=math.ceil(shape.growing_query_heads / macs),
        sliding_query_heads=math.ceil(shape.sliding_query_heads / macs),
        growing_score_heads=math.ceil(shape.growing_score_heads / macs),
        sliding_score_heads=math.ceil(shape.sliding_score_heads / macs),
    )


def _pipeline_part(shape: ModelShape, whole: UndividedWeights, layers: int) -> ModelShape:
    """What a Mac with so many of the layers gets; layers are taken to be alike."""
    parts = (shape.layers or layers) / layers
    ends_bytes = whole.output_bytes + whole.beside_bytes
    return replace(
        shape,
        weights_bytes=_part(shape.weights_bytes, parts, ends_bytes),
        decode_weight_bytes=_part_of(shape.decode_weight_bytes, parts, whole.output_bytes),
        routed_weight_bytes=shape.routed_weight_bytes / parts,
        decode_params=_part_of(shape.decode_params, parts, whole.output_params),
        prefill_params=_part_of(shape.prefill_params, parts, 0.0),
        routed_params=shape.routed_params / parts,
        fp4_params=shape.fp4_params / parts,
        layers=layers,
        prefill_layers=_part(shape.prefill_layers, parts),
        parts={part: round(count / parts) for part, count in shape.parts.items()},
        growing_kv_elements=_part(shape.growing_kv_elements, parts),
        sliding_kv_elements=_part(shape.sliding_kv_elements, parts),
        state_bytes=_part(shape.state_bytes, parts),
        growing_query_heads=math.ceil(shape.growing_query_heads / parts),
        sliding_query_heads=math.ceil(shape.sliding_query_heads / parts),
    )


def _part(amount: int | None, parts: float, whole: float = 0.0) -> int | None:
    found = _part_of(amount, parts, whole)
    return None if found is None else math.ceil(found - 1e-6)


def _part_of(amount: float | None, parts: float, whole: float) -> float | None:
    """What is kept whole, and one of so many parts of the rest."""
    if amount is None:
        return None
    kept = min(whole, amount)
    return kept + (amount - kept) / parts
