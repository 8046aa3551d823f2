"""Attention: the keys and values that a layer caches, and the matrices that it is made of.

What a configuration leaves out is what mlx-lm's module supposes; what it says in a way that is
not understood here stays unknown.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mlx_catalog.config_fields import HIDDEN, QUERY_HEADS, Config, integer, is_said, section
from mlx_catalog.layers import LayerKind
from mlx_catalog.recurrence import Matrices

#: Step names its groups beside a `num_key_value_heads` that counts query heads.
_KV_HEADS = (
    "num_attention_groups",
    "num_key_value_heads",
    "num_kv_heads",
    "n_kv_heads",
    "kv_n_heads",
)
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """What a token adds to the cache of a layer, in the terms of `Geometry`."""

    kv_heads: int | None = None
    head_dim: int | None = None
    global_kv_heads: int | None = None
    global_head_dim: int | None = None
    mla_latent_dim: int | None = None
    mla_rope_dim: int | None = None


@dataclass(frozen=True, slots=True)
class Attention:
    """One kind of attention.

    Attributes:
        heads: What is cached.
        matrices: Parameters of one layer by module, for a kind of layer; None where a width is
            missing.
    """

    heads: Callable[[Config], Heads]
    matrices: Callable[[Config, LayerKind], Matrices | None]


def _plain_heads(text: Config) -> Heads:
    return Heads(kv_heads=_kv_heads(text), head_dim=_head_dim(text))


def _kv_heads(text: Config) -> int | None:
    number = integer(text, *_KV_HEADS)
    if number is not None or is_said(text, *_KV_HEADS):
        return number
    return 1 if text.get("multi_query") is True else integer(text, *QUERY_HEADS)


def _head_dim(text: Config) -> int | None:
    width = integer(text, *_HEAD_DIM)
    return width if width is not None or is_said(text, *_HEAD_DIM) else even_head_dim(text)


def even_head_dim(text: Config) -> int | None:
    """The width of a head where all of them together are as wide as the residual stream."""
    hidden, heads = integer(text, *HIDDEN), integer(text, *QUERY_HEADS)
    return hidden // heads if hidden and heads else None


def _plain_matrices(text: Config, _: LayerKind) -> Matrices | None:
    cached = _plain_heads(text)
    return _projections(text, integer(text, *QUERY_HEADS), cached.kv_heads, cached.head_dim)


def _projections(
    text: Config,
    heads: int | None,
    kv_heads: int | None,
    width: int | None,
    value_width: int | None = None,
) -> Matrices | None:
    hidden = integer(text, *HIDDEN)
    if hidden is None or heads is None or kv_heads is None or width is None:
        return None
    values = value_width or width
    return {
        "q_proj": hidden * heads * width,
        "k_proj": hidden * kv_heads * width,
        "v_proj": hidden * kv_heads * values,
        "o_proj": hidden * heads * values,
    }


def _gated_matrices(text: Config, kind: LayerKind) -> Matrices | None:
    """The queries bring along a gate for the output, as wide as they are."""
    plain = _plain_matrices(text, kind)
    return plain and {**plain, "q_proj": 2 * plain["q_proj"]}


def _latent_heads(text: Config) -> Heads:
    """Latents, and the part of the keys that carries the position."""
    latent, rope = integer(text, "kv_lora_rank"), integer(text, "qk_rope_head_dim")
    if latent is None or rope is None:
        return Heads()
    # DeepSeek-V3.2 also caches the narrow keys that pick the tokens worth attending to
    return Heads(mla_latent_dim=latent, mla_rope_dim=rope + (integer(text, "index_head_dim") or 0))


def _expanded_heads(text: Config) -> Heads:
    """Latents that are expanded to keys and values before caching."""
    plain, rope = integer(text, "qk_nope_head_dim"), integer(text, "qk_rope_head_dim")
    values = integer(text, "v_head_dim")
    if plain is None or rope is None or values is None:
        return Heads()
    # Keys are wider than values: half of both together is the width that makes the sum right.
    return Heads(kv_heads=integer(text, *QUERY_HEADS), head_dim=(plain + rope + values) // 2)


def _latent_matrices(text: Config, _: LayerKind) -> Matrices | None:
    hidden, heads = integer(text, *HIDDEN), integer(text, *QUERY_HEADS)
    latent, values = integer(text, "kv_lora_rank"), integer(text, "v_head_dim")
    plain, rope = integer(text, "qk_nope_head_dim"), integer(text, "qk_rope_head_dim")
    if hidden is None or heads is None or latent is None or values is None:
        return None
    if plain is None or rope is None:
        return None
    wide, rank = heads * (plain + rope), integer(text, "q_lora_rank")
    queries = {"q_proj": hidden * wide}
    if rank is not None:
        queries = {"q_a_proj": rank * hidden, "q_b_proj": rank * wide}
    return {
        **queries,
        "kv_a_proj_with_mqa": hidden * (latent + rope),
        "kv_b_proj": latent * heads * (plain + values),
        "o_proj": heads * values * hidden,
    }


def _gemma4_heads(text: Config) -> Heads:
    """Full layers have heads of another width, and of another number where keys are values."""
    own = integer(text, "num_global_key_value_heads") if _shares_keys(text) else None
    plain = _plain_heads(text)
    return Heads(
        kv_heads=plain.kv_heads,
        head_dim=plain.head_dim,
        global_kv_heads=own or plain.kv_heads,
        global_head_dim=integer(text, "global_head_dim"),
    )


def _gemma4_matrices(text: Config, kind: LayerKind) -> Matrices | None:
    if kind == "sliding":
        return _plain_matrices(text, kind)
    cached, heads = _gemma4_heads(text), integer(text, *QUERY_HEADS)
    width = cached.global_head_dim or cached.head_dim
    found = _projections(text, heads, cached.global_kv_heads, width)
    if found is not None and _shares_keys(text) and cached.global_head_dim is not None:
        del found["v_proj"]
    return found


def _shares_keys(text: Config) -> bool:
    return text.get("attention_k_eq_v") is True


def _step_heads(text: Config) -> Heads:
    """Sliding layers say their own numbers of heads in `attention_other_setting`."""
    plain = _plain_heads(text)
    return Heads(
        kv_heads=integer(section(text, "attention_other_setting"), "num_attention_groups")
        or plain.kv_heads,
        head_dim=plain.head_dim,
        global_kv_heads=plain.kv_heads,
    )


def _step_matrices(text: Config, kind: LayerKind) -> Matrices | None:
    cached, heads = _step_heads(text), integer(text, *QUERY_HEADS)
    kv_heads = cached.global_kv_heads
    if kind == "sliding":
        other = section(text, "attention_other_setting")
        heads, kv_heads = integer(other, *QUERY_HEADS) or heads, cached.kv_heads
    found, hidden = _projections(text, heads, kv_heads, cached.head_dim), integer(text, *HIDDEN)
    return found and {**found, "g_proj": (hidden or 0) * (heads or 0)}


def _mimo_heads(text: Config) -> Heads:
    """Sliding layers have heads of their own; values are narrower than keys."""
    keys, values = integer(text, "head_dim"), integer(text, "v_head_dim")
    near_keys, near_values = integer(text, "swa_head_dim"), integer(text, "swa_v_head_dim")
    return Heads(
        kv_heads=integer(text, "swa_num_key_value_heads"),
        head_dim=(near_keys + near_values) // 2 if near_keys and near_values else None,
        global_kv_heads=_kv_heads(text),
        global_head_dim=(keys + values) // 2 if keys and values else None,
    )


def _mimo_matrices(text: Config, kind: LayerKind) -> Matrices | None:
    if kind != "sliding":
        widths = integer(text, "head_dim"), integer(text, "v_head_dim")
        return _projections(text, integer(text, *QUERY_HEADS), _kv_heads(text), *widths)
    heads, kv_heads = (
        integer(text, "swa_num_attention_heads"),
        integer(text, "swa_num_key_value_heads"),
    )
    widths = integer(text, "swa_head_dim"), integer(text, "swa_v_head_dim")
    return _projections(text, heads, kv_heads, *widths)


PLAIN = Attention(_plain_heads, _plain_matrices)
GATED = Attention(_plain_heads, _gated_matrices)
LATENT = Attention(_latent_heads, _latent_matrices)
EXPANDED = Attention(_expanded_heads, _latent_matrices)
GEMMA4 = Attention(_gemma4_heads, _gemma4_matrices)
STEP = Attention(_step_heads, _step_matrices)
MIMO = Attention(_mimo_heads, _mimo_matrices)
