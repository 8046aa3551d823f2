"""At what precision a model's weights are kept, from its `config.json`.

What MLX makes of the weights counts, not what is in the files. A packing whose size does not
follow from the configuration is unknown: it is never taken for 16 bits.

(decision 0046)
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import cast

from mlx_catalog.config_fields import ModelConfig, integer, section, word
from mlx_catalog.model_types import ModelType
from mlx_catalog.weights import TensorRole

FP4_MODES = frozenset({"mxfp4", "nvfp4"})
"""MLX's names for weights that are floating-point numbers of 4 bits."""
_FLOATS = {"bfloat16": 16, "float16": 16, "float32": 32}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How weights are quantized: the default, and exceptions by module path.

    Attributes:
        bits: Bits of a weight by itself.
        group_size: Weights that share a scale.
        mode: MLX's name for the kind: affine, mxfp4, mxfp8, nvfp4.
        overrides: Modules that are kept otherwise; None is not quantized.
        roles: What the default applies to; other weights are not quantized.
    """

    bits: int
    group_size: int
    mode: str = "affine"
    overrides: Mapping[str, "Scheme | None"] = field(
        default_factory=dict[str, "Scheme | None"], compare=False
    )
    roles: frozenset[TensorRole] = frozenset(TensorRole) - {TensorRole.ASIDE, TensorRole.UNKNOWN}

    @property
    def bits_per_weight(self) -> float:
        """Bits with the scales of a group: 16 for scale and bias each, or 8 in the fp modes."""
        return self.bits + (32 if self.mode == "affine" else 8) / self.group_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """What a configuration says of the precision.

    Attributes:
        scheme: How the weights are quantized; None where they aren't, or it isn't known how.
        plain_bits: Bits of what is not quantized; None where the packing is unknown.
        dtype: The type of what is not quantized, as the configuration names it, or "".
        is_packed: Whether the files hold anything but plain floating-point numbers.
        is_native: Whether they are MLX's own: then the headers say how many parameters there are.
        notes: What is unknown or was supposed, and why.
    """

    scheme: Scheme | None = None
    plain_bits: int | None = None
    dtype: str = ""
    is_packed: bool = False
    is_native: bool = True
    notes: tuple[str, ...] = ()

    @property
    def is_doubled(self) -> bool:
        """Whether 8 bits in the files become 16 in memory."""
        return self.is_packed and self.scheme is None and self.plain_bits is not None


def read_precision(config: ModelConfig, text: ModelConfig, row: ModelType) -> Precision:
    """At what precision MLX keeps the weights of the model that `config` describes."""
    dtype = word(text, "dtype", "torch_dtype") or word(config, "dtype", "torch_dtype")
    packing, is_native = _packing(config, text)
    if packing is None:
        return _plain(dtype)
    found = _scheme(packing) if is_native else _of_vendor(packing, config, row)
    bits = _FLOATS.get(dtype, 16)
    common = Precision(plain_bits=bits, dtype=dtype, is_packed=True, is_native=is_native)
    if isinstance(found, Scheme):
        return replace(common, scheme=found)
    if found is None:
        note = "MLX turns the FP8 weights into 16 bits while it loads them: twice the files' size"
        return replace(common, dtype="bfloat16", plain_bits=16, notes=(note,))
    return replace(common, dtype="", plain_bits=None, notes=(found,))


def _plain(dtype: str) -> Precision:
    if not dtype:
        note = "config.json doesn't state the type of its weights: 16 bits are assumed"
        return Precision(plain_bits=16, notes=(note,))
    bits = _FLOATS.get(dtype)
    notes = () if bits is not None else (f"the size of weights of type {dtype!r} is not known",)
    return Precision(plain_bits=bits, dtype=dtype, is_packed=bits is None, notes=notes)


def _packing(config: ModelConfig, text: ModelConfig) -> tuple[ModelConfig | None, bool]:
    """What is said of how the weights are packed, and whether in MLX's own words."""
    for name in ("quantization", "quantization_config"):
        for place in (config, text):
            if place.get(name):
                packing = section(place, name)
                return packing, "quant_method" not in packing
    return None, True


def _scheme(raw: ModelConfig) -> Scheme | str:
    """MLX's own scheme, or why there is none."""
    bits, group_size = integer(raw, "bits"), integer(raw, "group_size")
    if bits is None or group_size is None:
        return "config.json doesn't state the bits and the group size of its weights"
    overrides: dict[str, Scheme | None] = {}
    for path, value in raw.items():
        if value is False:
            overrides[path] = None
        elif isinstance(value, dict):
            each = _scheme({"bits": bits, "group_size": group_size, **cast("ModelConfig", value)})
            if isinstance(each, Scheme):
                overrides[path] = each
    return Scheme(bits, group_size, word(raw, "mode") or "affine", overrides)


#: What quantizes the matrices of layers only: embedding and output layer stay as they are.
_MATRICES = frozenset({TensorRole.DENSE, TensorRole.ROUTED})


def _of_vendor(raw: ModelConfig, config: ModelConfig, row: ModelType) -> Scheme | str | None:
    """What MLX makes of weights packed by others; why that is unknown; None for 16 bits."""
    method = word(raw, "quant_method").lower()
    match method:
        case "fp8":
            return _of_fp8(raw, config, row)
        case "mxfp4":
            return Scheme(4, 32, "mxfp4", roles=frozenset({TensorRole.ROUTED}))
        case "compressed-tensors" if _is_int4(raw):
            return Scheme(4, 32, roles=_MATRICES)  # as mlx-lm reads all of them
        case "awq" | "gptq" | "auto-round":
            bits, group_size = integer(raw, "bits", "w_bit"), integer(raw, "group_size")
            if bits is not None and group_size is not None:
                return Scheme(bits, group_size, roles=_MATRICES)
        case _:
            pass
    return f"the weights are packed as {method or 'something'!r}, whose size is not known"


def _of_fp8(raw: ModelConfig, config: ModelConfig, row: ModelType) -> Scheme | str | None:
    if "vision_config" in config and raw.get("weight_block_size") == [128, 128]:
        return Scheme(8, 32, "mxfp8", roles=_MATRICES)  # as mlx-vlm packs them again
    if row.dequantizes_fp8:
        return None
    return "MLX does not load the FP8 weights of this model type"


def _is_int4(raw: ModelConfig) -> bool:
    """Whether all groups of compressed-tensors are whole numbers of 4 bits."""
    groups = raw.get("config_groups")
    found = list(cast("ModelConfig", groups).values()) if isinstance(groups, dict) else []
    weights = [
        cast("ModelConfig", group).get("weights") for group in found if isinstance(group, dict)
    ]
    return bool(weights) and all(
        isinstance(each, dict)
        and integer(cast("ModelConfig", each), "num_bits") == 4
        and word(cast("ModelConfig", each), "type") == "int"
        for each in weights
    )
