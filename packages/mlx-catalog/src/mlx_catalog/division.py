"""How mlx-lm divides a model between several Macs, and what has to be divisible for it.

Tensor parallelism (`shard`) gives each Mac a part of every layer: some of its heads, and a part of
the width of its networks. Pipeline parallelism gives each Mac some of the layers. Which types of
models it can divide are columns of `data/model_types.toml` (decision 0116).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mlx_catalog.attention import Heads, latents
from mlx_catalog.config_fields import integer
from mlx_catalog.config_json import ConfigReading
from mlx_catalog.model_types import ModelType, model_types
from mlx_catalog.parameters import network_widths
from mlx_catalog.precision import Scheme
from mlx_catalog.schema import CatalogEntry, Geometry, Quant, RecurrentState
from mlx_catalog.weights import TensorRole

_QUERY_RANKS = 3
"""How wide queries are before they are expanded, next to the latents that are cached, as in
DeepSeek-V3 and Kimi K2; for catalog entries, which don't say it."""


@dataclass(frozen=True, slots=True)
class DividedCount:
    """Something that each Mac gets as many of as every other.

    Attributes:
        words: What it is, as in "attention heads".
        is_shared: Whether Macs may share them where there are fewer than Macs.
    """

    words: str
    count: int
    is_shared: bool = False


@dataclass(frozen=True, slots=True)
class DividedWidth:
    """A width that each Mac gets a part of, in whole groups of quantized weights.

    Attributes:
        words: What is so wide, as in "the networks".
        group_size: Weights that share a scale; 1 where they aren't quantized.
    """

    words: str
    width: int
    group_size: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Division:
    """How a model can be divided, and what decides for how many Macs.

    Attributes:
        model_type: As its `config.json` names it.
        tensor: Whether each Mac can have a part of every layer.
        pipeline: Whether each Mac can have some of the layers.
        layers: How many there are.
        counts: What is dealt out evenly in tensor parallelism.
        widths: What is cut into parts there, as far as that is known.
        kv_heads: KV heads of a layer; 0 where latents are cached, which each Mac keeps whole.
        divides_output: Whether the output layer is divided as well.
        meetings: How often Macs add up what each computed of a layer.
        whole_params: Parameters inside layers that each Mac keeps whole: routers, projections to
            latents.
    """

    model_type: str
    tensor: bool
    pipeline: bool
    layers: int
    counts: tuple[DividedCount, ...] = ()
    widths: tuple[DividedWidth, ...] = ()
    kv_heads: int = 0
    divides_output: bool = False
    meetings: int = 2
    whole_params: float = 0.0


def division_of_entry(entry: CatalogEntry, quant: Quant) -> Division | None:
    """How a catalog entry at `quant` is divided; None where its type is unknown.

    How wide its networks are is not in the catalog.
    """
    row, geometry = model_types().get(entry.model_type), entry.geometry
    if row is None:
        return None
    heads, ranks = [Heads(query=geometry.query_heads)], 0
    if geometry.mla_latent_dim is not None:
        ranks = geometry.mla_latent_dim * (1 + _QUERY_RANKS) + (geometry.mla_rope_dim or 0)
    else:
        kv_heads = {geometry.kv_heads, geometry.global_kv_heads or geometry.kv_heads} - {None}
        width = geometry.head_dim
        heads = [Heads(geometry.query_heads, each, width, width) for each in kv_heads] or heads
    scheme = Scheme(quant.bits, quant.group_size, quant.mode) if quant.group_size else None
    widths = _mixer_widths(geometry, heads, scheme)
    return _division(entry.model_type, row, geometry, heads, tuple(widths), ranks)


def division_of_config(reading: ConfigReading) -> Division | None:
    """How the model of a `config.json` is divided; None where its type is unknown."""
    row, geometry, text = reading.row, reading.geometry, reading.text
    if row is None or geometry is None:
        return None
    # the class of the whole model divides it, that of the language model says what there is
    outer = model_types().get(reading.model_type, row)
    heads = [row.heads(text, is_sliding=False)]
    if geometry.sliding_layers:
        heads.append(row.heads(text, is_sliding=True))
    if row.attention == "latent":
        heads = [Heads(query=geometry.query_heads)]
    scheme = reading.precision.scheme
    widths = (*_mixer_widths(geometry, heads, scheme), *_network_widths(reading, scheme))
    ranks = 0
    if row.attention in ("latent", "expanded"):
        ranks = sum(latents(text) or ()) + (integer(text, "q_lora_rank") or 0)
    return _division(reading.model_type, outer, geometry, heads, widths, ranks)


