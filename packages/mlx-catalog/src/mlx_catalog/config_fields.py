"""Values of a `config.json`, which families keep under different names."""

from collections.abc import Mapping
from typing import cast

type ModelConfig = Mapping[str, object]

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
QUERY_HEADS = ("num_attention_heads", "n_heads", "n_head")

_MOST = 2**40
"""No count, width or length of a model comes near; a damaged or hostile file may say anything."""


class UnsaidError(Exception):
    """A number that a count can't do without is missing; caught where the count began."""


def needed[T](value: T | None) -> T:
    """`value`, where there is one.

    Raises:
        UnsaidError: There is none.
    """
    if value is None:
        raise UnsaidError
    return value


def whole(value: object) -> int | None:
    """`value` where it is a positive whole number, also one written `32.0`, and no absurd one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MOST:
        return None
    return int(value) if value == int(value) else None


def integer(config: ModelConfig, *names: str) -> int | None:
    """The first of `names` that is such a number in `config`.

    A list of one number for each layer counts where they are all the same.
    """
    for name in names:
        value = config.get(name)
        if value and isinstance(value, list):
            numbers = cast("list[object]", value)
            value = numbers[0] if numbers.count(numbers[0]) == len(numbers) else None
        number = whole(value)
        if number is not None:
            return number
    return None


def each_layer(config: ModelConfig, layers: int, *names: str) -> list[int] | None:
    """The first of `names` that `config` has, for each of the last `layers` layers.

    A list gives each layer its own number. None where there is neither a number nor a list of
    enough of them.
    """
    for name in names:
        value = config.get(name)
        if isinstance(value, list):
            found = [whole(item) for item in cast("list[object]", value)[-layers:]]
            return cast("list[int]", found) if len(found) == layers and None not in found else None
        number = whole(value)
        if number is not None:
            return [number] * layers
    return None


def is_said(config: ModelConfig, *names: str) -> bool:
    """Whether `config` says anything under one of `names`, readable or not."""
    return any(config.get(name) is not None for name in names)


def section(config: ModelConfig, name: str) -> ModelConfig:
    """The part of `config` with that name; empty where there is none."""
    value = config.get(name)
    return cast("ModelConfig", value) if isinstance(value, dict) else {}


def items(config: ModelConfig, name: str) -> list[object]:
    """The list of that name in `config`; empty where there is none."""
    value = config.get(name)
    return cast("list[object]", value) if isinstance(value, list) else []


def sections(config: ModelConfig, name: str) -> list[ModelConfig]:
    """The parts in the list of that name in `config`; empty ones for what isn't a part."""
    found = items(config, name)
    return [cast("ModelConfig", each) if isinstance(each, dict) else {} for each in found]


def word(config: ModelConfig, *names: str) -> str:
    """The first of `names` that is a string in `config`, or ""."""
    for name in names:
        value = config.get(name)
        if isinstance(value, str):
            return value
    return ""
