"""A model's own `config.json`, read for what decides its memory and speed.

The layouts are those of mlx-lm's caches: what a layer of each `model_type` really keeps (decision
0038). A type that is not in the table is not guessed: its reading has no `row` and no cache, and
says the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from msgspec import structs

from mlx_catalog.config_fields import (
    HIDDEN,
    LAYERS,
    QUERY_HEADS,
    ModelConfig,
    integer,
    is_said,
    section,
    word,
)
from mlx_catalog.layers import LayerKinds
from mlx_catalog.model_types import ModelType, model_types
from mlx_catalog.precision import Precision, read_precision
from mlx_catalog.schema import Architecture, Experts, Geometry, RecurrentKind
from mlx_catalog.spellings import factor

_MOST_LAYERS = 10_000
"""Models have hundreds at most; a damaged or hostile file may say anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReading:
    """What a `config.json` says.

    Attributes:
        model_type: As the file names it, or "".
        text: What describes the language model, in the names that most types use.
        row: What is known of its type; None where that is nothing.
        kinds: The kind of each layer; None where the cache layout is unknown.
        architecture: How the model remembers; None where that is unknown.
        geometry: Layers, caches, experts; None where the file doesn't say how many layers.
        tower: What is said of a tower for images; None where there is none.
        precision: At what precision MLX keeps the weights.
        notes: What could not be said, and why.
    """

    model_type: str
    text: ModelConfig
    row: ModelType | None
    kinds: LayerKinds | None
    architecture: Architecture | None
    geometry: Geometry | None
    max_context_tokens: int | None
    tower: ModelConfig | None
    precision: Precision
    notes: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether the cache layout of the type is known here."""
        return self.kinds is not None


def read_config(config: ModelConfig, source: str = "config.json") -> ConfigReading:
    """What `config` says of a model; `source` is noted as the geometry's source."""
    said = _language_model(config)
    model_type = word(config, "model_type") or word(said, "model_type")
    text_type = word(said, "model_type") or model_type
    outer, inner = (model_types().get(name) for name in (model_type, text_type))
    rows = [row for row in (outer, inner if inner is not outer else None) if row is not None]
    for each in rows or [ModelType()]:
        said = each.in_usual_names(said)
    row = rows[-1] if rows else None
    kinds = row.kinds(said, _layers(said) or 0) if row is not None else None
    geometry = _geometry(said, config, rows, kinds, source)
    precision = read_precision(config, said, row or ModelType())
    return ConfigReading(
        model_type=model_type,
        text=said,
        row=row,
        kinds=kinds,
        architecture=_architecture(kinds, geometry, said) if kinds and geometry else None,
        geometry=geometry,
        max_context_tokens=_longest_context(said),
        tower=section(config, "vision_config") if "vision_config" in config else None,
        precision=precision,
        notes=(*_notes(model_type, kinds, geometry), *precision.notes),
    )


def _language_model(config: ModelConfig) -> ModelConfig:
    """The part that describes the language model, which multimodal configurations nest."""
    for name in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(name), dict):
            return section(config, name)
    return config


def _layers(text: ModelConfig) -> int | None:
    count = integer(text, *LAYERS)
    return count if count is not None and count <= _MOST_LAYERS else None


_LONGEST = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "model_max_length",
    "n_ctx",
)


def _longest_context(text: ModelConfig) -> int | None:
    """The context named, or what YaRN stretches the original one to."""
    named = integer(text, *_LONGEST)
    scalings = [section(text, "rope_scaling"), section(text, "rope_parameters")]
    # version 5 of transformers may nest one for each kind of layer
    scalings += [section(scalings[1], name) for name in scalings[1]]
    for scaling in scalings:
        if word(scaling, "rope_type", "type") == "yarn":
            original = integer(scaling, "original_max_position_embeddings") or named
            times = factor(scaling.get("factor"))
            if original is not None and times is not None:
                return max(named or 0, round(original * times))
    return named


def _tied(text: ModelConfig, config: ModelConfig, rows: list[ModelType]) -> bool | None:
    """Whether the output layer is the embedding; None where neither file nor type tells."""
    said = text.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    if isinstance(said, bool):
        return said
    return not any(row.untied for row in rows) if rows else None


