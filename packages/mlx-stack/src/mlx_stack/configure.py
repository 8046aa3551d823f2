"""Read and change the configuration, one key at a time."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mlx_stack.config import (
    CONFIG_KEYS,
    ConfigKeyDef,
    ConfigValidationError,
    ConfigValue,
    load_config,
    mask_value,
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

    def masked(self, value: ConfigValue) -> str:
        """`value`, or the default, as it may be shown."""
        return mask_value(self.definition.name, value)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        kind = self.definition.type
        names: dict[type, str] = {bool: "bool", int: "int", Path: "path"}
        return {
            "key": self.definition.name,
            "value": self._plain(self.value),
            "default": self._plain(self.default),
            "source": self.source,
            "type": names.get(kind, "string"),
            "valid": self.definition.valid,
            "description": self.definition.description,
        }

    def _plain(self, value: ConfigValue) -> bool | int | str:
        return value if isinstance(value, bool | int) else self.masked(value)


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration, in the order in which its keys are declared."""

    settings: tuple[Setting, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"config": [setting.to_document() for setting in self.settings]}


@dataclass(frozen=True, slots=True)
class Reset:
    """The keys that have their default again and had another value."""

    keys: tuple[str, ...]

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {"reset": list(self.keys)}


def list_settings(home: Home) -> Settings:
    """Every key.

    Raises:
        InvalidFileError: The file is damaged or says something that is not allowed.
    """
    chosen, config = read_values(home), load_config(home)
    return Settings(
        tuple(
            Setting(
                definition=definition,
                value=getattr(config, name.replace("-", "_")),
                default=home.models if name == "model-dir" else definition.default,
                source="file" if name in chosen else "default",
            )
            for name, definition in CONFIG_KEYS.items()
        )
    )


def get_setting(home: Home, key: str) -> Setting:
    """One key.

    Raises:
        ConfigValidationError: There is no such key.
        InvalidFileError: The file is damaged or says something that is not allowed.
    """
    validate_key(key)
    return next(each for each in list_settings(home).settings if each.definition.name == key)


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


def reset(home: Home, key: str | None) -> Reset:
    """Return `key`, or every key, to its default.

    A damaged file can be reset as a whole: it is replaced unread.

    Raises:
        ConfigValidationError: There is no such key.
        InvalidFileError: The file is damaged, and only one key was named.
    """
    if key is None:
        changed = tuple(CONFIG_KEYS) if home.config.exists() else ()
        home.config.unlink(missing_ok=True)
        return Reset(changed)
    validate_key(key)
    values = read_values(home)
    if key not in values:
        return Reset(())
    del values[key]
    save_values(home, values)
    return Reset((key,))


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
