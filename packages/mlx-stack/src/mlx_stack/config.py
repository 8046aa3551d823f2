"""The configuration: every key declared once, and the one reader and writer of its file.

To add a key, add a field to `Config`: its name with dashes is the key's name, and the value after
`_key` its default.
"""

import difflib
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from mlx_catalog import Quant, yaml12
from mlx_stack import atomic_file, yaml_file
from mlx_stack.errors import InvalidFileError, UsageError
from mlx_stack.home import Home

type ConfigValue = str | int | bool | Path

_HINT = "Fix the file, or remove it to return to the defaults."
_DEFINITION = "definition"
_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_SHOWN_OF_SECRET = 4
_SHORTEST_SHOWN_SECRET = 16
_MOST_DIGITS = 18


class KeepAwake(StrEnum):
    """When the Mac is kept from sleeping."""

    NEVER = "never"
    SERVING = "serving"
    """While requests are being served, and a little longer."""
    ALWAYS = "always"


class LiteLlmMode(StrEnum):
    """When LiteLLM runs, which takes requests to OpenRouter."""

    ON_DEMAND = "on-demand"
    """From the first request that needs it until none has for a while."""
    ALWAYS = "always"
    NEVER = "never"


class CloudFallback(StrEnum):
    """When a request may leave this machine though it asked for a local tier."""

    NEVER = "never"
    WHEN_DOWN = "when-down"
    """When every tier that could answer has failed."""
    ALSO_TOO_LONG = "also-too-long"
    """And when the prompt is too long for every tier."""


