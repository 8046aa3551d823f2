"""What each layer of a model keeps between tokens: the caches of mlx-lm 0.31.3 and 0.32.

A layout takes the language model's configuration and its number of layers, and gives the kind of
each layer in order, or None where the configuration leaves it open (decision 0038).
"""

from collections.abc import Sequence
from typing import Literal, cast

from mlx_catalog.config_fields import ModelConfig, integer, items, section, sections

type LayerKind = Literal["full", "sliding", "shared", "recurrent", "parallel", "none"]
type LayerKinds = tuple[LayerKind, ...]

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
    "M": "recurrent",
    "*": "full",
    "-": "none",
    "E": "none",
}


def full(_: ModelConfig, layers: int) -> LayerKinds | None:
    """Every layer keeps keys and values of the whole context."""
    return ("full",) * layers or None


def parallel(_: ModelConfig, layers: int) -> LayerKinds | None:
    """Every layer keeps keys and values, and a recurrent state."""
    return ("parallel",) * layers or None


def named(text: ModelConfig, layers: int) -> LayerKinds | None:
    """The pattern that `layer_types` spells out."""
    return _by_name(items(text, "layer_types")[:layers], layers)


def named_or_full(text: ModelConfig, layers: int) -> LayerKinds | None:
    """The same; without it, all are full."""
    return named(text, layers) if text.get("layer_types") is not None else full(text, layers)


def every(text: ModelConfig, layers: int, period: int, others: LayerKind) -> LayerKinds | None:
    """Full attention in every `period`-th layer, unless the configuration says otherwise."""
    if isinstance(text.get("layer_types"), list):
        return named(text, layers)
    step = integer(text, "full_attention_interval", "sliding_window_pattern") or period
    return tuple("full" if i % step == step - 1 else others for i in range(layers)) or None


def lettered(text: ModelConfig, layers: int) -> LayerKinds | None:
    """EXAONE 4: a pattern of L (sliding) and G (full) that repeats; without one, all are full."""
    pattern = text.get("sliding_window_pattern")
    if not pattern:
        return full(text, layers)
    if not isinstance(pattern, str):
        return named(text, layers)
    return tuple(
        "sliding" if pattern[i % len(pattern)] == "L" else "full" for i in range(layers)
    ) or None  # fmt: skip


def sharing(text: ModelConfig, layers: int) -> LayerKinds | None:
    """Gemma 3n and 4: the last layers use the caches of earlier ones."""
    own = layers - (integer(text, "num_kv_shared_layers") or 0)
    if own < 0:
        return None
    kinds = named(text, layers) or every(text, layers, 5, "sliding")
    if kinds is None:
        return None
    borrowed: LayerKinds = ("shared",) * (layers - own)
    return kinds[:own] + borrowed


def numbered(text: ModelConfig, layers: int) -> LayerKinds | None:
    """MiMo-V2: 1 for a layer with a window, 0 for a full one."""
    pattern = items(text, "hybrid_layer_pattern")[:layers]
    if len(pattern) < layers or any(code not in (0, 1) for code in pattern):
        return None
    return tuple("sliding" if code else "full" for code in pattern) or None


def layer_codes(text: ModelConfig) -> list[object]:
    """Nemotron-H's layers: letters (M, *, - and E), or words."""
    pattern = text.get("hybrid_override_pattern") or text.get("layers_block_type")
    return list(cast("Sequence[object]", pattern)) if isinstance(pattern, list | str) else []


def coded(text: ModelConfig, _: int) -> LayerKinds | None:
    """Nemotron-H: letters or words, which also say how many layers there are."""
    codes = layer_codes(text)
    return _by_name(codes, len(codes))


def lfm2(text: ModelConfig, layers: int) -> LayerKinds | None:
    """The indexes of the layers with attention; the others are convolutions."""
    if not isinstance(text.get("full_attn_idxs"), list):
        return named(text, layers)
    indexes = items(text, "full_attn_idxs")
    return tuple("full" if i in indexes else "recurrent" for i in range(layers)) or None


def jamba(text: ModelConfig, layers: int) -> LayerKinds | None:
    """Attention in one layer of each period."""
    period, offset = text.get("attn_layer_period"), text.get("attn_layer_offset")
    if isinstance(period, int) and isinstance(offset, int) and period > 0:
        return tuple("full" if i % period == offset else "recurrent" for i in range(layers)) or None
    return coded(text, layers)


def kimi_linear(text: ModelConfig, layers: int) -> LayerKinds | None:
    """Kimi Linear: the numbers of the recurrent layers, counted from 1."""
    linear = section(text, "linear_attn_config")
    if not isinstance(linear.get("kda_layers"), list):
        return None
    numbers = items(linear, "kda_layers")
    return tuple("recurrent" if i + 1 in numbers else "full" for i in range(layers)) or None


def searched(text: ModelConfig, _: int) -> LayerKinds | None:
    """Blocks found by architecture search, some of them without attention."""
    found: list[LayerKind] = []
    for block in sections(text, "block_configs"):
        attention = section(block, "attention")
        if not attention:
            return None
        without = attention.get("no_op") or attention.get("replace_with_linear")
        found.append("none" if without else "full")
    return tuple(found) or None


def _by_name(names: Sequence[object], layers: int) -> LayerKinds | None:
    kinds = [_BY_NAME.get(str(name)) for name in names]
    if not layers or len(kinds) < layers or None in kinds:
        return None
    return tuple(cast("list[LayerKind]", kinds))
