"""What each layer of a model keeps between tokens: the caches of mlx-lm 0.31.3 and 0.32."""

from collections.abc import Callable, Sequence
from typing import Literal, cast

from mlx_catalog.config_fields import LAYERS, Config, integer

type LayerKind = Literal["full", "sliding", "shared", "recurrent", "parallel", "none"]
type LayerKinds = tuple[LayerKind, ...]

#: Every layer keeps keys and values of the whole context.
_FULL = frozenset(
    [
        "Klear",
        "apertus",
        "bailing_moe",
        "bitnet",
        "cohere",
        "dbrx",
        "deepseek",
        "deepseek_v2",
        "deepseek_v3",
        "dots1",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone",
        "gemma",
        "gemma2",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "gpt2",
        "gpt_bigcode",
        "gpt_neox",
        "granite",
        "granitemoe",
        "helium",
        "hunyuan",
        "hunyuan_v1_dense",
        "internlm2",
        "internlm3",
        "joyai_llm_flash",
        "kimi_k2",
        "minicpm",
        "minicpm3",
        "minimax",
        "minimax_m2",
        "mimo",
        "mistral4",
        "mixtral",
        "nemotron",
        "olmo",
        "olmo2",
        "olmoe",
        "phi",
        "phi3",
        "phimoe",
        "qwen",
        "qwen2",
        "qwen2_moe",
        "qwen2_vl",
        "qwen2_5_vl",
        "qwen3",
        "qwen3_moe",
        "qwen3_vl",
        "qwen3_vl_moe",
        "qwen3_vl_text",
        "qwen3_vl_moe_text",
        "qwen2_vl_text",
        "qwen2_5_vl_text",
        "seed_oss",
        "smollm3",
        "stablelm",
        "starcoder2",
        "telechat3",
        "youtu_llm",
    ]
)

#: `layer_types` says which layers slide; without it, all are full.
_OPTIONAL_SLIDING = frozenset(
    {"llama", "mistral", "mistral3", "ministral3", "iquestcoder", "xverse"}
)

_BY_NAME: dict[str, LayerKind] = {
    "full_attention": "full",
    "attention": "full",
    "global_attention": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "sliding",
    "linear_attention": "recurrent",
    "mamba": "recurrent",
    "mamba2": "recurrent",
    "conv": "recurrent",
    "moe": "none",
    "mlp": "none",
}


_MOST_LAYERS = 10_000
"""Models have hundreds at most; a damaged or hostile file may say anything."""


def layer_kinds(model_type: str, text_type: str, text: Config) -> LayerKinds | None:
    """The kind of each layer, in order; None where the type, or its pattern, is unknown.

    Args:
        model_type: The configuration's own type.
        text_type: The type of the language model inside it; the same where nothing is nested.
        text: The configuration of the language model.
    """
    count = integer(text, *LAYERS) or 0
    layers = count if count <= _MOST_LAYERS else 0
    for name in (text_type, model_type):
        layout = _LAYOUTS.get(name)
        if layout is not None:
            return layout(text, layers)
        if name in _FULL and layers:
            return ("full",) * layers
    return None


def _named(text: Config, layers: int) -> LayerKinds | None:
    """The pattern that `layer_types` spells out."""
    names = text.get("layer_types")
    if not isinstance(names, list) or not layers:
        return None
    kinds = [_BY_NAME.get(str(name)) for name in cast("list[object]", names)[:layers]]
    if len(kinds) < layers or None in kinds:
        return None
    return tuple(cast("list[LayerKind]", kinds))


def _named_or_full(text: Config, layers: int) -> LayerKinds | None:
    if "layer_types" in text and text["layer_types"] is not None:
        return _named(text, layers)
    return ("full",) * layers if layers else None


def _every(
    period: int, other: LayerKind, *names: str
) -> Callable[[Config, int], LayerKinds | None]:
    """Full attention in every `period`-th layer; `names` are keys that may say otherwise."""

    def layout(text: Config, layers: int) -> LayerKinds | None:
        if isinstance(text.get("layer_types"), list):
            return _named(text, layers)
        found = [value for name in names if isinstance(value := text.get(name), int) and value > 0]
        every = found[0] if found else period
        return tuple("full" if i % every == every - 1 else other for i in range(layers)) or None

    return layout


def _alternating(text: Config, layers: int) -> LayerKinds | None:
    """Sliding and full in turns, sliding first."""
    if isinstance(text.get("layer_types"), list):
        return _named(text, layers)
    kinds: list[LayerKind] = ["sliding" if i % 2 == 0 else "full" for i in range(layers)]
    return tuple(kinds) or None


