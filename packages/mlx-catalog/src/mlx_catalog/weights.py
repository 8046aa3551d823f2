"""A model's weights by what one token does with them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class TensorRole(StrEnum):
    """What a token does with a weight."""

    DENSE = "dense"
    """Reads it: attention, dense networks, shared experts, routers, norms."""
    OUTPUT = "output"
    """Reads it, at the end of a prompt only: the output layer."""
    ROUTED = "routed"
    """Reads it where it is of one of the experts that the token is sent to."""
    LOOKED_UP = "looked-up"
    """Reads a row of it: an embedding that isn't the output layer as well."""
    ASIDE = "aside"
    """Never reads it: towers for images and sound, heads that predict further tokens."""
    UNKNOWN = "unknown"
    """Unknown: weights of which only the size is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """The weights of one model as they are in memory.

    Attributes:
        params: Parameters by role, packed ones counted unpacked.
        size_bytes: Bytes by role, scales and biases included; None where the packing is unknown.
        active_share: The share of the routed experts that a token is sent to; None where unknown.
        params_by_bits: Parameters by the bits that they are kept at, before scales; empty where
            the packing is unknown.
        float16: Whether scales and what is not packed are float16, not bfloat16.
        fp4: Whether routed experts are packed as 4-bit floating-point numbers.
    """

    params: Mapping[TensorRole, float]
    size_bytes: Mapping[TensorRole, float] | None
    active_share: float | None = 1.0
    params_by_bits: Mapping[int, float] = field(default_factory=dict[int, float])
    float16: bool = False
    fp4: bool = False

    @property
    def total_params(self) -> int | None:
        """All parameters; None where nothing tells."""
        return round(sum(self.params.values())) or None

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all of them."""
        return None if self.size_bytes is None else round(sum(self.size_bytes.values()))

    @property
    def active_params(self) -> int | None:
        """All but those of experts that a token isn't sent to; None where nothing tells."""
        routed = self.params.get(TensorRole.ROUTED, 0)
        if routed and self.active_share is None:
            return None
        return round(sum(self.params.values()) - routed * (1 - (self.active_share or 0))) or None

    @property
    def read_params(self) -> float | None:
        """Parameters that a token is multiplied with."""
        return self._read(self.params)

    @property
    def read_bytes(self) -> float | None:
        """Bytes that a token reads."""
        return None if self.size_bytes is None else self._read(self.size_bytes)

    @property
    def bits_per_weight(self) -> float | None:
        """Bits that a parameter takes on average, scales and biases included."""
        total, params = self.total_bytes, self.total_params
        return total * 8 / params if total and params else None

    def at(self, bits_per_weight: float, *, fp4_experts: bool = False) -> "Weights":
        """The same parameters at another precision; towers are never quantized.

        Args:
            bits_per_weight: Bits of a weight with its share of a scale.
            fp4_experts: Whether routed experts are MXFP4: 4 bits, and 8 for 32 weights.
        """
        bits = dict.fromkeys(self.params, bits_per_weight)
        bits[TensorRole.ASIDE] = max(bits_per_weight, 16)
        if fp4_experts:
            bits[TensorRole.ROUTED] = 4 + 8 / 32
        sizes = {role: params * bits[role] / 8 for role, params in self.params.items()}
        return replace(self, size_bytes=sizes, params_by_bits={}, fp4=fp4_experts)

    def filling(self, size_bytes: float) -> "Weights":
        """The same parameters in files of `size_bytes` altogether.

        What the files hold beyond the count is towers and heads that no token reads.
        """
        sizes = self.size_bytes or self.params
        held = sum(sizes.values())
        more = size_bytes - held
        if self.size_bytes is None or more < 0:
            filled = {role: size * size_bytes / held for role, size in sizes.items()}
            return replace(self, size_bytes=filled)
        rest = TensorRole.UNKNOWN if TensorRole.UNKNOWN in sizes else TensorRole.ASIDE
        params = self.params.get(rest, 0) + more / held * sum(self.params.values())
        return replace(
            self,
            params={**self.params, rest: params},
            size_bytes={**sizes, rest: sizes.get(rest, 0) + more},
        )

    def _read(self, amounts: Mapping[TensorRole, float]) -> float | None:
        routed = amounts.get(TensorRole.ROUTED, 0)
        if TensorRole.UNKNOWN in amounts or (routed and self.active_share is None):
            return None
        read = amounts.get(TensorRole.DENSE, 0) + amounts.get(TensorRole.OUTPUT, 0)
        return read + routed * (self.active_share or 0)


_ASIDE = re.compile(
    r"(^|\.)((vision|audio|visual)\w*|embed_(vision|audio)|(multi_?modal|mm)_projector|mtp)\."
)
#: A layer's experts, stacked into one tensor by mlx-lm or one module each as published.
_ROUTED = re.compile(r"\.(switch_mlp|switch_glu|experts)(\.|$)")
_OUTPUT = re.compile(r"(^|\.)(lm_head|embed_out)$|^(model\.)?output$|transformer\.ff_out$")
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|tok_embeddings|word_embeddings|embeddings|embed_in|wte)$"
)
_LOOKED_UP = re.compile(r"(^|\.)(embed_tokens_per_layer|wpe)$")


def is_output(module: str) -> bool:
    """Whether the module with this path is an output layer."""
    return _OUTPUT.search(module) is not None


def role_of(module: str, *, is_tied: bool) -> TensorRole:
    """What a token does with the weights of a module, by its path.

    Args:
        module: The path, as in `model.layers.0.self_attn.q_proj`.
        is_tied: Whether the model has no output layer besides its embedding.
    """
    if _ASIDE.search(module):
        return TensorRole.ASIDE
    if _ROUTED.search(module):
        return TensorRole.ROUTED
    if is_output(module):
        return TensorRole.OUTPUT
    if _EMBEDDING.search(module):
        return TensorRole.OUTPUT if is_tied else TensorRole.LOOKED_UP
    return TensorRole.LOOKED_UP if _LOOKED_UP.search(module) else TensorRole.DENSE
