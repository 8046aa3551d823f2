"""A model's shape from what the catalog or a `config.json` says of it."""

from dataclasses import dataclass, replace

from mlx_catalog import BITS_PER_WEIGHT, CatalogEntry, Geometry, Quant
from mlx_catalog.geometry import describe
from mlx_recommend.calibration import TOWER_BYTES_PER_PARAM, LayerKind
from mlx_recommend.families import family_facts
from mlx_recommend.inputs import ModelShape
from mlx_recommend.parameters import Config, ParameterCounts, count_parameters, query_group

_RECURRENT_KINDS = frozenset({"gated-deltanet", "kda", "mamba1", "mamba2"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What is published of one model at one precision.

    Attributes:
        name: The catalog id, repository or folder.
        quant: The precision, for display.
        bits_per_weight: Bits that a quantized weight takes, scales and biases included.
        params_b: All parameters, in 10^9.
        active_params_b: Parameters used for a token, in 10^9; None where that is all of them.
        model_type: `model_type` of its `config.json`.
        geometry: Layers, caches, experts.
        has_towers: Whether it has towers for images or sound.
        published_bytes: The size of its weights, where somebody counted them.
        max_context_tokens: The context that it was trained for.
        counts: Parameters counted from its configuration; None estimates them from the rest.
        query_group: Query heads for each KV head; None derives it from the widths.
    """

    name: str
    quant: str
    bits_per_weight: float
    params_b: float
    model_type: str
    geometry: Geometry
    active_params_b: float | None = None
    has_towers: bool = False
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
            params_b=entry.params_b,
            active_params_b=entry.active_params_b,
            model_type=entry.model_type,
            geometry=entry.geometry,
            has_towers=bool(entry.capabilities.vision),
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
        The shape, or None where the configuration doesn't tell enough: an architecture whose
        parameters can't be counted from it.
    """
    reading = describe(name, config, None, weights_bytes=weights_bytes)
    counts, geometry = count_parameters(config), reading.geometry
    known_params = params or reading.params
    if geometry is None or (counts is None and known_params is None):
        return None
    own_bits = reading.bits_per_weight or BITS_PER_WEIGHT["bf16"]
    is_other = quant is not None and quant != reading.quant
    supposed_bits = own_bits if quant is None or not is_other else BITS_PER_WEIGHT[quant]
    stored = 0.0
    if counts is not None:
        stored = counts.text + counts.looked_up
        stored += counts.embedding if geometry.tied_embeddings is False else 0
    total = max(stored, known_params or 0)
    active = reading.active_params
    if counts is not None:
        counts = replace(counts, aside=total - stored)
        active = round(counts.read)
    return shape_of(
        Description(
            name=name,
            quant=quant or reading.quant or f"{own_bits:g}-bit",
            bits_per_weight=bits_per_weight or supposed_bits,
            params_b=total / 1e9,
            active_params_b=active / 1e9 if active and geometry.experts is not None else None,
            model_type=reading.model_type,
            geometry=geometry,
            has_towers=reading.vision,
            published_bytes=None if is_other else weights_bytes,
            max_context_tokens=reading.max_context_tokens,
            counts=counts,
            query_group=query_group(config),
        )
    )


def shape_of(described: Description) -> ModelShape:
    """The shape of a model that is described so."""
    geometry = described.geometry
    counts = described.counts or _estimate_counts(described)
    share = _expert_share(geometry, described)
    bytes_per_param = described.bits_per_weight / 8
    return ModelShape(
        name=described.name,
        quant=described.quant,
        weights_bytes=described.published_bytes or _weights_bytes(described, counts),
        decode_weight_bytes=counts.read * bytes_per_param,
        routed_weight_bytes=min(counts.routed * share, counts.read) * bytes_per_param,
        expert_share=share,
        prefill_params=(counts.read - counts.embedding) * _prefilled(geometry),
        layers=geometry.layers,
        prefill_layers=round(geometry.layers * _prefilled(geometry)),
        layer_kind=_layer_kind(described),
        hidden_size=geometry.hidden_size,
        growing_kv_elements=geometry.growing_kv_elements_per_token,
        sliding_kv_elements=geometry.sliding_kv_elements_per_token,
        sliding_window=geometry.sliding_window,
        state_bytes=_state_bytes(geometry),
        query_group=described.query_group or _query_group(described),
        max_context_tokens=described.max_context_tokens,
    )


def _estimate_counts(described: Description) -> ParameterCounts:
    """Parameters from the published totals, and from what is known of the family."""
    geometry, total = described.geometry, described.params_b * 1e9
    facts = family_facts(described.model_type, described.params_b)
    vocab = geometry.vocab_size or (facts.vocab_size if facts else 0)
    embedding = float(vocab * (geometry.hidden_size or 0))
    once = geometry.tied_embeddings
    if once is None:
        once = facts.stores_embedding_once(described.params_b) if facts else True
    aside = 0.0
    if described.has_towers and facts is not None:
        aside = min(facts.aside_params_b(described.params_b) * 1e9, total / 2)
    looked_up = facts.per_layer_embedding_dim * vocab * geometry.layers if facts else 0
    text = total - aside - looked_up - (0 if once else embedding)
    active = described.active_params_b
    read = text if active is None else min(active * 1e9, text)
    share = _expert_share(geometry, described)
    return ParameterCounts(
        read=read,
        text=text,
        aside=aside,
        embedding=min(embedding, read / 2),
        looked_up=looked_up,
        routed=0.0 if share == 1 else max(text - read, 0) / (1 - share),
    )


def _weights_bytes(described: Description, counts: ParameterCounts) -> int:
    quantized = described.params_b * 1e9 - counts.aside
    aside_bytes = max(described.bits_per_weight / 8, TOWER_BYTES_PER_PARAM)
    return round(quantized * described.bits_per_weight / 8 + counts.aside * aside_bytes)


def _expert_share(geometry: Geometry, described: Description) -> float:
    """Share of the routed experts that a token uses; 1 for a dense model."""
    active_b, experts = described.active_params_b, geometry.experts
    if active_b is None or active_b >= described.params_b:
        return 1.0
    if experts is not None and experts.active is not None:
        return min(experts.active / experts.total, 1.0)
    return active_b / described.params_b


def _layer_kind(described: Description) -> LayerKind:
    recurrent = described.geometry.recurrent
    if recurrent is not None and recurrent.kind in _RECURRENT_KINDS:
        return LayerKind.RECURRENT
    if described.geometry.mla_latent_dim is not None:
        return LayerKind.LATENT
    if described.model_type.startswith("gemma"):
        return LayerKind.SANDWICH
    return LayerKind.PLAIN


def _state_bytes(geometry: Geometry) -> int | None:
    return 0 if geometry.recurrent is None else geometry.recurrent.bytes_per_sequence


def _prefilled(geometry: Geometry) -> float:
    """Share of the layers that a whole prompt runs through."""
    return 1 - (geometry.shared_kv_layers or 0) / geometry.layers


def _query_group(described: Description) -> float:
    """Query heads for each KV head; without better knowledge, as if they were as wide as hidden."""
    facts = family_facts(described.model_type, described.params_b)
    known = facts.query_group(described.params_b) if facts is not None else None
    geometry = described.geometry
    kv_width = (geometry.kv_heads or 0) * (geometry.head_dim or 0)
    if known is not None:
        return known
    if not kv_width or not geometry.hidden_size:
        return 1.0
    return max(geometry.hidden_size / kv_width, 1.0)
