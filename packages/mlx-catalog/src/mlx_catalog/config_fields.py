"""Values of a `config.json`, which families keep under different names."""

from collections.abc import Mapping

type Config = Mapping[str, object]

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
HIDDEN = ("hidden_size", "n_embd", "d_model")
QUERY_HEADS = ("num_attention_heads", "n_heads", "n_head")

_MOST = 2**40
"""No count, width or length of a model comes near; a damaged or hostile file may say anything."""


def integer(config: Config, *names: str) -> int | None:
    """The first of `names` that is a positive whole number in `config`, and no absurd one."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST:
            return value
    return None


def word(config: Config, *names: str) -> str:
    """The first of `names` that is a string in `config`, or ""."""
    for name in names:
        value = config.get(name)
        if isinstance(value, str):
            return value
    return ""
