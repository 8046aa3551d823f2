"""Read and change the configuration, one key at a time."""

import socket
from dataclasses import dataclass
from typing import Literal

from mlx_stack.config import (
    CONFIG_KEYS,
    ConfigKeyDef,
    ConfigValidationError,
    ConfigValue,
    load_config,
    parse_value,
    read_values,
    save_values,
    validate_key,
)
from mlx_stack.home import Home


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as it is in force.

    Attributes:
        definition: What there is to know about the key.
        value: The value in force; of a secret the secret itself.
        default: What it would be without the file.
        source: Where the value is from.
    """

    definition: ConfigKeyDef
    value: ConfigValue
    default: ConfigValue
    source: Literal["file", "default"]


def list_settings(home: Home) -> tuple[Setting, ...]:
    """Every key, in the order of their declaration.

    Raises:
        InvalidFileError: The file is damaged or says something that is not allowed.
    """
    chosen, config = read_values(home), load_config(home)
    return tuple(
        Setting(
            definition=definition,
            value=getattr(config, name.replace("-", "_")),
            default=home.models if name == "model-dir" else definition.default,
            source="file" if name in chosen else "default",
        )
        for name, definition in CONFIG_KEYS.items()
    )


def get_setting(home: Home, key: str) -> Setting:
    """One key.

    Raises:
        ConfigValidationError: There is no such key.
        InvalidFileError: The file is damaged or says something that is not allowed.
    """
    validate_key(key)
    return next(each for each in list_settings(home) if each.definition.name == key)


def set_value(home: Home, key: str, text: str) -> Setting:
    """Give `key` the value that `text` means.

    Raises:
        ConfigValidationError: There is no such key, or it doesn't take this value.
        InvalidFileError: The file is damaged, so it is not written over.
    """
    value = parse_value(key, text)
    if key == "gateway-host":
        _check_is_ours(str(value))
    save_values(home, {**read_values(home), key: value})
    return get_setting(home, key)


def reset(home: Home, key: str | None) -> tuple[str, ...]:
    """Return `key`, or every key, to its default; the keys that had another value.

    A damaged file can be reset as a whole: it is replaced unread.

    Raises:
        ConfigValidationError: There is no such key.
        InvalidFileError: The file is damaged, and only one key was named.
    """
    if key is None:
        changed = tuple(CONFIG_KEYS) if home.config.exists() else ()
        home.config.unlink(missing_ok=True)
        return changed
    validate_key(key)
    values = read_values(home)
    if key not in values:
        return ()
    del values[key]
    save_values(home, values)
    return (key,)


def _check_is_ours(host: str) -> None:
    """Refuse an address that this machine doesn't have: nothing could listen on it."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.bind(address)
    except OSError as error:
        raise ConfigValidationError(
            "gateway-host",
            f"{host} is no address of this machine: {error.strerror or error}.",
            hint="127.0.0.1 is for this machine alone, 0.0.0.0 for every network it is in.",
        ) from error
