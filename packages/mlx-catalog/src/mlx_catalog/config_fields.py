"""Values of a `config.json`, which families keep under different names."""

from collections.abc import Mapping

type Config = Mapping[str, object]


def integer(config: Config, *names: str) -> int | None:
    """The first of `names` that is a positive whole number in `config`."""
    for name in names:
        value = config.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def word(config: Config, *names: str) -> str:
    """The first of `names` that is a string in `config`, or ""."""
    for name in names:
        value = config.get(name)
        if isinstance(value, str):
            return value
    return ""
