"""A model's own `config.json`, read for what decides its memory and speed.

The layouts are those of mlx-lm's caches: what a layer of each `model_type` really keeps. A type
that is not known here is not guessed: its reading has `known` false and no cache, and says the
rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from msgspec import structs

from mlx_catalog.config_fields import HIDDEN, LAYERS, QUERY_HEADS, Config, integer, word
from mlx_catalog.layers import LayerKinds, layer_kinds
from mlx_catalog.recurrence import recurrent_state
from mlx_catalog.schema import Architecture, Experts, Geometry, RecurrentKind


@dataclass(frozen=True, slots=True)
class Quantization:
    """How the weights are quantized: the default, and exceptions by module path."""

    bits: int
    group_size: int
    mode: str
    overrides: Mapping[str, "Quantization"]

    @property
    def bits_per_weight(self) -> float:
        """Bits with the scales of a group: 16 for scale and bias each, or 8 in the fp modes."""
        return self.bits + (32 if self.mode == "affine" else 8) / self.group_size


@dataclass(frozen=True, slots=True)
class ConfigReading:
    """What a `config.json` says; `known` is false where its type's cache layout isn't known."""

    model_type: str
    known: bool
    architecture: Architecture | None
    geometry: Geometry | None
    max_context_tokens: int | None
    vision: bool
    quantization: Quantization | None
    dtype: str
    notes: tuple[str, ...]


def read_config(config: Config, source: str = "config.json") -> ConfigReading:
    """What `config` says of a model; `source` is noted as the geometry's source."""
    text = text_config(config)
    model_type = word(config, "model_type") or word(text, "model_type")
    text_type = word(text, "model_type") or model_type
    kinds = layer_kinds(model_type, text_type, text)
    geometry = _geometry(text_type, text, config, kinds, source)
    packing = _packing(config)
    quantization = _scheme(packing) if packing is not None else None
    # what packs the weights in a way that isn't known here says more than their nominal type
    is_packed_otherwise = packing is not None and quantization is None
    return ConfigReading(
        model_type=model_type,
        known=kinds is not None,
        architecture=_architecture(kinds, geometry, text) if geometry else None,
        geometry=geometry,
        max_context_tokens=integer(
            text, "max_position_embeddings", "model_max_length", "max_seq_len"
        ),
        vision="vision_config" in config,
        quantization=quantization,
        dtype="" if is_packed_otherwise else _dtype(config, text),
        notes=_notes(model_type, kinds, geometry),
    )


def text_config(config: Config) -> Config:
    """The part that describes the language model: multimodal configurations nest it."""
    for name in ("text_config", "llm_config", "language_config"):
        nested = config.get(name)
        if isinstance(nested, dict):
            said = {
                key: value for key, value in cast("Config", nested).items() if value is not None
            }
            return {**_UNSAID.get(word(config, "model_type"), {}), **said}
    return config


#: What configurations of a type leave out, because it is what the type's own class supposes
#: (transformers' Gemma3TextConfig).
_UNSAID: Mapping[str, Config] = {
    "gemma3": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
    },
}

#: Types that keep an output layer of its own unless the configuration says otherwise, as
#: mlx-lm's modules do; the others' is the embedding.
_UNTIED = frozenset(
    [
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe_lite",
        "gpt_oss",
        "kimi_k2",
        "kimi_linear",
        "llama4_text",
        "minimax",
        "minimax_m2",
        "mixtral",
        "nemotron",
        "nemotron_h",
        "olmo3",
        "phi",
        "phi3",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_5_moe_text",
        "qwen3_5_text",
        "qwen3_next",
        "step3p5",
    ]
)


def _tied(text_type: str, text: Config, config: Config) -> bool | None:
    """Whether the output layer is the embedding; None where neither file nor type tells."""
    said = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if isinstance(said, bool):
        return said
    return False if text_type in _UNTIED else None


def _dtype(config: Config, text: Config) -> str:
    return word(text, "dtype", "torch_dtype") or word(config, "dtype", "torch_dtype")


