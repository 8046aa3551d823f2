"""What a model is, from its own files: a `config.json`, or a folder with weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from mlx_catalog.config_fields import Config, integer
from mlx_catalog.config_json import ConfigReading, Quantization, read_config
from mlx_catalog.errors import UnreadableModelError
from mlx_catalog.parameters import count_parameters, routed_expert_params
from mlx_catalog.safetensors import Weights, merge, read_header, weigh, weight_files
from mlx_catalog.schema import Architecture, Geometry, Quant


@dataclass(frozen=True, slots=True)
class ModelReading:
    """What a model's own files say; None where they don't.

    Attributes:
        name: The folder, file or repository that was read.
        model_type: As `config.json` names it; "" where it doesn't.
        known: Whether the cache layout of `model_type` is known here.
        params: Parameters, packed weights counted unpacked; without weights, matrices only.
        active_params: Parameters used for one token.
        weights_bytes: Bytes of the weights.
        weights_exact: Whether that is what the files hold, rather than parameters times bits.
        bits_per_weight: Scales included.
        quantization: In words: "4-bit", "4/8-bit", "bfloat16"; "" where unknown.
        notes: What could not be said, and why.
    """

    name: str
    model_type: str
    known: bool
    architecture: Architecture | None
    geometry: Geometry | None
    max_context_tokens: int | None
    vision: bool
    params: int | None
    active_params: int | None
    weights_bytes: int | None
    weights_exact: bool
    bits_per_weight: float | None
    quantization: str
    notes: tuple[str, ...]

    @property
    def quant(self) -> Quant | None:
        """The catalog's name for the bits: None where they are none of its three."""
        bits = self.bits_per_weight
        if bits is None:
            return None
        if 15 <= bits <= 17:
            return "bf16"
        if 7 <= bits <= 10:
            return "int8"
        return "int4" if 3.5 <= bits <= 6 else None


def read_model(path: Path) -> ModelReading:
    """What the `config.json` at `path`, or the model folder `path`, says.

    Raises:
        UnreadableModelError: if there is no readable `config.json`, or a weight file is damaged.
    """
    if not path.is_dir():
        return describe(str(path), load_config(path), None)
    config = load_config(path / "config.json")
    here = weight_files(file.name for file in path.glob("*.safetensors"))
    index = _read_index(path / "model.safetensors.index.json")
    missing = [name for name in index.shards if name not in here]
    if missing:
        reading = describe(str(path), config, None, weights_bytes=index.size_bytes)
        return replace(reading, weights_exact=False, notes=(*reading.notes, _told(missing)))
    quantization = read_config(config).quantization
    headers = [read_header(path / name) for name in here]
    weights = weigh(merge(headers), quantization) if headers else None
    return describe(str(path), config, weights)


def _told(missing: Sequence[str]) -> str:
    others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return f"the weight file {missing[0]}{others} is missing"


@dataclass(frozen=True, slots=True)
class _Index:
    """What a `model.safetensors.index.json` says; nothing where there is none."""

    shards: tuple[str, ...] = ()
    size_bytes: int | None = None


def _read_index(path: Path) -> _Index:
    if not path.is_file():
        return _Index()
    index = load_config(path)
    places, metadata = index.get("weight_map"), index.get("metadata")
    shards = cast("Config", places).values() if isinstance(places, dict) else ()
    size = integer(cast("Config", metadata), "total_size") if isinstance(metadata, dict) else None
    return _Index(tuple(sorted({str(shard) for shard in shards})), size)


def load_config(path: Path) -> dict[str, object]:
    """The `config.json` at `path`.

    Raises:
        UnreadableModelError: if it can't be read or holds no JSON object.
    """
    try:
        return parse_config(path.read_bytes(), str(path))
    except OSError as error:
        raise UnreadableModelError(str(path), error.strerror or str(error)) from error


def parse_config(raw: bytes, name: str) -> dict[str, object]:
    """The JSON object in `raw`; `name` is only named in errors.

    Raises:
        UnreadableModelError: if it is none.
    """
    try:
        config = json.loads(raw)
    except ValueError as error:
        raise UnreadableModelError(name, f"no JSON: {error}") from error
    if not isinstance(config, dict):
        raise UnreadableModelError(name, "no JSON object")
    return cast("dict[str, object]", config)


def describe(
    name: str,
    config: Mapping[str, object],
    weights: Weights | None,
    *,
    weights_bytes: int | None = None,
) -> ModelReading:
    """What a configuration says, with the weights' headers or, failing those, their size."""
    reading = read_config(config, f"config.json of {name}")
    if weights is not None and not weights.params:  # files without tensors tell nothing
        weights = None
    bits = weights.bits_per_weight if weights is not None else _bits(reading)
    params = weights.params if weights is not None else None
    size = weights.size_bytes if weights is not None else weights_bytes
    if params is None and size is not None and bits is not None:
        params = round(size * 8 / bits)
    if params is None and (counts := count_parameters(config)) is not None:
        params = round(counts.stored)
    return ModelReading(
        name=name,
        model_type=reading.model_type,
        known=reading.known,
        architecture=reading.architecture,
        geometry=reading.geometry,
        max_context_tokens=reading.max_context_tokens,
        vision=reading.vision,
        params=params,
        active_params=_active_params(reading, config, weights, params),
        weights_bytes=size,
        weights_exact=size is not None,
        bits_per_weight=bits,
        quantization=_in_words(reading, weights),
        notes=reading.notes,
    )


def _bits(reading: ConfigReading) -> float | None:
    if reading.quantization is not None:
        return reading.quantization.bits_per_weight
    return {"bfloat16": 16.0, "float16": 16.0, "float32": 32.0}.get(reading.dtype)


def _active_params(
    reading: ConfigReading,
    config: Mapping[str, object],
    weights: Weights | None,
    params: int | None,
) -> int | None:
    experts = reading.geometry.experts if reading.geometry is not None else None
    if experts is None:
        return params
    routed = weights.routed_expert_params if weights is not None else routed_expert_params(config)
    if params is None or not routed or experts.active is None:
        return None
    used = params - round(routed * (1 - experts.active / experts.total))
    return used if used > 0 else None  # the experts' widths say more than the weights hold


def _in_words(reading: ConfigReading, weights: Weights | None) -> str:
    if reading.quantization is None:
        return reading.dtype
    if weights is not None:
        # A norm or a bias kept in 16 bits makes no mixed quantization: a hundredth of the
        # parameters does.
        used = [
            bits
            for bits, count in weights.params_by_bits.items()
            if bits < 16 and count * 100 >= weights.params
        ]
        if used:
            return "/".join(str(bits) for bits in used) + "-bit"
    return _scheme_in_words(reading.quantization)


def _scheme_in_words(quantization: Quantization) -> str:
    used = {quantization.bits, *(each.bits for each in quantization.overrides.values())}
    return "/".join(str(bits) for bits in sorted(used)) + "-bit"
