"""What a model is, from its own files: a `config.json`, or a folder with weights."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from mlx_catalog.bounded_file import read_bounded
from mlx_catalog.config_fields import ModelConfig, integer, section
from mlx_catalog.config_json import ConfigReading, read_config
from mlx_catalog.division import Division, division_of_config
from mlx_catalog.errors import UnreadableModelError
from mlx_catalog.parameters import weights_of_config
from mlx_catalog.precision import Precision
from mlx_catalog.roles import POOLING_FILES, ModelRole, role_of
from mlx_catalog.safetensors import (
    Tensor,
    missing_shards,
    read_header,
    weigh,
    weight_files,
)
from mlx_catalog.schema import Architecture, Geometry, Quant
from mlx_catalog.weights import TensorRole, Weights

_INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 64_000_000
"""Nothing that describes a model comes near; a hostile file may be of any size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReading:
    """What a model's own files say; None where they don't.

    Attributes:
        model_type: As `config.json` names it; "" where it doesn't.
        known: Whether the cache layout of `model_type` is known here.
        architecture: How the model remembers.
        max_context_tokens: The context that it was trained for, or stretched to.
        vision: Whether it has a tower for images.
        role: What it is for, as far as its files tell.
        params: Parameters, packed weights counted unpacked; without weights, matrices only.
        active_params: Parameters used for one token.
        weights_bytes: Bytes of the weights in memory.
        weights_exact: Whether that follows from what the files hold, rather than from parameters
            times bits.
        bits_per_weight: Scales included.
        quant: The catalog's name for the format, as far as files tell one; None where it has none.
        quantization: In words: "4-bit", "4/8-bit", "bfloat16"; "" where unknown.
        is_plain: Whether MLX keeps them as floating-point numbers, which it can quantize.
        weights: Parameters and bytes by what a token does with them.
        division: How it can be divided between Macs; None where its type is unknown.
        notes: What could not be said, and why.
    """

    name: str
    model_type: str
    known: bool
    architecture: Architecture | None
    geometry: Geometry | None
    max_context_tokens: int | None
    vision: bool
    role: ModelRole
    params: int | None
    active_params: int | None
    weights_bytes: int | None
    weights_exact: bool
    bits_per_weight: float | None
    quant: Quant | None
    quantization: str
    is_plain: bool
    weights: Weights | None
    division: Division | None
    notes: tuple[str, ...]


def read_model(path: Path) -> ModelReading:
    """What the `config.json` at `path`, or the model folder `path`, says.

    Raises:
        UnreadableModelError: There is no readable `config.json`, or a weight file is damaged.
    """
    if not path.is_dir():
        return describe(str(path), load_config(path))
    config = load_config(path / "config.json")
    files = _pooling_files(path)
    here = weight_files(file.name for file in path.glob("*.safetensors"))
    shards, size_bytes = _read_index(path / _INDEX)
    missing = missing_shards(here) or ((*sorted(shards),) if not here else ())
    if missing or not here:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        notes = (f"the weight file {missing[0]}{others} is missing",) if missing else ()
        size = size_bytes if shards.issuperset(here) else None
        reading = describe(str(path), config, files=files, file_bytes=size, notes=notes)
        return replace(reading, weights_exact=False)
    stale = not shards.issubset(here)
    notes = (f"{_INDEX} is stale: it names weight files that are not here",) if stale else ()
    tensors = {key: each for name in here for key, each in read_header(path / name).items()}
    return describe(str(path), config, tensors, files=files, notes=notes)


def read_role(folder: Path) -> ModelRole:
    """What the model in `folder` is for, as far as its files tell; its weights aren't read.

    Raises:
        UnreadableModelError: There is no readable `config.json`.
    """
    return role_of(load_config(folder / "config.json"), _pooling_files(folder))


def _pooling_files(folder: Path) -> list[str]:
    return [name for name in POOLING_FILES if (folder / name).is_file()]


def _read_index(path: Path) -> tuple[frozenset[str], int | None]:
    """The weight files that an index names, and their size; neither where there is no index."""
    if not path.is_file():
        return frozenset(), None
    index = load_config(path)
    shards = frozenset(str(shard) for shard in section(index, "weight_map").values())
    return shards, integer(section(index, "metadata"), "total_size")


def load_config(path: Path) -> dict[str, object]:
    """The `config.json` at `path`.

    Raises:
        UnreadableModelError: It can't be read or holds no JSON object.
    """
    try:
        return parse_config(read_bounded(path, MAX_JSON_BYTES), str(path))
    except OSError as error:
        raise UnreadableModelError(str(path), error.strerror or str(error)) from error