class ConfigValidationError(UsageError):
    """A key that doesn't exist, or a value that a key doesn't take.

    Attributes:
        key: The key as it was asked for.
    """

    type: ClassVar[str] = "invalid-config"

    def __init__(self, key: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


@dataclass(frozen=True, slots=True)
class ConfigKeyDef:
    """What there is to know about one key.

    Attributes:
        name: The key, as it is written in the file and on the command line.
        description: One sentence for `config list`.
        default: The value where the file says nothing.
        type: `str`, `int`, `bool`, `Path`, or an enum of words.
        valid: Which values are allowed, in words.
        accepts: Whether a value of the right type is allowed.
        is_secret: The value is masked wherever it is shown.
    """

    name: str
    description: str
    default: ConfigValue
    type: type[ConfigValue]
    valid: str
    accepts: Callable[[Any], bool]
    is_secret: bool


def _key[T: ConfigValue](
    default: T,
    description: str,
    *,
    valid: str,
    accepts: Callable[[T], bool] = lambda _: True,
    is_secret: bool = False,
) -> T:
    """A field of `Config`; what else is known of the key travels in the field's metadata."""
    kind = Path if isinstance(default, Path) else type(default)

    def define(name: str) -> ConfigKeyDef:
        return ConfigKeyDef(name, description, default, kind, valid, accepts, is_secret)

    return field(default=default, metadata={_DEFINITION: define})


def _is_between(low: int, high: int) -> Callable[[int], bool]:
    return lambda value: low <= value <= high


def _is_at_least(low: int) -> Callable[[int], bool]:
    return lambda value: value >= low


def _is_host(value: str) -> bool:
    """Whether `value` can be an address; whether it is this machine's shows when binding."""
    if value == "localhost":
        return True
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The value of every key. `Config()` is the defaults."""

    openrouter_key: str = _key(
        "",
        "The OpenRouter API key, for the model `cloud` and as `cloud-fallback` says.",
        valid="a key, or empty for none",
        accepts=lambda value: value.isprintable() and not any(map(str.isspace, value)),
        is_secret=True,
    )
    default_quant: Quant = _key(  # noqa: RUF009 - `_key` calls `field`
        Quant.INT4,
        "The precision of weights where nothing else is asked for.",
        valid="int4, int8 or bf16",
    )
    memory_budget_pct: int = _key(
        40,
        "How much of the unified memory all models together may take, in percent.",
        valid="1 to 100",
        accepts=_is_between(1, 100),
    )
    litellm_port: int = _key(
        4000,
        "The port of the gateway.",
        valid="1 to 65535",
        accepts=_is_between(1, 65535),
    )
    litellm: LiteLlmMode = _key(  # noqa: RUF009 - `_key` calls `field`
        LiteLlmMode.ON_DEMAND,
        "When LiteLLM runs, which takes requests to OpenRouter.",
        valid="on-demand, always or never",
    )
    cloud_fallback: CloudFallback = _key(  # noqa: RUF009 - `_key` calls `field`
        CloudFallback.WHEN_DOWN,
        "When a request may go to OpenRouter though it asked for a tier; it needs openrouter-key.",
        valid="never, when-down or also-too-long",
    )
    model_dir: Path = _key(  # noqa: RUF009 - `_key` calls `field`, and a Path is immutable
        Path("models"),
        "Where downloaded models are kept; by default in the state folder.",
        valid="a folder",
    )
    auto_health_check: bool = _key(
        True,
        "Whether `up` verifies each service with a real request for one token.",
        valid="true or false",
    )
    log_max_size_mb: int = _key(
        50,
        "The size in MB at which a log is archived.",
        valid="1 or more",
        accepts=_is_at_least(1),
    )
    log_max_files: int = _key(
        5,
        "How many archives of each log are kept.",
        valid="1 or more",
        accepts=_is_at_least(1),
    )
    gateway_host: str = _key(
        "127.0.0.1",
        "The address that the gateway listens on; any but loopback opens it to the network.",
        valid="an address of this machine, or 0.0.0.0",
        accepts=_is_host,
    )
    gateway_max_memory_mb: int = _key(
        2048,
        "The memory in MB beyond which the watchdog restarts the gateway.",
        valid="256 or more",
        accepts=_is_at_least(256),
    )
    keep_awake: KeepAwake = _key(  # noqa: RUF009 - `_key` calls `field`
        KeepAwake.SERVING,
        "When the Mac is kept from sleeping.",
        valid="never, serving or always",
    )


CONFIG_KEYS: Mapping[str, ConfigKeyDef] = MappingProxyType(
    {
        name: entry.metadata[_DEFINITION](name)
        for entry in fields(Config)
        for name in (entry.name.replace("_", "-"),)
    }
)
"""Every key by its name, in the order of `config list`."""


def validate_key(key: str) -> ConfigKeyDef:
    """The definition of `key`.

    Raises:
        ConfigValidationError: There is no such key; the hint names the nearest ones.
    """
    definition = CONFIG_KEYS.get(key)
    if definition is None:
        near = difflib.get_close_matches(key.replace("_", "-"), CONFIG_KEYS, n=2, cutoff=0.5)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        raise ConfigValidationError(
            key,
            f"There is no configuration key {key!r}.",
            hint=f"{guess}`mlx-stack config list` shows them all.",
        )
    return definition


def parse_value(key: str, text: str) -> ConfigValue:
    """The value that `text`, as typed by a person, means for `key`.

    A path may start with `~`, and a relative one is taken from the working directory.

    Raises:
        ConfigValidationError: There is no such key, or it doesn't take this value.
    """
    definition = validate_key(key)
    text = text.strip()
    if definition.type is bool:
        if text.lower() not in _TRUE | _FALSE:
            raise _unacceptable(definition, text)
        return text.lower() in _TRUE
    if definition.type is int:
        # Python itself refuses to read thousands of digits
        if not (text.isascii() and text.isdecimal() and len(text) <= _MOST_DIGITS):
            raise _unacceptable(definition, text)
        return _checked(definition, int(text))
    if definition.type is Path:
        if not text:
            raise _unacceptable(definition, text)
        return _checked(definition, Path(text).expanduser().absolute())
    return _checked(definition, text)


def mask_value(key: str, value: ConfigValue) -> str:
    """`value` as it may be shown: of a secret at most the last characters.

    Raises:
        ConfigValidationError: There is no such key.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not validate_key(key).is_secret or not text:
        return text
    shown = text[-_SHOWN_OF_SECRET:] if len(text) >= _SHORTEST_SHOWN_SECRET else ""
    return f"********{shown}"


def read_values(home: Home) -> dict[str, ConfigValue]:
    """The values that the configuration file sets, by key; empty where there is no file.

    Raises:
        InvalidFileError: The file is damaged, or sets a key that doesn't exist or a value that is
            not allowed; the error names the line.
    """
    try:
        document = yaml_file.parse(home.config, hint=_HINT)
    except FileNotFoundError:
        return {}
    values: dict[str, ConfigValue] = {}
    for key, value in document.as_a(dict[str, object], hint=_HINT).items():
        try:
            values[key] = _from_file(validate_key(key), value, home)
        except ConfigValidationError as error:
            raise InvalidFileError(
                home.config, error.message, line=document.line(key), hint=error.hint or _HINT
            ) from error
    return values


def load_config(home: Home) -> Config:
    """The configuration in force: the file's values over the defaults, paths absolute.

    Raises:
        InvalidFileError: The file is damaged or says something that is not allowed.
    """
    values: dict[str, Any] = {"model-dir": home.models, **read_values(home)}
    return Config(**{key.replace("-", "_"): value for key, value in values.items()})


def save_values(home: Home, values: Mapping[str, ConfigValue]) -> None:
    """Make `values` the whole content of the configuration file, readable by its owner only.

    Raises:
        OSError: The file can't be written; what was there is unchanged.
    """
    plain: dict[str, yaml12.Value] = {
        key: str(value) if isinstance(value, Path | StrEnum) else value
        for key, value in values.items()
    }
    text = yaml12.write(plain) if plain else ""
    home.create()
    atomic_file.write_text(home.config, text, mode=atomic_file.PRIVATE)


def _from_file(definition: ConfigKeyDef, value: object, home: Home) -> ConfigValue:
    if definition.type is Path:
        if not isinstance(value, str) or not value:
            raise _unacceptable(definition, value)
        return _checked(definition, home.root / Path(value).expanduser())
    kind = str if issubclass(definition.type, StrEnum) else definition.type
    if type(value) is not kind:  # an exact match: `true` is no number
        raise _unacceptable(definition, value)
    return _checked(definition, value)  # pyright: ignore[reportArgumentType] # just checked


def _checked(definition: ConfigKeyDef, value: ConfigValue) -> ConfigValue:
    if issubclass(definition.type, StrEnum):
        if value in definition.type:
            return definition.type(value)
    elif definition.accepts(value):
        return value
    raise _unacceptable(definition, value)


def _unacceptable(definition: ConfigKeyDef, value: object) -> ConfigValidationError:
    got = "that" if definition.is_secret else repr(str(value))
    return ConfigValidationError(
        definition.name, f"{definition.name} can't be {got}: it takes {definition.valid}."
    )
