"""Attention: the heads of a layer, what they cache, and the matrices that they are made of.

What a configuration leaves out is what mlx-lm's module supposes; what it says in a way that is
not understood here stays unknown.
"""

from dataclasses import dataclass, replace

from mlx_catalog.config_fields import (
    HIDDEN,
    QUERY_HEADS,
    ModelConfig,
    integer,
    is_said,
    needed,
    section,
)

type Matrices = dict[str, int]

#: Step names its groups next to a `num_key_value_heads` that counts query heads.
_KV_HEADS = (
    "num_attention_groups",
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "kv_n_heads",
)
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels")


@dataclass(frozen=True, slots=True)
class Heads:
    """The heads of one layer; None where a number is missing.

    Attributes:
        query: Query heads.
        kv: KV heads.
        key_dim: The width of a key, and of a query.
        value_dim: The width of a value.
    """

    query: int | None = None
    kv: int | None = None
    key_dim: int | None = None
    value_dim: int | None = None

    @property
    def cached_dim(self) -> int | None:
        """Half of a key and a value together: the width that makes the sum of both right."""
        if self.key_dim is None or self.value_dim is None:
            return None
        return (self.key_dim + self.value_dim) // 2

    def matrices(self, hidden: int) -> Matrices:
        """The projections, by the names of their modules.

        Raises:
            UnsaidError: A number is missing.
        """
        query, kv, keys, values = map(needed, (self.query, self.kv, self.key_dim, self.value_dim))
        return {
            "q_proj": hidden * query * keys,
            "k_proj": hidden * kv * keys,
            "v_proj": hidden * kv * values,
            "o_proj": hidden * query * values,
        }


def plain(text: ModelConfig, *, is_sliding: bool = False) -> Heads:  # noqa: ARG001 - all the same
    """Heads of the same kind in all layers."""
    kv, width = integer(text, *_KV_HEADS), integer(text, *_HEAD_DIM)
    query = integer(text, *QUERY_HEADS)
    if not is_said(text, *_KV_HEADS):
        kv = 1 if text.get("multi_query") is True else query
    if not is_said(text, *_HEAD_DIM):
        width = even_head_dim(text)
    return Heads(query, kv, width, width)


def even_head_dim(text: ModelConfig) -> int | None:
    """The width of a head where all of them together are as wide as the residual stream."""
    hidden, heads = integer(text, *HIDDEN), integer(text, *QUERY_HEADS)
    return hidden // heads if hidden and heads else None


def gemma4(text: ModelConfig, *, is_sliding: bool) -> Heads:
    """Full layers have heads of another width, and of another number where keys are values."""
    heads = plain(text)
    if is_sliding:
        return heads
    width = integer(text, "global_head_dim") or heads.key_dim
    own = integer(text, "num_global_key_value_heads") if shares_keys(text) else None
    return replace(heads, kv=own or heads.kv, key_dim=width, value_dim=width)


def shares_keys(text: ModelConfig) -> bool:
    """Whether full layers of Gemma 4 take the keys for values."""
    return text.get("attention_k_eq_v") is True and "global_head_dim" in text


def step(text: ModelConfig, *, is_sliding: bool) -> Heads:
    """Sliding layers say their own numbers of heads in `attention_other_setting`."""
    heads = plain(text)
    other = section(text if is_sliding else {}, "attention_other_setting")
    query, kv = integer(other, *QUERY_HEADS), integer(other, "num_attention_groups")
    return replace(heads, query=query or heads.query, kv=kv or heads.kv)


def mimo(text: ModelConfig, *, is_sliding: bool) -> Heads:
    """Sliding layers have heads of their own; values are narrower than keys."""
    names = ("num_attention_heads", "num_key_value_heads", "head_dim", "v_head_dim")
    return Heads(*(integer(text, f"swa_{name}" if is_sliding else name) for name in names))


def expanded(text: ModelConfig, *, is_sliding: bool = False) -> Heads:  # noqa: ARG001 - all the same
    """Latents that are expanded to keys and values before caching."""
    bare, rope = integer(text, "qk_nope_head_dim"), integer(text, "qk_rope_head_dim")
    query = integer(text, *QUERY_HEADS)
    keys = bare + rope if bare is not None and rope is not None else None
    return Heads(query, query, keys, integer(text, "v_head_dim"))


def latents(text: ModelConfig) -> tuple[int, int] | None:
    """What is cached where latents are: their width, and that of the keys' positional part."""
    latent, rope = integer(text, "kv_lora_rank"), integer(text, "qk_rope_head_dim")
    if latent is None or rope is None:
        return None
    # DeepSeek-V3.2 also caches the narrow keys that pick the tokens worth attending to
    return latent, rope + (integer(text, "index_head_dim") or 0)


def latent_matrices(text: ModelConfig, hidden: int) -> Matrices:
    """The projections of attention over latents.

    Raises:
        UnsaidError: A width is missing.
    """
    own, rank = expanded(text).matrices(hidden), integer(text, "q_lora_rank")
    latent, rope, heads = (
        needed(integer(text, name))
        for name in ("kv_lora_rank", "qk_rope_head_dim", "num_attention_heads")
    )
    wide, values = own["q_proj"] // hidden, own["v_proj"] // hidden
    queries = {"q_proj": own["q_proj"]}
    if rank is not None:
        queries = {"q_a_proj": rank * hidden, "q_b_proj": rank * wide}
    return {
        **queries,
        "kv_a_proj_with_mqa": hidden * (latent + rope),
        "kv_b_proj": latent * (wide - heads * rope + values),
        "o_proj": own["o_proj"],
    }