def parse_config(raw: bytes, name: str) -> dict[str, object]:
    """The JSON object in `raw`, as Python's own reader understands it: mlx-lm uses the same.

    Numbers may be `Infinity` or `NaN`, and a byte-order mark may come first.

    Raises:
        UnreadableModelError: It isn't a JSON object, or is larger than any description of a model.
    """
    if len(raw) > MAX_JSON_BYTES:
        raise UnreadableModelError(name, "too large to describe a model")
    try:
        config = json.loads(raw)
    except ValueError as error:
        raise UnreadableModelError(name, f"not JSON: {error}") from error
    except RecursionError as error:
        raise UnreadableModelError(name, "not JSON: nested too deeply") from error
    if not isinstance(config, dict):
        raise UnreadableModelError(name, "not a JSON object")
    return cast("dict[str, object]", config)


def describe(
    name: str,
    config: ModelConfig,
    tensors: Mapping[str, Tensor] | None = None,
    *,
    files: Iterable[str] = (),
    file_bytes: int | None = None,
    notes: Sequence[str] = (),
) -> ModelReading:
    """What a configuration says, with the weights' headers or, failing those, their size.

    Args:
        tensors: What the headers of its weights say.
        files: Its other files, as far as they tell what it is for.
        file_bytes: What its weight files are said to take together.
    """
    reading, role = read_config(config, f"config.json of {name}"), role_of(config, files)
    precision, counted = reading.precision, weights_of_config(reading)
    weights = _of_tensors(tensors, reading, counted) if tensors else None
    is_exact = weights is not None or file_bytes is not None
    if weights is None and file_bytes is not None:
        weights = _of_size(file_bytes, precision, counted)
    weights = weights or counted
    return ModelReading(
        name=name,
        model_type=reading.model_type,
        known=reading.known,
        architecture=reading.architecture,
        geometry=reading.geometry,
        max_context_tokens=reading.max_context_tokens,
        vision=reading.tower is not None,
        role=role,
        params=weights.total_params if weights is not None else None,
        active_params=weights.active_params if weights is not None else None,
        weights_bytes=weights.total_bytes if weights is not None else None,
        weights_exact=is_exact,
        bits_per_weight=(weights and weights.bits_per_weight) or _nominal_bits(precision),
        quant=_quant(precision, weights),
        quantization=_in_words(precision, weights),
        is_plain=precision.scheme is None and precision.plain_bits is not None,
        weights=weights,
        division=division_of_config(reading),
        # what only reads has no cache whose layout one would have to know
        notes=(*(reading.notes if role.chats else ()), *notes),
    )


def _of_tensors(
    tensors: Mapping[str, Tensor], reading: ConfigReading, counted: Weights | None
) -> Weights | None:
    share = counted.active_share if counted is not None else _active_share(reading.geometry)
    found = weigh(tensors, reading.precision, share)
    if found is None or reading.precision.is_native or reading.precision.is_doubled:
        return found
    # only the configuration says what another's packing holds
    return replace(
        found,
        params=counted.params if counted is not None else {},
        params_by_bits=counted.params_by_bits if counted is not None else {},
    )


def _active_share(geometry: Geometry | None) -> float | None:
    experts = geometry.experts if geometry is not None else None
    if experts is None:
        return 1.0
    return min(experts.active / experts.total, 1.0) if experts.active is not None else None


def _of_size(size: int, precision: Precision, counted: Weights | None) -> Weights:
    """The weights whose files take `size` bytes: as counted, at most as many as that."""
    if precision.is_doubled:
        size = counted.total_bytes or 2 * size if counted is not None else 2 * size
    if counted is not None:
        return counted.filling(size)
    bits = _nominal_bits(precision)
    params = size * 8 / bits if bits is not None else 0
    return Weights(params={TensorRole.UNKNOWN: params}, size_bytes={TensorRole.UNKNOWN: size})


def _nominal_bits(precision: Precision) -> float | None:
    return (
        precision.scheme.bits_per_weight if precision.scheme is not None else precision.plain_bits
    )


_MOST = 2 / 3
"""A model is named by the precision that at least so many of its parameters have."""


def _quant(precision: Precision, weights: Weights | None) -> Quant | None:
    by_bits, scheme = _by_bits(weights), precision.scheme
    if not by_bits:
        bits = scheme.bits if scheme is not None else precision.plain_bits
        return Quant.of_bits(bits, scheme.mode if scheme is not None else None)
    bits, params = max(by_bits.items(), key=lambda each: each[1])
    if params < _MOST * sum(by_bits.values()):
        return None
    return Quant.of_bits(bits, scheme.mode if scheme and scheme.bits == bits else None)


def _by_bits(weights: Weights | None) -> Mapping[int, float]:
    return weights.params_by_bits if weights is not None else {}


def _in_words(precision: Precision, weights: Weights | None) -> str:
    scheme = precision.scheme
    if scheme is None:
        return precision.dtype
    by_bits = _by_bits(weights)
    total = sum(by_bits.values())
    # A norm, a bias or a tower in 16 bits makes no mixed quantization.
    used = {bits for bits, count in by_bits.items() if count >= total / (100 if bits < 16 else 4)}
    used = used or {scheme.bits}
    return "/".join(str(bits) for bits in sorted(used)) + "-bit"