def _geometry(
    text_type: str, text: Config, config: Config, kinds: LayerKinds | None, source: str
) -> Geometry | None:
    layers = len(kinds) if kinds is not None else integer(text, *LAYERS)
    if layers is None:
        return None
    heads, width = _heads(text_type, text)
    latent = _latent(text_type, text)
    plain = Geometry(
        layers=layers,
        source=source,
        hidden_size=integer(text, *HIDDEN),
        vocab_size=integer(text, "vocab_size"),
        tied_embeddings=_tied(text_type, text, config),
        kv_heads=None if latent else heads,
        head_dim=None if latent else width,
        mla_latent_dim=latent[0] if latent else None,
        mla_rope_dim=latent[1] if latent else None,
        experts=_experts(text),
    )
    return plain if kinds is None else _with_layers(plain, kinds, text_type, text)


def _with_layers(plain: Geometry, kinds: LayerKinds, text_type: str, text: Config) -> Geometry:
    sliding_heads, full_heads, full_width = _uneven_heads(text_type, text, plain.kv_heads)
    return structs.replace(
        plain,
        full_attention_layers=kinds.count("full") + kinds.count("parallel"),
        sliding_layers=kinds.count("sliding"),
        sliding_window=_window(text) if "sliding" in kinds else None,
        shared_kv_layers=kinds.count("shared") or None,
        kv_heads=sliding_heads,
        global_kv_heads=full_heads,
        global_head_dim=full_width,
        recurrent=recurrent_state(text_type, text, kinds),
    )


#: Step names its groups beside a `num_key_value_heads` that counts query heads.
_KV_HEADS = ("num_attention_groups", "num_key_value_heads", "num_kv_heads", "n_kv_heads")

#: Types whose cache holds latents. Older users of latent attention (deepseek_v2, minicpm3,
#: youtu_llm) expand them to keys and values before caching.
_LATENT_CACHE = frozenset(
    [
        "deepseek_v3",
        "kimi_k2",
        "kimi_k25",
        "joyai_llm_flash",
        "glm4_moe_lite",
        "kimi_linear",
        "longcat_flash",
        "longcat_flash_ngram",
        "mistral4",
    ]
)
_EXPANDED_LATENTS = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})


def _latent(text_type: str, text: Config) -> tuple[int, int] | None:
    latent = integer(text, "kv_lora_rank")
    if text_type not in _LATENT_CACHE or latent is None:
        return None
    return latent, integer(text, "qk_rope_head_dim") or 0


def _heads(text_type: str, text: Config) -> tuple[int | None, int | None]:
    """KV heads and the width of one, as cached."""
    query_heads = integer(text, *QUERY_HEADS)
    hidden = integer(text, *HIDDEN)
    even = hidden // query_heads if hidden and query_heads else None
    if text_type in _EXPANDED_LATENTS:
        key = (integer(text, "qk_nope_head_dim") or 0) + (integer(text, "qk_rope_head_dim") or 0)
        # Keys are wider than values: half of both together is the width that makes the sum right.
        return query_heads, (key + (integer(text, "v_head_dim") or even or 0)) // 2 or None
    if text_type == "nemotron-nas":
        return _nas_kv_heads(text, query_heads), even
    heads = integer(text, *_KV_HEADS)
    return heads or query_heads, integer(
        text, "head_dim", "attention_head_dim", "kv_channels"
    ) or even


def _nas_kv_heads(text: Config, query_heads: int | None) -> int | None:
    """KV heads of the blocks with attention, where all have as many."""
    blocks = text.get("block_configs")
    groups: set[int | None] = set()
    for block in cast("list[object]", blocks) if isinstance(blocks, list) else []:
        attention = cast("Config", block).get("attention") if isinstance(block, dict) else None
        if isinstance(attention, dict) and cast("Config", attention).get("n_heads_in_group"):
            groups.add(integer(cast("Config", attention), "n_heads_in_group"))
    group = groups.pop() if len(groups) == 1 else None
    return query_heads // group if query_heads and group else None


