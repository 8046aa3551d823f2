"""Files that set the gateway up, read within bounds: a path may name a device, or any file."""

from pathlib import Path

from mlx_gateway.errors import ConfigError

MAX_CONFIG_BYTES = 2**20
"""Settings of 100 models and keys of 1,000 clients have less than a third of it."""


def read_config(path: Path) -> bytes:
    """The content of a file or a pipe.

    Raises:
        ConfigError: It is a device, is larger than `MAX_CONFIG_BYTES`, or can't be read; the cause
            of the last is the OSError.
    """
    if path.is_char_device():
        raise ConfigError(path, "is a device, not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise ConfigError(path, error.strerror or str(error)) from error
    if len(content) > MAX_CONFIG_BYTES:
        raise ConfigError(path, "is larger than 1 MB")
    return content