def _lettered(text: Config, layers: int) -> LayerKinds | None:
    """EXAONE 4: a pattern of L (sliding) and G (full) that repeats; without one, all are full."""
    pattern = text.get("sliding_window_pattern")
    if not pattern:
        return ("full",) * layers or None
    if not isinstance(pattern, str):
        return _named(text, layers)
    kinds: list[LayerKind] = [
        "sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(layers)
    ]
    return tuple(kinds) or None


def _sharing(text: Config, layers: int) -> LayerKinds | None:
    """Gemma 3n and 4: the last layers use the caches of earlier ones."""
    own = layers - (integer(text, "num_kv_shared_layers") or 0)
    if own < 0:
        return None
    kinds = _named(text, layers) or _every(5, "sliding", "sliding_window_pattern")(text, layers)
    if kinds is None:
        return None
    borrowed: LayerKinds = ("shared",) * (layers - own)
    return kinds[:own] + borrowed


_PATTERN: dict[str, LayerKind] = {"M": "recurrent", "*": "full", "-": "none", "E": "none"}


def _nemotron_h(text: Config, _: int) -> LayerKinds | None:
    pattern = text.get("hybrid_override_pattern") or text.get("layers_block_type")
    if not isinstance(pattern, Sequence):
        return None
    found: list[LayerKind] = []
    for code in cast("Sequence[object]", pattern):
        kind = _PATTERN.get(str(code)) or _BY_NAME.get(str(code))
        if kind is None:
            return None
        found.append(kind)
    return tuple(found) or None


def _lfm2(text: Config, layers: int) -> LayerKinds | None:
    indexes = text.get("full_attn_idxs")
    if isinstance(indexes, list):
        return tuple("full" if i in indexes else "recurrent" for i in range(layers)) or None
    return _named(text, layers)


def _jamba(text: Config, layers: int) -> LayerKinds | None:
    period, offset = text.get("attn_layer_period"), text.get("attn_layer_offset")
    if isinstance(period, int) and isinstance(offset, int) and period > 0:
        return tuple("full" if i % period == offset else "recurrent" for i in range(layers)) or None
    return _nemotron_h(text, layers)


def _kimi_linear(text: Config, layers: int) -> LayerKinds | None:
    linear = text.get("linear_attn_config")
    numbers = cast("Config", linear).get("kda_layers") if isinstance(linear, dict) else None
    if not isinstance(numbers, list):
        return None
    return tuple("recurrent" if i + 1 in numbers else "full" for i in range(layers)) or None


def _nemotron_nas(text: Config, _: int) -> LayerKinds | None:
    """Blocks found by architecture search, some of them without attention."""
    blocks = text.get("block_configs")
    if not isinstance(blocks, list):
        return None
    found: list[LayerKind] = []
    for block in cast("list[object]", blocks):
        attention = cast("Config", block).get("attention") if isinstance(block, dict) else None
        if not isinstance(attention, dict):
            return None
        spec = cast("Config", attention)
        found.append("none" if spec.get("no_op") or spec.get("replace_with_linear") else "full")
    return tuple(found) or None


def _parallel(_: Config, layers: int) -> LayerKinds | None:
    return ("parallel",) * layers or None


_DELTANET = _every(4, "recurrent", "full_attention_interval")
_GEMMA3 = _every(6, "sliding", "sliding_window_pattern")

_LAYOUTS: dict[str, Callable[[Config, int], LayerKinds | None]] = {
    **dict.fromkeys(_OPTIONAL_SLIDING, _named_or_full),
    **dict.fromkeys(
        (
            "qwen3_next",
            "qwen3_5",
            "qwen3_5_text",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
            "qwen4_exp",
            "qwen4_exp_text",
        ),
        _DELTANET,
    ),
    **dict.fromkeys(("gemma3", "gemma3_text"), _GEMMA3),
    **dict.fromkeys(
        (
            "gemma3n",
            "gemma3n_text",
            "gemma4",
            "gemma4_text",
            "gemma4_unified",
            "gemma4_unified_text",
        ),
        _sharing,
    ),
    **dict.fromkeys(("granitemoehybrid", "olmo3", "laguna", "mellum"), _named),
    **dict.fromkeys(("lfm2", "lfm2_moe"), _lfm2),
    **dict.fromkeys(("llama4", "llama4_text"), _every(4, "sliding")),
    **dict.fromkeys(("cohere2", "muse_glimmer"), _every(4, "sliding", "sliding_window_pattern")),
    "exaone4": _lettered,
    "gpt_oss": _alternating,
    "step3p5": _alternating,
    "nemotron_h": _nemotron_h,
    "nemotron-nas": _nemotron_nas,
    "jamba": _jamba,
    "kimi_linear": _kimi_linear,
    "falcon_h1": _parallel,
}