def _uneven_heads(
    text_type: str, text: Config, heads: int | None
) -> tuple[int | None, int | None, int | None]:
    """KV heads of the sliding layers, and of the full ones with their width, where they differ."""
    if text_type.startswith("gemma4"):
        # Only where keys double as values do the full layers have heads of their own number.
        shares = text.get("attention_k_eq_v") is True
        own = integer(text, "num_global_key_value_heads") if shares else None
        return heads, own or heads, integer(text, "global_head_dim")
    other = text.get("attention_other_setting")
    if text_type == "step3p5" and isinstance(other, dict):
        return integer(cast("Config", other), "num_attention_groups") or heads, heads, None
    return heads, None, None


def _window(text: Config) -> int | None:
    return integer(
        text,
        "sliding_window",
        "sliding_window_size",
        "attention_chunk_size",
        "attention_window_size",
    )


def _experts(text: Config) -> Experts | None:
    total = integer(text, "num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    if total is None or total == 1:
        return None
    active = integer(
        text,
        "num_experts_per_tok",
        "num_experts_per_token",
        "top_k_experts",
        "moe_top_k",
        "moe_topk",
        "moe_k",
    )
    return Experts(total=total, active=active, shared=_shared_experts(text))


def _shared_experts(text: Config) -> int | None:
    for name in ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts"):
        value = text.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    names = ("shared_expert_intermediate_size", "shared_intermediate_size")
    return 1 if integer(text, *names) is not None else None


def _packing(config: Config) -> Config | None:
    """What the configuration says of how the weights are packed, in whichever scheme."""
    raw = config.get("quantization") or config.get("quantization_config")
    return cast("Config", raw) if isinstance(raw, dict) else None


def _scheme(raw: Config) -> Quantization | None:
    published = _PUBLISHED.get(word(raw, "quant_method"))
    if published is not None:
        return published
    bits, group_size = integer(raw, "bits"), integer(raw, "group_size")
    if bits is None or group_size is None:
        return None
    overrides: dict[str, Quantization] = {}
    for path, value in raw.items():
        if isinstance(value, dict) and (scheme := _scheme(cast("Config", value))) is not None:
            overrides[path] = scheme
    return Quantization(bits, group_size, word(raw, "mode") or "affine", overrides)


#: Schemes that vendors publish in, which have no bits to configure. One scale is for a block of
#: 128 x 128 weights, and for 32.
_PUBLISHED = {
    "fp8": Quantization(8, 128 * 128, "fp8", {}),
    "mxfp4": Quantization(4, 32, "mxfp4", {}),
}


def _architecture(
    kinds: LayerKinds | None, geometry: Geometry, text: Config
) -> Architecture | None:
    if kinds is None:
        return None
    moe = geometry.experts is not None
    if geometry.recurrent is not None:
        return _hybrid(geometry.recurrent.kind, moe=moe, parallel="parallel" in kinds)
    if "none" in kinds:
        return "nas-transformer"
    if geometry.mla_latent_dim is not None:
        return "mla-moe" if moe else "mla-transformer"
    if not geometry.sliding_layers:
        return "moe" if moe else "transformer"
    if moe and "attention_chunk_size" in text:
        return "moe-chunked"
    return "moe-swa" if moe else "transformer-swa"


def _hybrid(kind: RecurrentKind, *, moe: bool, parallel: bool) -> Architecture:
    match kind:
        case "mamba1":
            return "mamba1-hybrid"
        case "mamba2" if parallel:
            return "mamba2-parallel-hybrid"
        case "mamba2":
            return "mamba2-hybrid-moe" if moe else "mamba2-hybrid"
        case "gated-deltanet":
            return "gated-deltanet-hybrid-moe" if moe else "gated-deltanet-hybrid"
        case "kda":
            return "kda-mla-hybrid-moe"
        case "shortconv":
            return "shortconv-hybrid-moe" if moe else "shortconv-hybrid"


def _notes(model_type: str, kinds: LayerKinds | None, geometry: Geometry | None) -> tuple[str, ...]:
    notes: list[str] = []
    if not model_type:
        notes.append("config.json names no model_type")
    elif kinds is None:
        notes.append(f"the cache layout of the model type {model_type!r} is not known")
    if geometry is None:
        notes.append("config.json doesn't say how many layers there are")
    return tuple(notes)
