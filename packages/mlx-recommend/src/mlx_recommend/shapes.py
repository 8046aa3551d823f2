"""A model's shape from what the catalog, or its own files, say of it."""

from dataclasses import replace

from mlx_catalog import (
    CatalogEntry,
    Division,
    Geometry,
    ModelReading,
    Quant,
    division_of_entry,
)
from mlx_catalog.model_types import model_types
from mlx_catalog.weights import TensorRole, Weights
from mlx_recommend.calibration import FUSED_HEAD_DIMS, LayerPart
from mlx_recommend.inputs import Drafts, ModelShape, UndividedWeights


def shape_of_entry(entry: CatalogEntry, quant: Quant) -> ModelShape:
    """The shape of a catalog entry at `quant`, whether or not such weights are published."""
    source = entry.sources.get(quant)
    bits = (source and source.bits_per_weight) or Quant(quant).bits_per_weight
    fp4_experts = quant == Quant.MXFP4 or (source is not None and source.fp4_experts)
    weights = _weights_of_entry(entry).at(bits, fp4_experts=fp4_experts)
    if source is not None and source.disk_size_gb and not source.disk_size_estimated:
        weights = weights.filling(round(source.disk_size_gb * 1e9))
    shape = _shape_of_weights(entry.id, quant, weights, entry.geometry, entry.model_type)
    known = entry.mtp_acceptance
    drafts = Drafts(low=known.low, high=known.high, source=known.source) if known else None
    shape = replace(shape, max_context_tokens=entry.max_context_tokens, drafts=drafts)
    division = division_of_entry(entry, Quant(quant))
    shape = replace(shape, role=entry.role, division=division)
    return replace(shape, undivided=_undivided(weights, division))


def shape_of_model(model: ModelReading, quant: Quant | None = None) -> ModelShape | None:
    """The shape of the model that was read, unknown where its files don't tell enough.

    Args:
        quant: The precision to suppose; None takes their own.

    Returns:
        The shape; None where the files tell neither of layers nor of weights.
    """
    weights = model.weights
    if weights is None and model.geometry is None:
        return None
    if weights is not None and quant is not None and quant != model.quant:
        weights = weights.at(quant.bits_per_weight)
    name = quant or model.quant or model.quantization
    shape = _shape_of_weights(model.name, name, weights, model.geometry, model.model_type)
    return replace(
        shape,
        max_context_tokens=model.max_context_tokens,
        role=model.role,
        # a type whose layers aren't known may keep a state as well
        state_bytes=shape.state_bytes if model.known else None,
        division=model.division,
        undivided=_undivided(weights, model.division),
    )


def _shape_of_weights(
    name: str, quant: str, weights: Weights | None, geometry: Geometry | None, model_type: str
) -> ModelShape:
    shape = ModelShape(name=name, quant=quant, weights_bytes=None)
    if weights is not None:
        share, prefilled = weights.active_share or 1.0, _prefilled(geometry)
        read, output = weights.read_params, weights.params.get(TensorRole.OUTPUT, 0)
        routed = weights.params.get(TensorRole.ROUTED, 0) * share
        shape = replace(
            shape,
            weights_bytes=weights.total_bytes,
            decode_weight_bytes=weights.read_bytes,
            routed_weight_bytes=(weights.size_bytes or {}).get(TensorRole.ROUTED, 0) * share,
            expert_share=share,
            float16=weights.float16,
            fp4_params=routed if weights.fp4 else 0,
            decode_params=read,
            prefill_params=None if read is None else (read - output) * prefilled,
            routed_params=routed,
        )
    if geometry is None:
        return shape
    return replace(
        shape,
        layers=geometry.layers,
        prefill_layers=round(geometry.layers * _prefilled(geometry)),
        parts=_parts(model_type, geometry),
        experts=geometry.experts.total if geometry.experts is not None else 0,
        hidden_size=geometry.hidden_size,
        layer_values=_layer_values(geometry),
        layer_score_heads=0 if _head_dim(geometry) in FUSED_HEAD_DIMS else _query_heads(geometry),
        growing_kv_elements=geometry.growing_kv_elements_per_token,
        sliding_kv_elements=geometry.sliding_kv_elements_per_token,
        sliding_window=geometry.sliding_window,
        state_bytes=geometry.state_bytes_per_sequence,
        query_group=_query_group(geometry),
        growing_query_heads=(geometry.full_attention_layers or 0) * _query_heads(geometry),
        sliding_query_heads=(geometry.sliding_layers or 0) * _query_heads(geometry),
        growing_score_heads=_growing_score_heads(geometry),
        sliding_score_heads=_sliding_score_heads(geometry),
        vocabulary=geometry.vocab_size or 0,
    )


def _undivided(weights: Weights | None, division: Division | None) -> UndividedWeights | None:
    """What Macs that serve a model together keep whole each; None where that is unknown."""
    if weights is None or division is None or weights.size_bytes is None:
        return None
    params, sizes = weights.params, weights.size_bytes
    if TensorRole.UNKNOWN in sizes:
        return None
    dense_params, dense_bytes = params.get(TensorRole.DENSE, 0), sizes.get(TensorRole.DENSE, 0)
    whole = min(division.whole_params, dense_params)
    return UndividedWeights(
        output_bytes=sizes.get(TensorRole.OUTPUT, 0),
        output_params=params.get(TensorRole.OUTPUT, 0),
        beside_bytes=sizes.get(TensorRole.LOOKED_UP, 0) + sizes.get(TensorRole.ASIDE, 0),
        in_layers_bytes=whole * dense_bytes / dense_params if dense_params else 0.0,
        in_layers_params=whole,
    )