def _division(
    model_type: str,
    row: ModelType,
    geometry: Geometry,
    heads: Sequence[Heads],
    widths: tuple[DividedWidth, ...],
    ranks: int,
) -> Division:
    divides_output = row.tensor == "heads-and-output" and geometry.tied_embeddings is False
    counts = list(_counts(geometry, heads, shares_kv=row.tensor == "heads-and-output"))
    if divides_output and geometry.vocab_size is not None:
        counts.append(DividedCount("words of the vocabulary", geometry.vocab_size))
    kv_heads = [each.kv for each in heads if each.kv is not None]
    return Division(
        model_type=model_type,
        tensor=bool(row.tensor),
        pipeline=row.pipeline,
        layers=geometry.layers,
        counts=tuple(dict.fromkeys(counts)),
        widths=tuple(dict.fromkeys(widths)),
        kv_heads=min(kv_heads, default=0),
        divides_output=divides_output,
        meetings=row.meetings,
        whole_params=_whole_params(geometry, ranks),
    )


def _counts(
    geometry: Geometry, heads: Sequence[Heads], *, shares_kv: bool
) -> Iterator[DividedCount]:
    for each in heads:
        if each.query is not None:
            yield DividedCount("attention heads", each.query)
        if each.kv is not None:
            yield DividedCount("KV heads", each.kv, is_shared=shares_kv)
    if geometry.recurrent is not None:
        yield from _linear_counts(geometry.recurrent)


def _linear_counts(state: RecurrentState) -> Iterator[DividedCount]:
    """Heads of linear attention: those of values, and of keys, which the convolution tells."""
    if not state.heads or not state.head_dim or not state.state_dim:
        return
    yield DividedCount("value heads of linear attention", state.heads)
    keys = (state.conv_channels or 0) - state.heads * state.head_dim
    if state.kind == "gated-deltanet" and keys > 0:
        yield DividedCount("key heads of linear attention", keys // (2 * state.state_dim))


def _mixer_widths(
    geometry: Geometry, heads: Sequence[Heads], scheme: Scheme | None
) -> Iterator[DividedWidth]:
    for each in heads:
        if each.query is not None and each.value_dim is not None:
            group_size = _group_size(scheme, TensorRole.DENSE, "o_proj")
            yield DividedWidth("the heads", each.query * each.value_dim, group_size)
    state = geometry.recurrent
    if state is not None and state.heads and state.head_dim:
        group_size = _group_size(scheme, TensorRole.DENSE, "out_proj")
        yield DividedWidth("linear attention", state.heads * state.head_dim, group_size)


def _network_widths(reading: ConfigReading, scheme: Scheme | None) -> Iterator[DividedWidth]:
    for kind, widths in (network_widths(reading) or {}).items():
        role = TensorRole.ROUTED if kind == "experts" else TensorRole.DENSE
        for width in sorted(widths):
            yield DividedWidth(f"the {kind}", width, _group_size(scheme, role, "down_proj"))


def _group_size(scheme: Scheme | None, role: TensorRole, module: str) -> int:
    """Weights that share a scale in modules of that name, of the largest groups that it has."""
    if scheme is None:
        return 1
    others = [each for path, each in scheme.overrides.items() if path.endswith(f".{module}")]
    sizes = [each.group_size for each in others if each is not None]
    return max([*sizes, scheme.group_size if role in scheme.roles else 1])


def _whole_params(geometry: Geometry, ranks: int) -> float:
    """Parameters of routers, and of projections to latents, which are `ranks` wide together."""
    hidden, whole = geometry.hidden_size or 0, 0
    if geometry.experts is not None:
        whole += hidden * geometry.experts.total * geometry.layers
    return float(whole + hidden * ranks * (geometry.full_attention_layers or 0))