def _geometry(
    text: ModelConfig,
    config: ModelConfig,
    rows: list[ModelType],
    kinds: LayerKinds | None,
    source: str,
) -> Geometry | None:
    layers = len(kinds) if kinds is not None else _layers(text)
    if layers is None:
        return None
    row = rows[-1] if rows else ModelType()
    far, near = row.heads(text, is_sliding=False), row.heads(text, is_sliding=True)
    latents = row.latents(text)
    plain = Geometry(
        layers=layers,
        source=source,
        hidden_size=integer(text, *HIDDEN),
        feed_forward_size=integer(text, "intermediate_size"),
        vocab_size=integer(text, "vocab_size"),
        tied_embeddings=_tied(text, config, rows),
        per_layer_embedding_dim=integer(text, "hidden_size_per_layer_input"),
        query_heads=integer(text, *QUERY_HEADS),
        kv_heads=near.kv,
        head_dim=near.cached_dim,
        global_kv_heads=far.kv if far != near else None,
        global_head_dim=far.cached_dim if far != near else None,
        mla_latent_dim=latents[0] if latents is not None else None,
        mla_rope_dim=latents[1] if latents is not None else None,
        experts=_experts(text),
    )
    if kinds is None:
        return plain
    return structs.replace(
        plain,
        full_attention_layers=kinds.count("full") + kinds.count("parallel"),
        sliding_layers=kinds.count("sliding"),
        sliding_window=_window(text) if "sliding" in kinds else None,
        shared_kv_layers=kinds.count("shared") or None,
        recurrent=row.state(text, kinds.count("recurrent") + kinds.count("parallel")),
    )


def _window(text: ModelConfig) -> int | None:
    return integer(
        text,
        "sliding_window",
        "sliding_window_size",
        "attention_chunk_size",
        "attention_window_size",
    )


EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
ACTIVE_EXPERTS = (
    "num_experts_per_tok",
    "num_experts_per_token",
    "top_k_experts",
    "moe_top_k",
    "moe_topk",
    "moe_k",
)
SHARED_EXPERTS = (
    "n_shared_experts",
    "num_shared_experts",
    "num_shared_expert",
    "moe_num_shared_experts",
)
SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)


def _experts(text: ModelConfig) -> Experts | None:
    total = integer(text, *EXPERTS)
    if total is None or total == 1:
        return None
    shared = integer(text, *SHARED_EXPERTS)
    if shared is None and is_said(text, *SHARED_EXPERTS):
        said = [text[name] for name in SHARED_EXPERTS if name in text]
        shared = 0 if 0 in said else None
    elif shared is None and is_said(text, *SHARED_WIDTH):
        shared = 1
    return Experts(total=total, active=integer(text, *ACTIVE_EXPERTS), shared=shared)


def _architecture(kinds: LayerKinds, geometry: Geometry, text: ModelConfig) -> Architecture:
    moe, state = "-moe" if geometry.experts is not None else "", geometry.recurrent
    if state is not None:
        name = _HYBRIDS.get(state.kind) or f"{state.kind}-hybrid{moe}"
        name = "mamba2-parallel-hybrid" if "parallel" in kinds else name
    elif "none" in kinds:
        name = "nas-transformer"
    elif geometry.mla_latent_dim is not None:
        name = f"mla{moe or '-transformer'}"
    elif moe and geometry.sliding_layers and "attention_chunk_size" in text:
        name = "moe-chunked"
    else:
        name = ("moe" if moe else "transformer") + ("-swa" if geometry.sliding_layers else "")
    return cast("Architecture", name)


_HYBRIDS: Mapping[RecurrentKind, Architecture] = {
    "mamba1": "mamba1-hybrid",
    "kda": "kda-mla-hybrid-moe",
}
"""Those that come with experts and without under one name."""


def _notes(model_type: str, kinds: LayerKinds | None, geometry: Geometry | None) -> tuple[str, ...]:
    notes: list[str] = []
    if not model_type:
        notes.append("config.json names no model_type")
    elif kinds is None:
        notes.append(f"the cache layout of the model type {model_type!r} is not known")
    if geometry is None:
        notes.append("config.json doesn't say how many layers there are")
    return tuple(notes)
