"""How many parameters a model has and reads, counted from the widths in its `config.json`.

Matrices only: norms, biases and short convolutions are less than a hundredth of any model.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from mlx_catalog.config_fields import HIDDEN, LAYERS, QUERY_HEADS, Config, integer, word
from mlx_catalog.config_json import read_config, text_config
from mlx_catalog.layers import LayerKind, LayerKinds, layer_kinds
from mlx_catalog.schema import Geometry


@dataclass(frozen=True, slots=True)
class ParameterCounts:
    """Parameters by what happens to them.

    Attributes:
        read: Read for every token.
        text: Of the language model: all experts, the embedding once.
        aside: Of towers and the like, which text generation never reads.
        embedding: Of one copy of the embedding.
        looked_up: Of per-layer embeddings, of which a token reads one row a layer.
        routed: Of all routed experts.
        output: Of an output layer that repeats the embedding; 0 where it is the embedding.
    """

    read: float
    text: float
    aside: float
    embedding: float
    looked_up: float = 0.0
    routed: float = 0.0
    output: float = 0.0

    @property
    def stored(self) -> float:
        """All of them, as they are on disk and in memory."""
        return self.text + self.looked_up + self.output + self.aside


def count_parameters(config: Config) -> ParameterCounts | None:
    """The parameters of the model that `config`, a `config.json`, describes.

    None where its layout is unknown here, or a width is missing.
    """
    model = _model_of(config)
    vocab = integer(model.text, "vocab_size") if model is not None else None
    if model is None or vocab is None:
        return None
    mixed, feed_forward = _mixers(model), _feed_forward(model)
    if mixed is None or feed_forward is None:
        return None
    layers, text = model.layers, model.text
    embedding = float(vocab * model.hidden)
    per_layer = integer(text, "hidden_size_per_layer_input") or 0
    rows = integer(text, "vocab_size_per_layer_input") or vocab
    gates = layers * 3 * model.hidden * per_layer  # gate, projection, and the shared one
    read = mixed + feed_forward.dense + feed_forward.routed_read + embedding + gates
    return ParameterCounts(
        read=read,
        text=read - feed_forward.routed_read + feed_forward.routed,
        aside=_tower(config),
        embedding=embedding,
        looked_up=float(rows * per_layer * layers),
        routed=feed_forward.routed,
        output=embedding if model.geometry.tied_embeddings is False else 0.0,
    )


def routed_expert_params(config: Config) -> int | None:
    """Parameters in all routed experts: 0 for a dense model, None where a width is missing."""
    model = _model_of(config)
    experts = _experts(model) if model is not None else None
    return experts.total if experts is not None else None


def query_group(config: Config) -> float | None:
    """Query heads that share a KV head, in the layers of the most common kind; None if unsaid."""
    text = text_config(config)
    heads = integer(text, *QUERY_HEADS)
    kv_heads = integer(text, "num_key_value_heads") or heads
    return heads / kv_heads if heads and kv_heads else None


@dataclass(frozen=True, slots=True)
class _Model:
    """A language model's configuration, with what is read of it.

    Attributes:
        text: The configuration.
        type: Its `model_type`.
        geometry: Heads, states and experts.
        kinds: What each layer mixes tokens with, its own keys and values or another layer's; None
            where the layout of the type is unknown.
        layers: How many there are.
        hidden: Width of the residual stream.
    """

    text: Config
    type: str
    geometry: Geometry
    kinds: LayerKinds | None
    layers: int
    hidden: int


def _model_of(config: Config) -> _Model | None:
    text = text_config(config)
    model_type = word(config, "model_type")
    text_type = word(text, "model_type") or model_type
    # layers that share another's cache have weights like any
    kinds = layer_kinds(model_type, text_type, {**text, "num_kv_shared_layers": 0})
    geometry, hidden = read_config(config).geometry, integer(text, *HIDDEN)
    if geometry is None or hidden is None:
        return None
    return _Model(text, text_type, geometry, kinds, geometry.layers, hidden)


def _mixers(model: _Model) -> int | None:
    """Parameters of what mixes tokens in all layers; None where one is unknown."""
    total = 0
    for kind, layers in Counter(model.kinds or ()).items():
        each = _mixer(model, kind)
        if each is None:
            return None
        total += layers * each
    return total if model.kinds is not None else None


def _mixer(model: _Model, kind: LayerKind) -> int | None:
    """Parameters of what mixes tokens in one layer; None where a width is missing."""
    match kind:
        case "none":
            return 0
        case "recurrent":
            return _recurrence(model)
        case "parallel":
            attention, recurrence = _attention(model, kind), _recurrence(model)
            return None if attention is None or recurrence is None else attention + recurrence
        case _:
            return _attention(model, kind)


def _attention(model: _Model, kind: LayerKind) -> int | None:
    text, geometry, hidden = model.text, model.geometry, model.hidden
    heads = integer(text, *QUERY_HEADS)
    if heads is not None and integer(text, "kv_lora_rank") and integer(text, "v_head_dim"):
        return _latent_attention(text, hidden, heads)
    kv_heads, width = geometry.kv_heads, geometry.head_dim
    shares_key, gate = False, 0
    if kind != "sliding":
        kv_heads, width = geometry.global_kv_heads or kv_heads, geometry.global_head_dim or width
        # Gemma 4's full layers may take the keys for values
        shares_key = text.get("attention_k_eq_v") is True and geometry.global_head_dim is not None
    if model.type == "step3p5":
        other = text.get("attention_other_setting")
        if kind == "sliding" and isinstance(other, dict):
            heads = integer(cast("Config", other), "num_attention_heads") or heads
        gate = hidden * (heads or 0)
    if heads is None or kv_heads is None or width is None:
        return None
    # Gated DeltaNet's models gate the output of their full attention
    queries = heads * (2 if "linear_num_value_heads" in text else 1)
    return hidden * width * (queries + heads + kv_heads * (1 if shares_key else 2)) + gate


def _latent_attention(text: Config, hidden: int, heads: int) -> int:
    """Attention whose keys and values are expanded from a latent."""
    latent, value = integer(text, "kv_lora_rank") or 0, integer(text, "v_head_dim") or 0
    plain, rope = integer(text, "qk_nope_head_dim") or 0, integer(text, "qk_rope_head_dim") or 0
    query_rank = integer(text, "q_lora_rank")
    wide = heads * (plain + rope)
    queries = query_rank * (hidden + wide) if query_rank else hidden * wide
    expanded = latent * heads * (plain + value)
    return queries + hidden * (latent + rope) + expanded + heads * value * hidden


def _recurrence(model: _Model) -> int | None:
    """Parameters of one recurrent layer; None where a width is missing."""
    state, hidden = model.geometry.recurrent, model.hidden
    if state is None:
        return None
    channels, heads, width = state.conv_channels, state.heads, state.head_dim
    if channels is None or heads is None or width is None or state.state_dim is None:
        return None
    inner = heads * width
    match state.kind:
        case "gated-deltanet":  # queries, keys, values; the output's gate; two gates a head
            return hidden * (channels + 2 * inner + 2 * heads)
        case "mamba2":  # gate, convolved channels, time steps; output
            return hidden * (2 * inner + channels + heads)
        case "mamba1":
            rank = integer(model.text, "mamba_dt_rank") or math.ceil(hidden / 16)
            return inner * (3 * hidden + 2 * rank + 3 * state.state_dim)
        case "kda":  # queries, keys, values, output; two gates of low rank; one number a head
            return hidden * (4 * inner + 2 * width + heads) + 2 * width * inner
        case "shortconv":
            return 4 * hidden * hidden


#: Two matrices instead of three: nothing gates the middle.
_UNGATED = frozenset(
    ["apertus", "gpt2", "gpt_bigcode", "gpt_neox", "nemotron", "nemotron_h", "phi", "starcoder2"]
)


@dataclass(frozen=True, slots=True)
class _FeedForward:
    """Parameters of all layers: dense and shared; all routed; the routed that a token reads."""

    dense: int
    routed: int = 0
    routed_read: int = 0


def _feed_forward(model: _Model) -> _FeedForward | None:
    if model.type == "nemotron-nas":
        return _searched(model)
    experts, wide = _experts(model), _width(model)
    if experts is None:
        return None
    dense_layers = _feed_forward_layers(model) - experts.layers
    if model.text.get("enable_moe_block") is True:  # Gemma 4 has both
        dense_layers = model.layers
    if model.text.get("use_double_wide_mlp") is True:
        dense_layers += integer(model.text, "num_kv_shared_layers") or 0
    if dense_layers and wide is None:
        return None
    dense = dense_layers * _matrices(model) * model.hidden * (wide or 0)
    return _FeedForward(dense + experts.beside, experts.total, experts.read)


@dataclass(frozen=True, slots=True)
class _Experts:
    """The layers with routed experts, and parameters in all of them.

    Attributes:
        layers: How many there are.
        total: Parameters of all routed experts.
        read: Of those, the ones that a token reads.
        beside: Of shared experts and routers.
    """

    layers: int = 0
    total: int = 0
    read: int = 0
    beside: int = 0


def _experts(model: _Model) -> _Experts | None:
    """The routed experts; none in a dense model, None where a width is missing."""
    text, hidden, experts = model.text, model.hidden, model.geometry.experts
    layers = _moe_layers(model) if experts is not None else 0
    if experts is None or not layers:
        return _Experts()
    width = integer(text, "moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
    if width is None:
        return None
    # Nemotron's experts work at a latent width where the configuration names one
    latent = integer(text, "moe_latent_size")
    each = layers * _matrices(model) * (latent or hidden) * width
    beside = _matrices(model) * hidden * _shared_width(model, width) + hidden * experts.total
    if latent is not None:
        beside += 2 * hidden * latent
    active = experts.active or experts.total
    return _Experts(layers, each * experts.total, each * active, layers * beside)


def _matrices(model: _Model) -> int:
    return 2 if model.type in _UNGATED else 3


def _feed_forward_layers(model: _Model) -> int:
    """How many layers have a feed-forward network or experts: all, except in Nemotron-H."""
    if model.type != "nemotron_h":
        return model.layers
    codes = _codes(model.text)
    return codes.count("-") + codes.count("E")


def _width(model: _Model) -> int | None:
    """Width of a dense feed-forward network."""
    text = model.text
    each = text.get("intermediate_size")
    if isinstance(each, list) and each:  # Gemma 3n names one for each layer
        widths = [one for one in cast("list[object]", each) if isinstance(one, int)]
        return sum(widths) // len(widths) if widths else None
    if model.type == "llama4_text":
        return integer(text, "intermediate_size_mlp", "intermediate_size")
    if model.type == "granitemoehybrid":
        return integer(text, "shared_intermediate_size", "intermediate_size")
    if model.type == "lfm2":
        return _lfm2_width(text)
    said = integer(text, "intermediate_size", "n_inner", "ffn_hidden_size")
    return said or (4 * model.hidden if model.type.startswith("gpt") else None)


def _lfm2_width(text: Config) -> int | None:
    """The width named, or two thirds of it rounded up, as LFM2's own code adjusts it."""
    width = integer(text, "block_ff_dim", "intermediate_size")
    if width is None or text.get("block_auto_adjust_ff_dim") is not True:
        return width
    factor = _factor(text.get("block_ffn_dim_multiplier")) or 1
    adjusted = int(2 * width / 3 * factor)
    multiple = integer(text, "block_multiple_of") or 1
    return -(-adjusted // multiple) * multiple


def _shared_width(model: _Model, width: int) -> int:
    """Width of all shared experts of a layer together."""
    text = model.text
    named = integer(
        text,
        "shared_expert_intermediate_size",
        "moe_shared_expert_intermediate_size",
        "shared_intermediate_size",
        "share_expert_dim",
    )
    if named is not None:
        return named
    experts = model.geometry.experts
    number = experts.shared if experts is not None else None
    if model.type == "llama4_text":  # one, which the configuration takes for granted
        number = 1
    return (number or 0) * width


_DENSE_LAYERS = ("first_k_dense_replace", "num_dense_layers", "moe_layer_start_index")
_MOE_STEPS = (
    "decoder_sparse_step",
    "interleave_moe_layer_step",
    "moe_layer_freq",
    "moe_layer_interval",
)


def _moe_layers(model: _Model) -> int:
    """How many layers have routed experts; the others are dense."""
    text, layers = model.text, model.layers
    if model.type == "nemotron_h":
        return _codes(text).count("E")
    if model.type == "jamba":
        return layers // (integer(text, "expert_layer_period") or 1)
    if model.type == "step3p5":
        named = [name for name in word(text, "moe_layers_enum").split(",") if name.strip()]
        return min(len(named) or layers - 1, layers)
    dense = integer(text, *_DENSE_LAYERS) or 0
    only = text.get("mlp_only_layers")
    dense += len(cast("list[object]", only)) if isinstance(only, list) else 0
    step = integer(text, *_MOE_STEPS) or 1
    return max(layers - dense, 0) // step


def _codes(text: Config) -> list[str]:
    """Nemotron-H's layers by their letters: M, *, - and E."""
    pattern = text.get("hybrid_override_pattern") or text.get("layers_block_type")
    letters = {"mamba": "M", "attention": "*", "mlp": "-", "moe": "E"}
    named = cast("list[object]", pattern) if isinstance(pattern, list | str) else []
    return [letters.get(str(code), str(code)) for code in named]


def _searched(model: _Model) -> _FeedForward | None:
    """Blocks found by architecture search, each as wide as it says."""
    blocks = model.text.get("block_configs")
    if not isinstance(blocks, list):
        return None
    widths = list(_searched_widths(cast("list[object]", blocks), model.hidden))
    return _FeedForward(sum(3 * model.hidden * width for width in widths))


def _searched_widths(blocks: list[object], hidden: int) -> Iterator[int]:
    for block in blocks:
        spec = cast("Config", block).get("ffn") if isinstance(block, Mapping) else None
        named = cast("Config", spec).get("ffn_mult") if isinstance(spec, Mapping) else None
        factor = _factor(named)
        if factor is not None:
            yield -(-int(2 * factor * hidden / 3) // 256) * 256


_MOST_FACTOR = 1000
"""No network is so much wider than its stream; a damaged or hostile file may say anything."""


def _factor(value: object) -> float | None:
    return value if isinstance(value, int | float) and 0 < value < _MOST_FACTOR else None


def _tower(config: Config) -> float:
    """Parameters of a tower for images that says how wide it is; 0 where none does."""
    nested = config.get("vision_config")
    if not isinstance(nested, dict):
        return 0.0
    tower = cast("Config", nested)
    layers, width = integer(tower, "depth", *LAYERS), integer(tower, *HIDDEN)
    wide = integer(tower, "intermediate_size")
    if layers is None or width is None or wide is None:
        return 0.0
    matrices = 3 if word(tower, "model_type").startswith("pixtral") else 2
    return float(layers * (4 * width * width + matrices * width * wide))
