"""Configurations of single families in the names that most types use.

Each takes what describes the language model and gives the same with its own names, units and
silences translated. `moe_layers` and `ffn_layers` are how many layers have routed experts, and any
feed-forward network at all, where the usual keys don't say it.
"""

from mlx_catalog.attention import even_head_dim
from mlx_catalog.config_fields import HIDDEN, LAYERS, ModelConfig, integer, section, sections, word
from mlx_catalog.layers import layer_codes

_MOST_FACTOR = 1000
"""No network is so much wider than its stream; a damaged or hostile file may say anything."""


def factor(value: object) -> float | None:
    """`value` where it is a number that a width can be multiplied with."""
    return value if isinstance(value, int | float) and 0 < value < _MOST_FACTOR else None


def cohere(text: ModelConfig) -> ModelConfig:
    """`max_position_embeddings` is what the implementation allows, not what it was trained for."""
    longest = integer(text, "model_max_length")
    return text if longest is None else {**text, "max_position_embeddings": longest}


def dbrx(text: ModelConfig) -> ModelConfig:
    """Heads and experts are named in sections of their own."""
    flat = {**section(text, "attn_config"), **section(text, "ffn_config"), **text}
    return {**flat, "moe_intermediate_size": flat.get("ffn_hidden_size")}


def four_times(text: ModelConfig) -> ModelConfig:
    """A feed-forward network four times as wide as the stream, whatever else is named."""
    hidden = integer(text, *HIDDEN)
    width = integer(text, "n_inner") or (4 * hidden if hidden else None)
    return {**text, "intermediate_size": width}


def granite_hybrid(text: ModelConfig) -> ModelConfig:
    """What is always there is the shared network; the plain width is an expert's."""
    width = text.get("intermediate_size")
    shared = text.get("shared_intermediate_size") or width
    return {**text, "intermediate_size": shared, "moe_intermediate_size": width}


def _half(name: str, text: ModelConfig) -> ModelConfig:
    """A width that counts the gate and what it gates together."""
    width = integer(text, name)
    return {**text, "intermediate_size": width // 2 if width else None}


def qwen(text: ModelConfig) -> ModelConfig:
    """The first Qwen."""
    return _half("intermediate_size", text)


def olmo(text: ModelConfig) -> ModelConfig:
    """The first OLMo."""
    rows = integer(text, "embedding_size", "vocab_size")
    tied = text.get("weight_tying", False)
    return {**_half("mlp_hidden_size", text), "vocab_size": rows, "tie_word_embeddings": tied}


def hunyuan(text: ModelConfig) -> ModelConfig:
    """Shared experts are as wide as the dense network would be. There is no output layer."""
    width, shared = integer(text, "intermediate_size"), integer(text, "num_shared_expert")
    wide = width * shared if width is not None and shared is not None else None
    return {"shared_expert_intermediate_size": wide, **text, "tie_word_embeddings": True}


def lfm2(text: ModelConfig) -> ModelConfig:
    """The width named, or two thirds of it rounded up. There is no output layer."""
    width = integer(text, "block_ff_dim", "intermediate_size")
    if width is not None and text.get("block_auto_adjust_ff_dim") is True:
        adjusted = int(2 * width / 3 * (factor(text.get("block_ffn_dim_multiplier")) or 1))
        multiple = integer(text, "block_multiple_of") or 1
        width = -(-adjusted // multiple) * multiple
    return {**text, "intermediate_size": width, "tie_word_embeddings": True}


def llama4(text: ModelConfig) -> ModelConfig:
    """The plain width is an expert's. One expert is shared, without being named."""
    expert = text.get("intermediate_size")
    dense = text.get("intermediate_size_mlp") or expert
    widths = {"intermediate_size": dense, "moe_intermediate_size": expert}
    return {**text, **widths, "n_shared_experts": 1}


def minicpm3(text: ModelConfig) -> ModelConfig:
    """Values are as wide as heads would be without latents."""
    return {"v_head_dim": even_head_dim(text), **text}


def jamba(text: ModelConfig) -> ModelConfig:
    """Experts in one layer of each period."""
    period = integer(text, "expert_layer_period") or 1
    return {**text, "moe_layers": (integer(text, *LAYERS) or 0) // period}


def step(text: ModelConfig) -> ModelConfig:
    """The layers with experts are listed in a text; all but the first where they aren't."""
    layers = integer(text, *LAYERS) or 0
    named = [name for name in word(text, "moe_layers_enum").split(",") if name.strip()]
    return {**text, "moe_layers": min(len(named) or layers - 1, layers)}


def nemotron_h(text: ModelConfig) -> ModelConfig:
    """Layers by their letters or words: experts, dense networks, attention or a state."""
    codes = layer_codes(text)
    moe = sum(code in ("E", "moe") for code in codes)
    return {
        **text,
        "moe_layers": moe,
        "ffn_layers": moe + sum(code in ("-", "mlp") for code in codes),
    }


def searched(text: ModelConfig) -> ModelConfig:
    """Blocks found by architecture search: heads where all have as many, and widths of all."""
    blocks, heads = sections(text, "block_configs"), integer(text, "num_attention_heads")
    groups = {integer(section(block, "attention"), "n_heads_in_group") for block in blocks} - {None}
    group = groups.pop() if len(groups) == 1 else None
    factors = [factor(section(block, "ffn").get("ffn_mult")) for block in blocks]
    hidden = integer(text, *HIDDEN) or 0
    widths = [-(-int(2 * each * hidden / 3) // 256) * 256 for each in factors if each is not None]
    return {
        **text,
        "num_key_value_heads": heads // group if heads and group else "unknown",
        "intermediate_size": widths,
        "ffn_layers": len(widths),
    }
