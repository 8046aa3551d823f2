"""Sizes and bits of weights from the headers of safetensors files, without reading the weights.

A header is a little-endian 64-bit length and that many bytes of JSON: each tensor's dtype, shape
and place (https://github.com/huggingface/safetensors#format). MLX packs quantized weights into
32-bit words next to their `scales` (and, for the affine mode, `biases`), so the true number of
parameters follows from the scales.
"""

import re
import struct
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Annotated

import msgspec

from mlx_catalog.errors import UnreadableModelError
from mlx_catalog.precision import FP4_MODES, Precision, Scheme
from mlx_catalog.weights import TensorRole, Weights, is_output, role_of

_LENGTH_BYTES = 8
#: What the format's own reader accepts.
_MAX_HEADER_BYTES = 100_000_000

_FP8 = frozenset({"F8_E4M3", "F8_E5M2"})
_FLOATS = {**dict.fromkeys(_FP8, 8), "F16": 16, "BF16": 16, "F32": 32, "F64": 64}
_BITS: dict[str, int] = {
    **_FLOATS,
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E8M0"), 8),
    **dict.fromkeys(("U16", "I16"), 16),
    **dict.fromkeys(("U32", "I32"), 32),
    **dict.fromkeys(("U64", "I64", "C64"), 64),
    "F4": 4,
}


def dtype_bits(dtype: str) -> int | None:
    """Bits of one value of `dtype`, as headers name it; None for one that is not known here."""
    return _BITS.get(dtype)


#: What mlx.core.quantize packs.
_PACKED_BITS = frozenset({2, 3, 4, 5, 6, 8})


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a header; `data_offsets` is where it is behind that."""

    dtype: str
    shape: tuple[Annotated[int, msgspec.Meta(ge=0, le=2**48)], ...]
    data_offsets: tuple[int, int] = (0, 0)

    @property
    def elements(self) -> int:
        """How many values the file holds: packed words for a quantized weight."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self.elements * _BITS[self.dtype] // 8


def weight_files(names: Iterable[str]) -> tuple[str, ...]:
    """Those of a model's files that are its weights, as MLX loads them, sorted.

    They are `model*.safetensors`; only where there are none, other safetensors, without
    `consolidated*`, which repeats them in another layout, and without hidden files, which macOS
    lays next to others on foreign disks. `names` are paths inside the model; what is in a folder
    there is another model's.
    """
    found = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    usual = tuple(name for name in found if name.startswith("model"))
    return usual or tuple(name for name in found if not name.startswith((".", "consolidated")))


_SHARD = re.compile(r"(?P<start>.*-)(?P<number>\d{1,5})(?P<of>-of-)(?P<count>\d{1,5})\.safetensors")


def missing_shards(names: Iterable[str]) -> tuple[str, ...]:
    """The weight files that, by the numbers in the names of the others, should be there."""
    names = frozenset(names)
    expected: set[str] = set()
    for found in filter(None, map(_SHARD.fullmatch, names)):
        start, width, count = found["start"], len(found["number"]), found["count"]
        expected |= {
            f"{start}{number:0{width}}-of-{count}.safetensors"
            for number in range(1, int(count) + 1)
        }
    return tuple(sorted(expected - names))


def read_header(path: Path) -> dict[str, Tensor]:
    """The tensors of the safetensors file `path`, by name.

    Raises:
        UnreadableModelError: It can't be read, isn't a safetensors file, or is not as long as its
            header says.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(_LENGTH_BYTES)
            length = struct.unpack("<Q", start)[0] if len(start) == _LENGTH_BYTES else 0
            if not 2 <= length <= _MAX_HEADER_BYTES:
                raise UnreadableModelError(str(path), "no safetensors header")
            tensors = _tensors(file.read(length), str(path))
    except OSError as error:
        raise UnreadableModelError(str(path), error.strerror or str(error)) from error
    end = max((each.data_offsets[1] for each in tensors.values()), default=0)
    expected = _LENGTH_BYTES + length + end
    if size != expected:
        reason = "cut short" if size < expected else "too long"
        raise UnreadableModelError(str(path), f"{reason}: {size} bytes instead of {expected}")
    return tensors


def _tensors(raw: bytes, name: str) -> dict[str, Tensor]:
    try:
        header = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        found = {key: msgspec.json.decode(each, type=Tensor) for key, each in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise UnreadableModelError(name, f"a damaged safetensors header: {error}") from error
    unknown = {each.dtype for each in found.values()} - _BITS.keys()
    if unknown:
        raise UnreadableModelError(name, f"unknown tensor types: {', '.join(sorted(unknown))}")
    return found


def weigh(
    tensors: Mapping[str, Tensor], precision: Precision, active_share: float | None = 1.0
) -> Weights | None:
    """What `tensors`, of all files of a model, add up to in memory.

    Args:
        precision: At what precision MLX keeps them.
        active_share: The share of the routed experts that a token is sent to.

    Returns:
        The weights; None where there are no parameters. Those of a vendor's packing are counted
        as they are in the files.
    """
    is_tied = not any(is_output(name.rpartition(".")[0]) for name in tensors)
    params: dict[TensorRole, float] = {}
    sizes: dict[TensorRole, float] = {}
    by_bits: dict[int, float] = {}
    halves = sum({"F16": 1, "BF16": -1}.get(tensor.dtype, 0) for tensor in tensors.values())
    for name, stored in tensors.items():
        module, _, last = name.rpartition(".")
        if precision.is_doubled and "scale" in last:
            continue  # it is multiplied into the weights
        is_doubled = precision.is_doubled and stored.dtype in _FP8
        tensor = Tensor("BF16", stored.shape) if is_doubled else stored
        role = role_of(module, is_tied=is_tied)
        sizes[role] = sizes.get(role, 0) + tensor.size_bytes
        if not _is_scale(name, tensors):
            bits, elements = _unpacked(name, tensor, tensors, precision.scheme)
            params[role] = params.get(role, 0) + elements
            if bits is not None:
                by_bits[bits] = by_bits.get(bits, 0) + elements
    if not any(params.values()):
        return None
    return Weights(
        params=params,
        size_bytes=sizes,
        active_share=active_share,
        params_by_bits=dict(sorted(by_bits.items())),
        float16=halves > 0,
        fp4=precision.scheme is not None and precision.scheme.mode in FP4_MODES,
    )


def _is_scale(name: str, tensors: Mapping[str, Tensor]) -> bool:
    stem, _, last = name.rpartition(".")
    return last in ("scales", "biases") and f"{stem}.weight" in tensors


def _unpacked(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], scheme: Scheme | None
) -> tuple[int | None, int]:
    """Bits of one parameter of the tensor, and how many there are.

    Whole numbers that MLX didn't pack tell nothing of bits.
    """
    stem, _, last = name.rpartition(".")
    scales = tensors.get(f"{stem}.scales")
    if last != "weight" or tensor.dtype != "U32" or scales is None:
        return _FLOATS.get(tensor.dtype), tensor.elements
    own = scheme.overrides.get(stem, scheme) if scheme is not None else None
    bits = _packed_bits(tensor, scales, own)
    return bits, tensor.elements * 32 // bits


def _packed_bits(weight: Tensor, scales: Tensor, scheme: Scheme | None) -> int:
    group_size = scheme.group_size if scheme is not None else 64
    # A row of n weights has n * bits / 32 words and n / group_size scales.
    words, groups = weight.shape[-1:], scales.shape[-1:]
    bits = words[0] * 32 // (groups[0] * group_size) if words and groups and groups[0] else 0
    return bits if bits in _PACKED_BITS else (scheme.bits if scheme is not None else 4)