def _weights_of_entry(entry: CatalogEntry) -> Weights:
    """Parameters from the published totals; what isn't distinguished counts as read."""
    geometry, total = entry.geometry, entry.loaded_params_b * 1e9
    embedding = geometry.embedding_params or 0
    looked_up = geometry.per_layer_embedding_params
    looked_up += embedding if geometry.tied_embeddings is False else 0
    aside = (entry.tower_params_b or 0) * 1e9 if entry.capabilities.vision else 0
    text = total - aside - looked_up
    if text <= embedding:  # so few parameters are not a model of these widths
        return Weights(params={TensorRole.UNKNOWN: total}, size_bytes=None)
    read = text if entry.active_params_b is None else min(entry.active_params_b * 1e9, text)
    output, share = min(embedding, read / 2), _expert_share(entry)
    routed = 0.0 if share == 1 else min((text - read) / (1 - share), text - output)
    params = {
        TensorRole.DENSE: text - output - routed,
        TensorRole.OUTPUT: output,
        TensorRole.ROUTED: routed,
        TensorRole.LOOKED_UP: looked_up,
        TensorRole.ASIDE: aside,
    }
    return Weights(params=params, size_bytes=None, active_share=share, float16=_is_float16(entry))


_FIRST_BFLOAT16 = "2025-04"
"""Text models converted before that were made float16 unless their converter was told otherwise
(https://github.com/Blaizzy/mlx-vlm/pull/323 and mlx-lm's like change keep the vendor's type)."""


def _is_float16(entry: CatalogEntry) -> bool:
    released = entry.release_date or ""
    return "" < released < _FIRST_BFLOAT16 and not entry.capabilities.vision


def _expert_share(entry: CatalogEntry) -> float:
    """Share of the routed experts that a token uses; 1 for a dense model."""
    if entry.active_params_b is None or entry.active_params_b >= entry.params_b:
        return 1.0
    experts = entry.geometry.experts
    if experts is not None and experts.active is not None:
        return min(experts.active / experts.total, 1.0)
    return entry.active_params_b / entry.params_b


def _parts(model_type: str, geometry: Geometry) -> dict[LayerPart, int]:
    """What the layers are made of; where layers without a mixer are listed, each is one part."""
    recurrent, row = geometry.recurrent, model_types().get(model_type)
    states = (recurrent.layers or 0) if recurrent is not None else 0
    attending = (geometry.full_attention_layers or 0) + (geometry.sliding_layers or 0)
    attending += geometry.shared_kv_layers or 0
    without_mixer = max(geometry.layers - attending - states, 0)
    if geometry.full_attention_layers is None:
        attending, without_mixer = geometry.layers - states, 0
    if recurrent is not None and recurrent.kind == "shortconv":
        attending, states = attending + states, 0
    has_latents, has_experts = geometry.mla_latent_dim is not None, geometry.experts is not None
    is_sandwich = row is not None and row.sandwich_norms
    found = {
        LayerPart.LATENT if has_latents else LayerPart.ATTENTION: attending,
        LayerPart.RECURRENT: states,
        LayerPart.EXPERTS if has_experts else LayerPart.NETWORK: without_mixer or geometry.layers,
        LayerPart.SANDWICH: geometry.layers if is_sandwich else 0,
    }
    return {part: layers for part, layers in found.items() if layers}


def _query_heads(geometry: Geometry) -> int:
    return geometry.query_heads or round(_query_group(geometry) * (geometry.kv_heads or 0))


def _head_dim(geometry: Geometry) -> int | None:
    """The width of a head; where it isn't said, they share the stream."""
    heads = geometry.query_heads
    shared = geometry.hidden_size // heads if geometry.hidden_size and heads else None
    return geometry.head_dim or shared


def _layer_values(geometry: Geometry) -> int | None:
    """What the operations of a layer write of a token; None where its width is unknown.

    Queries, keys and values, and what attention makes of them; the stream, which two norms, two
    projections and two sums write; and the three arrays of a gated network. Where nothing else is
    said, heads share the stream and the network is four times as wide: so it is in encoders.
    """
    width = geometry.hidden_size
    if width is None:
        return None
    heads, one = _query_heads(geometry), _head_dim(geometry)
    queries = heads * one if heads and one else width
    keys = geometry.kv_heads * one if geometry.kv_heads and one else queries
    return 2 * queries + 2 * keys + 6 * width + 3 * (geometry.feed_forward_size or 4 * width)


def _growing_score_heads(geometry: Geometry) -> int:
    """Scores that a layer over the whole context keeps of each pair of tokens."""
    if not geometry.full_attention_layers:
        return 0
    if geometry.mla_latent_dim is not None:  # the positional part's by themselves, and the sum
        return 2 * _query_heads(geometry)
    width = geometry.global_head_dim or geometry.head_dim
    return 0 if width in FUSED_HEAD_DIMS else _query_heads(geometry)


def _sliding_score_heads(geometry: Geometry) -> int:
    if not geometry.sliding_layers or geometry.head_dim in FUSED_HEAD_DIMS:
        return 0
    return _query_heads(geometry)


def _prefilled(geometry: Geometry | None) -> float:
    """Share of the layers that a whole prompt runs through."""
    return 1 - (geometry.shared_kv_layers or 0) / geometry.layers if geometry is not None else 1


def _query_group(geometry: Geometry) -> float:
    """Query heads for each KV head; where it isn't said, as if they were as wide as the stream."""
    said = geometry.query_group
    kv_width = (geometry.kv_heads or 0) * (geometry.head_dim or 0)
    if said is not None or not kv_width or not geometry.hidden_size:
        return said or 1.0
    return max(geometry.hidden_size / kv_width, 1.0)
