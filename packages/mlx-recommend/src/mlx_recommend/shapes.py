"""A model's shape from what the catalog, or its own files, say of it."""

from dataclasses import replace

from mlx_catalog import CatalogEntry, Geometry, ModelReading, Quant
from mlx_catalog.model_types import model_types
from mlx_catalog.weights import Role, Weights
from mlx_recommend.calibration import LaunchPattern
from mlx_recommend.inputs import ModelShape


def shape_of_entry(entry: CatalogEntry, quant: Quant) -> ModelShape:
    """The shape of a catalog entry at `quant`, whether or not such weights are published."""
    weights = _weights_of_entry(entry).at(Quant(quant).bits_per_weight)
    source = entry.sources.get(quant)
    if source is not None and source.disk_size_gb and not source.disk_size_estimated:
        weights = weights.filling(round(source.disk_size_gb * 1e9))
    shape = _shape_of_weights(entry.id, quant, weights, entry.geometry, entry.model_type)
    return replace(shape, max_context_tokens=entry.max_context_tokens)


def shape_of_model(model: ModelReading, quant: Quant | None = None) -> ModelShape | None:
    """The shape of the model that was read, unknown where its files don't tell enough.

    Args:
        model: What its files say.
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
        # a type whose layers aren't known may keep a state as well
        state_bytes=shape.state_bytes if model.known else None,
    )


def _shape_of_weights(
    name: str, quant: str, weights: Weights | None, geometry: Geometry | None, model_type: str
) -> ModelShape:
    shape = ModelShape(name=name, quant=quant, weights_bytes=None)
    if weights is not None:
        share, prefilled = weights.active_share or 1.0, _prefilled(geometry)
        read, output = weights.read_params, weights.params.get(Role.OUTPUT, 0)
        shape = replace(
            shape,
            weights_bytes=weights.total_bytes,
            decode_weight_bytes=weights.read_bytes,
            routed_weight_bytes=(weights.size_bytes or {}).get(Role.ROUTED, 0) * share,
            expert_share=share,
            prefill_params=None if read is None else (read - output) * prefilled,
        )
    if geometry is None:
        return shape
    return replace(
        shape,
        layers=geometry.layers,
        prefill_layers=round(geometry.layers * _prefilled(geometry)),
        layer_kind=_layer_kind(model_type, geometry),
        hidden_size=geometry.hidden_size,
        growing_kv_elements=geometry.growing_kv_elements_per_token,
        sliding_kv_elements=geometry.sliding_kv_elements_per_token,
        sliding_window=geometry.sliding_window,
        state_bytes=geometry.state_bytes_per_sequence,
        query_group=_query_group(geometry),
    )


def _weights_of_entry(entry: CatalogEntry) -> Weights:
    """Parameters from the published totals; what isn't told apart counts as read."""
    geometry, total = entry.geometry, entry.loaded_params_b * 1e9
    embedding = geometry.embedding_params or 0
    looked_up = geometry.per_layer_embedding_params
    looked_up += embedding if geometry.tied_embeddings is False else 0
    aside = (entry.tower_params_b or 0) * 1e9 if entry.capabilities.vision else 0
    text = total - aside - looked_up
    if text <= embedding:  # so few parameters are not a model of these widths
        return Weights(params={Role.UNKNOWN: total}, size_bytes=None)
    read = text if entry.active_params_b is None else min(entry.active_params_b * 1e9, text)
    output, share = min(embedding, read / 2), _expert_share(entry)
    routed = 0.0 if share == 1 else min((text - read) / (1 - share), text - output)
    params = {
        Role.DENSE: text - output - routed,
        Role.OUTPUT: output,
        Role.ROUTED: routed,
        Role.LOOKED_UP: looked_up,
        Role.ASIDE: aside,
    }
    return Weights(params=params, size_bytes=None, active_share=share)


def _expert_share(entry: CatalogEntry) -> float:
    """Share of the routed experts that a token uses; 1 for a dense model."""
    if entry.active_params_b is None or entry.active_params_b >= entry.params_b:
        return 1.0
    experts = entry.geometry.experts
    if experts is not None and experts.active is not None:
        return min(experts.active / experts.total, 1.0)
    return entry.active_params_b / entry.params_b


def _layer_kind(model_type: str, geometry: Geometry) -> LaunchPattern:
    recurrent, row = geometry.recurrent, model_types().get(model_type)
    if recurrent is not None and recurrent.kind != "shortconv":
        return LaunchPattern.RECURRENT
    if geometry.mla_latent_dim is not None:
        return LaunchPattern.LATENT
    return LaunchPattern.SANDWICH if row is not None and row.sandwich_norms else LaunchPattern.PLAIN


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
