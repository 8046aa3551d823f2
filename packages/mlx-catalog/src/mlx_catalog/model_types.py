"""The table of model types: what mlx-lm 0.31.3 makes of each `model_type`, a row for each.

A new family is a row; where its arithmetic is new, the row names the function that does it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mlx_catalog import attention, layers, recurrence
from mlx_catalog.attention import Attention
from mlx_catalog.config_fields import HIDDEN, Config, integer, items, section, sections, word
from mlx_catalog.layers import Layout
from mlx_catalog.recurrence import Recurrence


def _as_said(text: Config) -> Config:
    return text


def _moe_layers(text: Config, layers: int) -> int:
    """Those after the first dense ones, in steps; or each for itself."""
    for name in ("moe_layer_freq", "is_moe_layer"):
        if isinstance(text.get(name), list):
            return min(sum(bool(each) for each in items(text, name)), layers)
    dense = integer(text, "first_k_dense_replace", "num_dense_layers", "moe_layer_start_index") or 0
    dense += len(items(text, "mlp_only_layers"))
    steps = "decoder_sparse_step", "interleave_moe_layer_step", "moe_layer_freq"
    return max(layers - dense, 0) // (integer(text, *steps, "moe_layer_interval") or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelType:
    """What mlx-lm makes of a `model_type`.

    Attributes:
        layout: The kind of each layer.
        attention: What a layer caches, and its matrices.
        recurrence: The same for recurrent layers.
        usual: The configuration in the names that most types use, with what the type's own class
            supposes where the file is silent.
        is_untied: Whether the output layer has weights of its own where the file is silent.
        is_gated: Whether a feed-forward network has three matrices: a gate beside two.
        moe_layers: How many of the layers have routed experts.
        feed_forward_layers: How many have a feed-forward network or experts; None is all.
        has_sandwich_norms: Whether there are norms after attention and feed-forward as well.
        dequantizes_fp8: Whether a vendor's FP8 weights become 16 bits while they are loaded; those
            of other types are not loaded at all.
        is_batched: Whether the caches of several requests can be batched: those that are lists of
            caches can't.
    """

    layout: Layout = layers.full
    attention: Attention = attention.PLAIN
    recurrence: Recurrence | None = None
    usual: Callable[[Config], Config] = _as_said
    is_untied: bool = False
    is_gated: bool = True
    moe_layers: Callable[[Config, int], int] = _moe_layers
    feed_forward_layers: Callable[[Config], int] | None = None
    has_sandwich_norms: bool = False
    dequantizes_fp8: bool = False
    is_batched: bool = True


def _supposing(**unsaid: object) -> Callable[[Config], Config]:
    return lambda text: {**unsaid, **text}


def _cohere(text: Config) -> Config:
    """`max_position_embeddings` is what the implementation allows, not what it was trained for."""
    longest = integer(text, "model_max_length")
    return text if longest is None else {**text, "max_position_embeddings": longest}


def _dbrx(text: Config) -> Config:
    flat = {**section(text, "attn_config"), **section(text, "ffn_config"), **text}
    return {**flat, "moe_intermediate_size": flat.get("ffn_hidden_size")}


def _four_times(text: Config) -> Config:
    """A feed-forward network four times as wide as the stream."""
    hidden = integer(text, *HIDDEN)
    return {"n_inner": 4 * hidden if hidden else None, **text}


def _gpt_bigcode(text: Config) -> Config:
    return {"multi_query": True, **_four_times(text)}


def _granite_hybrid(text: Config) -> Config:
    """What is always there is the shared network; the plain width is an expert's."""
    width = text.get("intermediate_size")
    shared = text.get("shared_intermediate_size") or width
    return {**text, "intermediate_size": shared, "moe_intermediate_size": width}


