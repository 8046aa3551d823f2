"""How many parameters a model has and reads, counted from the widths in its `config.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

type Config = Mapping[str, object]

_COUNTABLE = (
    "afm7 gemma3 gemma3_text gemma4 gemma4_text glm4_moe gpt_oss granite llama mistral ministral3"
    " minimax_m2 olmo3 phi3 qwen2 qwen3 qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text"
    " qwen3_moe qwen3_next qwen3_vl_moe_text qwen3_vl_text seed_oss smollm3"
)
COUNTABLE_TYPES = frozenset(_COUNTABLE.split())
"""Values of the language model's `model_type` whose layout is known here.

Each is attention (or Gated DeltaNet) and a gated feed-forward network or experts in every layer.
"""


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
    """

    read: float
    text: float
    aside: float
    embedding: float
    looked_up: float = 0.0
    routed: float = 0.0


def count_parameters(config: Config) -> ParameterCounts | None:
    """The language model's parameters, without norms and biases; None for an unknown layout.

    `config` is a `config.json`, with the language model nested in `text_config` or not.
    """
    nested = config.get("text_config")
    text = _Widths(cast("Config", nested) if isinstance(nested, dict) else config)
    model_type = text.config.get("model_type") or config.get("model_type")
    if model_type not in COUNTABLE_TYPES or not text.is_complete:
        return None
    layers = text.layer_types()
    attention = sum(_mixer(text, kind) for kind in layers)
    dense, routed_all, routed_read = _feed_forward(text, len(layers))
    embedding = float(text.vocab * text.hidden)
    per_layer = text.integer("hidden_size_per_layer_input")
    looked_up = float(text.vocab_per_layer * per_layer * len(layers))
    gates = len(layers) * 3 * text.hidden * per_layer  # gate, projection, and the shared one
    read = attention + dense + routed_read + embedding + gates
    return ParameterCounts(
        read=read,
        text=read - routed_read + routed_all,
        aside=0.0,
        embedding=embedding,
        looked_up=looked_up,
        routed=routed_all,
    )


def query_group(config: Config) -> float | None:
    """Query heads that share a KV head, in the layers of the most common kind; None if unsaid."""
    nested = config.get("text_config")
    text = _Widths(cast("Config", nested) if isinstance(nested, dict) else config)
    return text.heads / text.kv_heads if text.heads and text.kv_heads else None


_MOST, _MOST_LAYERS = 2**40, 10_000
"""No model comes near; a damaged or hostile file may say anything."""


class _Widths:
    """The numbers of a configuration under the names of this module."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.hidden = self.integer("hidden_size")
        layers = self.integer("num_hidden_layers")
        self.layers = layers if layers <= _MOST_LAYERS else 0
        self.heads = self.integer("num_attention_heads")
        self.kv_heads = self.integer("num_key_value_heads") or self.heads
        self.head_dim = self.integer("head_dim") or (self.hidden // max(self.heads, 1))
        self.vocab = self.integer("vocab_size")
        self.vocab_per_layer = self.integer("vocab_size_per_layer_input") or self.vocab

    @property
    def is_complete(self) -> bool:
        return all((self.hidden, self.layers, self.heads, self.vocab))

    def integer(self, *names: str) -> int:
        for name in names:
            value = self.config.get(name)
            if isinstance(value, int) and 0 < value <= _MOST:
                return value
        return 0

    def layer_types(self) -> Sequence[str]:
        """The kind of each layer: full_attention, sliding_attention or linear_attention."""
        named = self.config.get("layer_types")
        if isinstance(named, list) and len(cast("list[object]", named)) == self.layers:
            return [str(kind) for kind in cast("list[object]", named)]
        every = self.integer("full_attention_interval")
        linear = self.integer("linear_num_value_heads") > 0
        other = "linear_attention" if linear else "sliding_attention"
        if not every:
            every = self.integer("sliding_window_pattern", "_sliding_window_pattern") or 1
        return [
            "full_attention" if (index + 1) % every == 0 else other for index in range(self.layers)
        ]


def _mixer(text: _Widths, kind: str) -> int:
    """Parameters of what mixes tokens in one layer."""
    if kind == "linear_attention":
        keys = text.integer("linear_num_key_heads") * text.integer("linear_key_head_dim")
        values = text.integer("linear_num_value_heads") * text.integer("linear_value_head_dim")
        gates = 2 * text.integer("linear_num_value_heads")
        return text.hidden * (2 * keys + 3 * values + gates)
    heads, kv_heads, width = text.heads, text.kv_heads, text.head_dim
    shared_key = False
    if kind == "full_attention" and text.integer("global_head_dim"):
        width = text.integer("global_head_dim")
        shared_key = text.config.get("attention_k_eq_v") is True
        kv_heads = (text.integer("num_global_key_value_heads") if shared_key else 0) or kv_heads
    # Gated DeltaNet's models gate the output of their full attention
    queries = heads * (2 if text.integer("linear_num_value_heads") else 1)
    return text.hidden * width * (queries + heads + kv_heads * (1 if shared_key else 2))


def _feed_forward(text: _Widths, layers: int) -> tuple[int, int, int]:
    """Parameters of all layers: dense and shared; all routed; the routed that a token reads."""
    gated = 3 * text.hidden
    experts = text.integer("num_experts", "num_local_experts", "n_routed_experts")
    wide = text.integer("intermediate_size")
    if experts <= 1:
        doubled = text.integer("num_kv_shared_layers")
        if text.config.get("use_double_wide_mlp") is not True:
            doubled = 0
        return gated * wide * (layers + doubled), 0, 0
    width = text.integer("moe_intermediate_size") or wide
    active = text.integer("num_experts_per_tok", "top_k_experts") or experts
    dense_layers = text.integer("first_k_dense_replace")
    moe_layers = layers - dense_layers
    shared = text.integer("shared_expert_intermediate_size") or (
        text.integer("n_shared_experts") * width
    )
    beside = wide if text.config.get("enable_moe_block") is True else 0  # Gemma 4 has both
    dense = dense_layers * gated * wide
    dense += moe_layers * (gated * (shared + beside) + text.hidden * experts)
    each = moe_layers * gated * width
    return dense, each * experts, each * active
