"""Sizes and bits of weights from the headers of safetensors files, without reading the weights.

A header is a little-endian 64-bit length and that many bytes of JSON: each tensor's dtype, shape
and place (https://github.com/huggingface/safetensors#format). MLX packs quantized weights into
32-bit words beside their `scales` (and, for the affine mode, `biases`), so the true number of
parameters follows from the scales.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_catalog.config_json import Quantization
from mlx_catalog.errors import UnreadableModelError

#: What the format's own reader accepts.
_MAX_HEADER_BYTES = 100_000_000

_BITS: dict[str, int] = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64"), 64),
    "F4": 4,
}


def dtype_bits(dtype: str) -> int | None:
    """Bits of one value of `dtype`, as headers name it; None for one that is not known here."""
    return _BITS.get(dtype)


#: What mlx.core.quantize packs.
_PACKED_BITS = frozenset({2, 3, 4, 5, 6, 8})


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a header."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many values the file holds: packed words for a quantized weight."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.elements * _BITS[self.dtype] // 8


@dataclass(frozen=True, slots=True)
class Weights:
    """What the headers of one model add up to.

    Attributes:
        size_bytes: Bytes of all tensors, scales and biases included.
        params: Parameters, with packed weights counted unpacked.
        params_by_bits: How many of them are kept at each number of bits, before scales.
        routed_expert_params: Those in routed experts, of which a token uses a few.
    """

    size_bytes: int
    params: int
    params_by_bits: Mapping[int, int]
    routed_expert_params: int

    @property
    def bits_per_weight(self) -> float:
        """Bits that a parameter takes on average, scales and biases included."""
        return self.size_bytes * 8 / self.params


def weight_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a model's files that are its weights, as MLX loads them, sorted.

    They are `model*.safetensors`; only where there are none, other safetensors, without
    `consolidated*`, which repeats them in another layout. `names` are paths inside the model;
    what is in a folder there is another model's.
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    usual = tuple(name for name in found if name.startswith("model"))
    return usual or tuple(name for name in found if not name.startswith("consolidated"))


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of the safetensors file `path`, by name.

    Raises:
        UnreadableModelError: if it can't be read, or is no safetensors file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise UnreadableModelError(str(path), "no safetensors header")
            return parse_header(file.read(length), str(path))
    except OSError as error:
        raise UnreadableModelError(str(path), error.strerror or str(error)) from error


def parse_header(raw: bytes, name: str) -> dict[str, Tensor]:
    """The tensors in the JSON of a header; `name` is only named in errors.

    Raises:
        UnreadableModelError: if it is cut short or says something else.
    """
    try:
        header = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        described = {
            key: msgspec.json.decode(each, type=_Described) for key, each in header.items()
        }
    except msgspec.MsgspecError as error:
        raise UnreadableModelError(name, f"a damaged safetensors header: {error}") from error
    unknown = {each.dtype for each in described.values()} - _BITS.keys()
    if unknown:
        raise UnreadableModelError(name, f"unknown tensor types: {', '.join(sorted(unknown))}")
    return {key: Tensor(each.dtype, each.shape) for key, each in described.items()}


class _Described(msgspec.Struct):
    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=2**48)], ...]


#: A layer's experts, stacked into one tensor by mlx-lm or one module each as published.
_ROUTED = re.compile(
    r"\.(switch_mlp|switch_glu|experts|block_sparse_moe\.experts|mixer\.experts)\."
)


def weigh(tensors: Mapping[str, Tensor], quantization: Quantization | None) -> Weights:
    """What `tensors`, of all files of a model, add up to, quantized as `quantization` says."""
    params: dict[int, int] = {}
    routed = 0
    for name, tensor in tensors.items():
        if _is_scale(name, tensors):
            continue
        bits, elements = _unpacked(name, tensor, tensors, quantization)
        params[bits] = params.get(bits, 0) + elements
        if _ROUTED.search(name):
            routed += elements
    return Weights(
        size_bytes=sum(tensor.size_bytes for tensor in tensors.values()),
        params=sum(params.values()),
        params_by_bits=dict(sorted(params.items())),
        routed_expert_params=routed,
    )


def _is_scale(name: str, tensors: Mapping[str, Tensor]) -> bool:
    stem, _, last = name.rpartition(".")
    return last in ("scales", "biases") and f"{stem}.weight" in tensors


def _unpacked(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], quantization: Quantization | None
) -> tuple[int, int]:
    """Bits of one parameter of the tensor, and how many there are."""
    stem, _, last = name.rpartition(".")
    scales = tensors.get(f"{stem}.scales")
    if last != "weight" or tensor.dtype != "U32" or scales is None:
        return _BITS[tensor.dtype], tensor.elements
    bits = _packed_bits(stem, tensor, scales, quantization)
    return bits, tensor.elements * 32 // bits


def _packed_bits(
    stem: str, weight: Tensor, scales: Tensor, quantization: Quantization | None
) -> int:
    scheme = _scheme_of(stem, quantization)
    group_size = scheme.group_size if scheme is not None else 64
    # A row of n weights has n * bits / 32 words and n / group_size scales.
    words, groups = weight.shape[-1:], scales.shape[-1:]
    bits = words[0] * 32 // (groups[0] * group_size) if words and groups and groups[0] else 0
    return bits if bits in _PACKED_BITS else (scheme.bits if scheme is not None else 4)


def _scheme_of(stem: str, quantization: Quantization | None) -> Quantization | None:
    if quantization is None:
        return None
    return quantization.overrides.get(stem, quantization)


def merge(headers: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of several files as one model's."""
    return {name: tensor for header in headers for name, tensor in header.items()}
