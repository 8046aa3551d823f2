"""A model's shape from what the catalog or a `config.json` says of it."""

from dataclasses import dataclass, replace

from mlx_catalog import BITS_PER_WEIGHT, CatalogEntry, Geometry, Quant
from mlx_catalog.config_fields import Config
from mlx_catalog.geometry import describe
from mlx_catalog.parameters import ParameterCounts, count_parameters, query_group
from mlx_recommend.calibration import TOWER_BYTES_PER_PARAM, LaunchPattern
from mlx_recommend.inputs import ModelShape

_RECURRENT_KINDS = frozenset({"gated-deltanet", "kda", "mamba1", "mamba2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is published of one model at one precision.

    Attributes:
        name: The catalog id, repository or folder.
        quant: The precision, for display.
        bits_per_weight: Bits that a quantized weight takes, scales and biases included.
        params_b: All parameters in memory, in 10^9; None where nobody counted them.
        active_params_b: Parameters used for a token, in 10^9; None where that is all of them.
        model_type: `model_type` of its `config.json`.
        geometry: Layers, caches, experts.
        tower_params_b: Of those, the ones of towers for images and sound, in 10^9.
        published_bytes: The size of its weights, where somebody counted them.
        max_context_tokens: The context that it was trained for.
        counts: Parameters counted from its configuration; None estimates them from the rest.
        query_group: Query heads for each KV head; None takes what the geometry says.
    """

    name: str
    quant: str
    bits_per_weight: float
    params_b: float | None
    model_type: str
    geometry: Geometry | None
    active_params_b: float | None = None
    tower_params_b: float = 0.0
    published_bytes: int | None = None
    max_context_tokens: int | None = None
    counts: ParameterCounts | None = None
    query_group: float | None = None


def shape_of_entry(entry: CatalogEntry, quant: Quant) -> ModelShape:
    """The shape of a catalog entry at `quant`, whether or not such weights are published."""
    source = entry.sources.get(quant)
    published = None
    if source is not None and source.disk_size_gb and not source.disk_size_estimated:
        published = round(source.disk_size_gb * 1e9)
    return shape_of(
        Description(
            name=entry.id,
            quant=quant,
            bits_per_weight=BITS_PER_WEIGHT[quant],
            params_b=entry.loaded_params_b,
            active_params_b=entry.active_params_b,
            model_type=entry.model_type,
            geometry=entry.geometry,
            tower_params_b=(entry.tower_params_b or 0.0) if entry.capabilities.vision else 0.0,
            published_bytes=published,
            max_context_tokens=entry.max_context_tokens,
        )
    )


def shape_of_config(
    name: str,
    config: Config,
    *,
    quant: Quant | None = None,
    bits_per_weight: float | None = None,
    weights_bytes: int | None = None,
    params: int | None = None,
) -> ModelShape | None:
    """The shape of the model that a `config.json` describes.

    Args:
        name: What to call the model.
        config: The parsed `config.json`.
        quant: The precision to suppose; None takes what the configuration says.
        bits_per_weight: Bits of a weight with its scales, where they are known better than that.
        weights_bytes: The size of the weights at the configuration's own precision, where they
            have been counted.
        params: Their number, where they have been counted.

    Returns:
        The shape, unknown where the configuration doesn't tell enough; None where it tells
        neither of layers nor of weights.
    """
    reading = describe(name, config, None, weights_bytes=weights_bytes)
    counts, geometry = count_parameters(config), reading.geometry
    if geometry is None and weights_bytes is None:
        return None
    own_bits = reading.bits_per_weight or BITS_PER_WEIGHT["bf16"]
    is_other = quant is not None and quant != reading.quant
    supposed_bits = own_bits if quant is None or not is_other else BITS_PER_WEIGHT[quant]
    total, active = params or reading.params, reading.active_params
    if counts is not None:
        total = max(round(counts.stored), total or 0)
        counts = replace(counts, aside=counts.aside + total - counts.stored)
        active = round(counts.read)
    has_experts = geometry is not None and geometry.experts is not None
    shape = shape_of(
        Description(
            name=name,
            quant=quant or reading.quant or f"{own_bits:g}-bit",
            bits_per_weight=bits_per_weight or supposed_bits,
            params_b=total / 1e9 if total else None,
            active_params_b=active / 1e9 if active and has_experts else None,
            model_type=reading.model_type,
            geometry=geometry,
            published_bytes=None if is_other else weights_bytes,
            max_context_tokens=reading.max_context_tokens,
            counts=counts,
            query_group=query_group(config),
        )
    )
    # a type whose layers aren't known may keep a state as well
    return shape if reading.known else replace(shape, state_bytes=None)


def shape_of(described: Description) -> ModelShape:
    """The shape of a model that is described so."""
    counts = described.counts or _counts_of_totals(described)
    geometry, bytes_per_param = described.geometry, described.bits_per_weight / 8
    share = _expert_share(described)
    shape = ModelShape(
        name=described.name,
        quant=described.quant,
        weights_bytes=described.published_bytes or _weights_bytes(described, counts),
        decode_weight_bytes=None if counts is None else counts.read * bytes_per_param,
        max_context_tokens=described.max_context_tokens,
    )
    if counts is not None:
        shape = replace(
            shape,
            routed_weight_bytes=min(counts.routed * share, counts.read) * bytes_per_param,
            expert_share=share,
            prefill_params=(counts.read - counts.embedding) * _prefilled(geometry),
        )
    if geometry is None:
        return shape
    return replace(
        shape,
        layers=geometry.layers,
        prefill_layers=round(geometry.layers * _prefilled(geometry)),
        layer_kind=_layer_kind(described, geometry),
        hidden_size=geometry.hidden_size,
        growing_kv_elements=geometry.growing_kv_elements_per_token,
        sliding_kv_elements=geometry.sliding_kv_elements_per_token,
        sliding_window=geometry.sliding_window,
        state_bytes=geometry.state_bytes_per_sequence,
        query_group=described.query_group or _query_group(geometry),
    )


def _counts_of_totals(described: Description) -> ParameterCounts | None:
    """Parameters from the published totals; what isn't told apart counts as read."""
    geometry, params_b = described.geometry, described.params_b
    if geometry is None or params_b is None:
        return None
    embedding = float(geometry.embedding_params or 0)
    looked_up = float(geometry.per_layer_embedding_params)
    output = embedding if geometry.tied_embeddings is False else 0.0
    aside = described.tower_params_b * 1e9
    text = params_b * 1e9 - aside - looked_up - output
    if text <= embedding:  # so few parameters are not a model of these widths
        return None
    active = described.active_params_b
    read = text if active is None else min(active * 1e9, text)
    share = _expert_share(described)
    return ParameterCounts(
        read=read,
        text=text,
        aside=aside,
        embedding=min(embedding, read / 2),
        looked_up=looked_up,
        routed=0.0 if share == 1 else max(text - read, 0) / (1 - share),
        output=output,
    )


def _weights_bytes(described: Description, counts: ParameterCounts | None) -> int | None:
    if described.params_b is None:
        return None
    aside = counts.aside if counts is not None else 0
    quantized = described.params_b * 1e9 - aside
    aside_bytes = max(described.bits_per_weight / 8, TOWER_BYTES_PER_PARAM)
    return round(quantized * described.bits_per_weight / 8 + aside * aside_bytes)


def _expert_share(described: Description) -> float:
    """Share of the routed experts that a token uses; 1 for a dense model."""
    active_b, total_b, geometry = (
        described.active_params_b,
        described.params_b,
        described.geometry,
    )
    if active_b is None or total_b is None or active_b >= total_b:
        return 1.0
    experts = geometry.experts if geometry is not None else None
    if experts is not None and experts.active is not None:
        return min(experts.active / experts.total, 1.0)
    return active_b / total_b


def _layer_kind(described: Description, geometry: Geometry) -> LaunchPattern:
    recurrent = geometry.recurrent
    if recurrent is not None and recurrent.kind in _RECURRENT_KINDS:
        return LaunchPattern.RECURRENT
    if geometry.mla_latent_dim is not None:
        return LaunchPattern.LATENT
    if described.model_type.startswith("gemma"):
        return LaunchPattern.SANDWICH
    return LaunchPattern.PLAIN


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