def _half(name: str, text: Config) -> Config:
    """A width that counts the gate and what it gates together."""
    width = integer(text, name)
    return {**text, "intermediate_size": width // 2 if width else None}


def _qwen1(text: Config) -> Config:
    return _half("intermediate_size", text)


def _olmo(text: Config) -> Config:
    tied = text.get("weight_tying", False)
    rows = integer(text, "embedding_size", "vocab_size")
    return {**_half("mlp_hidden_size", text), "vocab_size": rows, "tie_word_embeddings": tied}


def _hunyuan(text: Config) -> Config:
    """Shared experts are as wide as the dense network would be."""
    width, shared = integer(text, "intermediate_size"), integer(text, "num_shared_expert")
    if width is None or shared is None:
        return text
    return {"shared_expert_intermediate_size": width * shared, **text}


def _lfm2(text: Config) -> Config:
    """The width named, or two thirds of it rounded up, as LFM2's own code adjusts it."""
    width = integer(text, "block_ff_dim", "intermediate_size")
    if width is not None and text.get("block_auto_adjust_ff_dim") is True:
        adjusted = int(2 * width / 3 * (factor(text.get("block_ffn_dim_multiplier")) or 1))
        multiple = integer(text, "block_multiple_of") or 1
        width = -(-adjusted // multiple) * multiple
    return {**text, "intermediate_size": width}


def _llama4(text: Config) -> Config:
    """The plain width is an expert's. One expert is shared, without being named."""
    expert = text.get("intermediate_size")
    dense = text.get("intermediate_size_mlp") or expert
    widths = {"intermediate_size": dense, "moe_intermediate_size": expert}
    return {**text, **widths, "n_shared_experts": 1}


def _minicpm3(text: Config) -> Config:
    """Values are as wide as heads would be without latents."""
    return {"v_head_dim": attention.even_head_dim(text), **text}


def _searched(text: Config) -> Config:
    """Heads of the blocks with attention, where all have as many; widths of all blocks."""
    blocks = sections(text, "block_configs")
    groups = {integer(section(block, "attention"), "n_heads_in_group") for block in blocks} - {None}
    heads, group = integer(text, "num_attention_heads"), groups.pop() if len(groups) == 1 else None
    widths = [_searched_width(section(block, "ffn"), integer(text, *HIDDEN)) for block in blocks]
    return {
        **text,
        "num_key_value_heads": heads // group if heads and group else 0,
        "intermediate_size": [width for width in widths if width is not None],
        "ffn_layers": sum(width is not None for width in widths),
    }


def _searched_width(network: Config, hidden: int | None) -> int | None:
    times = factor(network.get("ffn_mult"))
    return None if times is None or hidden is None else -(-int(2 * times * hidden / 3) // 256) * 256


_MOST_FACTOR = 1000
"""No network is so much wider than its stream; a damaged or hostile file may say anything."""


def factor(value: object) -> float | None:
    """`value` where it is a number that a width can be multiplied with."""
    return value if isinstance(value, int | float) and 0 < value < _MOST_FACTOR else None


def _lettered_moe_layers(text: Config, _: int) -> int:
    return sum(code in ("E", "moe") for code in layers.layer_codes(text))


def _lettered_networks(text: Config) -> int:
    return sum(code in ("-", "E", "mlp", "moe") for code in layers.layer_codes(text))


def _periodic_moe_layers(text: Config, layers: int) -> int:
    return layers // (integer(text, "expert_layer_period") or 1)


def _enumerated_moe_layers(text: Config, layers: int) -> int:
    named = [name for name in word(text, "moe_layers_enum").split(",") if name.strip()]
    return min(len(named) or layers - 1, layers)


_FULL = ModelType()
_UNTIED = ModelType(is_untied=True)
_UNGATED = ModelType(is_gated=False)
_LLAMA = ModelType(layout=layers.named_or_full)
_MINISTRAL = ModelType(layout=layers.named_or_full, dequantizes_fp8=True)
_MINIMAX = ModelType(is_untied=True, dequantizes_fp8=True)
_DEEPSEEK_V3 = ModelType(attention=attention.LATENT, is_untied=True, dequantizes_fp8=True)
_DEEPSEEK_V32 = ModelType(
    attention=attention.LATENT, is_untied=True, dequantizes_fp8=True, is_batched=False
)
_LATENTS = ModelType(attention=attention.LATENT, is_untied=True)
_DELTANET = ModelType(
    layout=layers.every(4, "recurrent", "full_attention_interval"),
    attention=attention.GATED,
    recurrence=recurrence.GATED_DELTANET,
    is_untied=True,
)
_GEMMA = ModelType(has_sandwich_norms=True)
_GEMMA3_LAYOUT = layers.every(6, "sliding", "sliding_window_pattern")
_GEMMA3N = ModelType(layout=layers.sharing, has_sandwich_norms=True)
_GEMMA4 = ModelType(layout=layers.sharing, attention=attention.GEMMA4, has_sandwich_norms=True)
_COHERE2 = ModelType(layout=layers.every(4, "sliding", "sliding_window_pattern"), usual=_cohere)
_LFM2 = ModelType(layout=layers.indexed, recurrence=recurrence.SHORT_CONVOLUTION, usual=_lfm2)
_LLAMA4 = ModelType(
    layout=layers.every(4, "sliding"), usual=_llama4, is_untied=True, is_batched=False
)
_NAMED = ModelType(layout=layers.named)

MODEL_TYPES: Mapping[str, ModelType] = {
    "Klear": _UNTIED,
    "afmoe": ModelType(layout=layers.named, attention=attention.GATED, is_untied=True),
    "apertus": _UNGATED,
    "bailing_moe": _UNTIED,
    "bitnet": _FULL,
    "cohere": ModelType(usual=_cohere),
    "cohere2": _COHERE2,
    "dbrx": ModelType(usual=_dbrx, is_untied=True),
    "deepseek": _UNTIED,
    "deepseek_v2": ModelType(attention=attention.EXPANDED, is_untied=True),
    "deepseek_v3": _DEEPSEEK_V3,
    "deepseek_v32": _DEEPSEEK_V32,
    "dots1": _UNTIED,
    "ernie4_5": _FULL,
    "ernie4_5_moe": _FULL,
    "exaone": _FULL,
    "exaone4": ModelType(layout=layers.lettered),
    "exaone_moe": ModelType(layout=layers.named, is_untied=True),
    "falcon_h1": ModelType(layout=layers.parallel, recurrence=recurrence.MAMBA2, is_batched=False),
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3": ModelType(
        layout=_GEMMA3_LAYOUT,
        usual=_supposing(
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=256,
            vocab_size=262208,
            max_position_embeddings=131072,
        ),
        has_sandwich_norms=True,
    ),
    "gemma3_text": ModelType(layout=_GEMMA3_LAYOUT, has_sandwich_norms=True),
    "gemma3n": _GEMMA3N,
    "gemma3n_text": _GEMMA3N,
    "gemma4": _GEMMA4,
    "gemma4_text": _GEMMA4,
    "gemma4_unified": _GEMMA4,
    "gemma4_unified_text": _GEMMA4,
    "glm": _FULL,
    "glm4": _UNTIED,
    "glm4_moe": _FULL,
    "glm4_moe_lite": _LATENTS,
    "glm_moe_dsa": _DEEPSEEK_V32,
    "gpt2": ModelType(usual=_four_times, is_gated=False),
    "gpt_bigcode": ModelType(usual=_gpt_bigcode, is_gated=False),
    "gpt_neox": ModelType(usual=_four_times, is_untied=True, is_gated=False),
    "gpt_oss": ModelType(layout=layers.alternating, is_untied=True),
    "granite": _FULL,
    "granitemoe": _FULL,
    "granitemoehybrid": ModelType(
        layout=layers.named, recurrence=recurrence.MAMBA2, usual=_granite_hybrid
    ),
    "helium": _FULL,
    "hunyuan": ModelType(usual=_hunyuan, is_untied=True),
    "hunyuan_v1_dense": _UNTIED,
    "internlm2": _UNTIED,
    "internlm3": _UNTIED,
    "iquestcoder": _LLAMA,
    "jamba": ModelType(
        layout=layers.periodic, recurrence=recurrence.MAMBA1, moe_layers=_periodic_moe_layers
    ),
    "joyai_llm_flash": _DEEPSEEK_V3,
    "kimi_k2": _DEEPSEEK_V3,
    "kimi_k25": _DEEPSEEK_V3,
    "kimi_linear": ModelType(
        layout=layers.kimi_linear,
        attention=attention.LATENT,
        recurrence=recurrence.KDA,
        is_untied=True,
    ),
    "laguna": _NAMED,
    "lfm2": _LFM2,
    "lfm2_moe": _LFM2,
    "llama": _LLAMA,
    "llama4": _LLAMA4,
    "llama4_text": _LLAMA4,
    "mellum": _NAMED,
    "mimo": _UNTIED,
    "mimo_v2_flash": ModelType(
        layout=layers.numbered, attention=attention.MIMO, is_untied=True, dequantizes_fp8=True
    ),
    "minicpm": _UNTIED,
    "minicpm3": ModelType(attention=attention.EXPANDED, usual=_minicpm3, is_untied=True),
    "minimax": _MINIMAX,
    "minimax_m2": _MINIMAX,
    "ministral3": _MINISTRAL,
    "mistral": _LLAMA,
    "mistral3": ModelType(layout=layers.named_or_full, is_untied=True),
    "mistral4": _LATENTS,
    "mixtral": _UNTIED,
    "muse_glimmer": ModelType(layout=layers.every(4, "sliding", "sliding_window_pattern")),
    "nemotron": ModelType(is_untied=True, is_gated=False),
    "nemotron-nas": ModelType(
        layout=layers.searched,
        usual=_searched,
        is_untied=True,
        feed_forward_layers=lambda text: integer(text, "ffn_layers") or 0,
    ),
    "nemotron_h": ModelType(
        layout=layers.coded,
        recurrence=recurrence.MAMBA2,
        is_untied=True,
        is_gated=False,
        moe_layers=_lettered_moe_layers,
        feed_forward_layers=_lettered_networks,
    ),
    "olmo": ModelType(usual=_olmo, is_untied=True),
    "olmo2": _FULL,
    "olmo3": ModelType(layout=layers.named, is_untied=True),
    "olmoe": _FULL,
    "phi": ModelType(is_untied=True, is_gated=False),
    "phi3": _UNTIED,
    "phimoe": _UNTIED,
    "qwen": ModelType(usual=_qwen1, is_untied=True),
    "qwen2": _FULL,
    "qwen2_moe": _UNTIED,
    "qwen2_vl": _FULL,
    "qwen2_vl_text": _FULL,
    "qwen2_5_vl": _FULL,
    "qwen2_5_vl_text": _FULL,
    "qwen3": _FULL,
    "qwen3_moe": _FULL,
    "qwen3_next": _DELTANET,
    "qwen3_5": _DELTANET,
    "qwen3_5_text": _DELTANET,
    "qwen3_5_moe": _DELTANET,
    "qwen3_5_moe_text": _DELTANET,
    "qwen3_vl": _FULL,
    "qwen3_vl_text": _FULL,
    "qwen3_vl_moe": _FULL,
    "qwen3_vl_moe_text": _FULL,
    "qwen4_exp": _DELTANET,
    "qwen4_exp_text": _DELTANET,
    "seed_oss": _FULL,
    "smollm3": _FULL,
    "solar_open": _FULL,
    "stablelm": _UNTIED,
    "starcoder2": _UNGATED,
    "step3p5": ModelType(
        layout=layers.alternating,
        attention=attention.STEP,
        is_untied=True,
        moe_layers=_enumerated_moe_layers,
    ),
    "telechat3": _UNTIED,
    "xverse": _LLAMA,
    "youtu_llm": ModelType(attention=attention.EXPANDED),
}
