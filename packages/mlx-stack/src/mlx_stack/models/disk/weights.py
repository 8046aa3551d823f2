"""What the files of a model say of themselves: precision, shards, and whether a shard is whole."""

import struct
from pathlib import Path

import msgspec

from mlx_stack.models.disk.manifest import Quant

_QUANT_OF_BITS: dict[int, Quant] = {4: "int4", 8: "int8"}
_LENGTH_BYTES = 8
_LARGEST_HEADER_BYTES = 100_000_000  # the limit that safetensors itself sets


class _Quantization(msgspec.Struct, frozen=True):
    bits: int | None = None
    quant_method: str | None = None


class _Config(msgspec.Struct, frozen=True):
    """The part of `config.json` that tells the precision.

    mlx-lm writes both keys; other tools write the second one, with their `quant_method`.
    """

    quantization: _Quantization | None = None
    quantization_config: _Quantization | None = None


class _Index(msgspec.Struct, frozen=True):
    weight_map: dict[str, str] = {}


class _Tensor(msgspec.Struct, frozen=True):
    data_offsets: tuple[int, int] = (0, 0)


def quant_of_config(content: bytes) -> Quant | None:
    """The precision that a `config.json` declares; None for an unusual one.

    Raises:
        ValueError: It is not JSON, or not such a file.
    """
    config = msgspec.json.decode(content, type=_Config)
    quantization = config.quantization or config.quantization_config
    if quantization is None:
        return "bf16"
    if quantization.quant_method is not None or quantization.bits is None:
        return None
    return _QUANT_OF_BITS.get(quantization.bits)


def shards_of_index(content: bytes) -> frozenset[str]:
    """The weight files that a `model.safetensors.index.json` names.

    Raises:
        ValueError: It is not JSON, or not such a file.
    """
    return frozenset(msgspec.json.decode(content, type=_Index).weight_map.values())


def problem_of_weights(path: Path) -> str | None:
    """What the header of a safetensors file says against the file's size, or None.

    The format: eight bytes with the header's length, the header in JSON, then the tensors, at the
    offsets that the header gives. A file cut short is found without reading its tensors.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            return "is cut short"
        (header_bytes,) = struct.unpack("<Q", prefix)
        if header_bytes > min(size - _LENGTH_BYTES, _LARGEST_HEADER_BYTES):
            return "is cut short"
        header = file.read(header_bytes)
    try:
        parts = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        tensors = [
            msgspec.json.decode(raw, type=_Tensor)
            for name, raw in parts.items()
            if name != "__metadata__"
        ]
    except ValueError:
        return "has a damaged header"
    data_bytes = max((tensor.data_offsets[1] for tensor in tensors), default=0)
    expected = _LENGTH_BYTES + header_bytes + data_bytes
    return None if size == expected else f"has {size} bytes instead of {expected}"
