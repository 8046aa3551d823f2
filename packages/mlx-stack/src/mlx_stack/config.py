"""The configuration: every key declared once, read from its file, shown and changed.

To add a key, add a field to `Config`: its name, with dashes, is the key's; its
value is the default.
"""

import difflib
import ipaddress
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import starmap
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

import msgspec
from msgspec import Meta

from mlx_catalog import PRECISIONS, Quant, yaml12
from mlx_stack import atomic_file, yaml_file
from mlx_stack.errors import InvalidFileError, UsageError
from mlx_stack.home import Home

type ConfigValue = str | int | bool | Path

_HINT = "Fix the file, or remove it to return to the defaults."
_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "1"), True),
    **dict.fromkeys(("false", "no", "off", "0"), False),
}
_BY_UP = {"applied_by": "`mlx-stack up` applies it."}
_BY_INIT = {"applied_by": "`recommend`, `init` and `pull` use it; a defined stack stays as it is."}
_AT_ONCE = {"applied_by": "It takes effect at once."}
_BY_WATCHDOG = {"applied_by": "The watchdog applies it at its next check."}
_BUDGET = {
    "applied_by": "`recommend`, `init` and `pull` use it, and the gateway for what it loads next; "
    "a defined stack stays as it is."
}
_RARELY_NEEDED = {"is_rarely_needed": True}
_LOGS = {**_RARELY_NEEDED, "applied_by": "The watchdog uses it when it next starts."}
_HOSTS = ("gateway-host", "node-host")
# Control characters, and what stands for bytes that aren't UTF-8.
_NOT_TEXT = r"\x00-\x1f\x7f-\x9f\ud800-\udfff"
_SHOWN_OF_SECRET = 4
_SHORTEST_SHOWN_SECRET = 16


class KeepAwake(StrEnum):
    """When the Mac is kept from sleeping."""

    NEVER = "never"
    SERVING = "serving"
    """While requests are being served, and a little longer."""
    ALWAYS = "always"


class LiteLlmMode(StrEnum):
    """When LiteLLM runs; it forwards requests to OpenRouter."""

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
    """An unknown key, or an invalid value."""

    type: ClassVar[str] = "invalid-config"

    def __init__(self, key: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.key = key


def _is_host(value: str) -> bool:
    """Whether `value` can be an address; whether it is this machine's shows when binding."""
    with suppress(ValueError):
        return value == "localhost" or bool(ipaddress.ip_address(value))
    return False


def _path(text: str) -> Path | None:
    """The path that `text` names; None if it is empty, isn't text, or starts with `~nobody`."""
    if not text or re.search(f"[{_NOT_TEXT}]", text):
        return None
    with suppress(RuntimeError):
        return Path(text).expanduser()
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The value of every key. `Config()` is the defaults."""

    openrouter_key: Annotated[
        str,
        Meta(
            pattern=rf"\A[^\s{_NOT_TEXT}]*\Z",
            description="The OpenRouter API key, for the model `cloud` and the fallbacks that "
            "`cloud-fallback` allows.",
            extra={"valid": "a key, or empty for none", "is_secret": True, **_BY_UP},
        ),
    ] = ""
    default_quant: Annotated[
        Quant,
        Meta(
            description="Default precision of weights.",
            extra={"among": PRECISIONS, **_BY_INIT},
        ),
    ] = Quant.INT4
    memory_budget_pct: Annotated[
        int,
        Meta(
            ge=1,
            le=100,
            description="Memory budget for all models together, in percent of the unified memory.",
            extra=_BUDGET,
        ),
    ] = 40
    litellm_port: Annotated[
        int, Meta(ge=1, le=65535, description="The port of the gateway.", extra=_BY_UP)
    ] = 4000
    ollama_port: Annotated[
        int,
        Meta(
            ge=0,
            le=65535,
            description="A second gateway port for Ollama's clients, which use 11434; 0 for none.",
            extra=_BY_UP,
        ),
    ] = 0
    litellm: Annotated[
        LiteLlmMode,
        Meta(
            description="When LiteLLM runs; it forwards requests to OpenRouter.",
            extra={**_RARELY_NEEDED, **_BY_UP},
        ),
    ] = LiteLlmMode.ON_DEMAND
    cloud_fallback: Annotated[
        CloudFallback,
        Meta(
            description="When a request for a tier may go to OpenRouter; needs openrouter-key.",
            extra=_BY_UP,
        ),
    ] = CloudFallback.WHEN_DOWN
    model_dir: Annotated[
        Path,
        Meta(
            description="Where downloaded models are kept; by default in the state folder.",
            extra={"applied_by": "Models that are elsewhere stay there: move them if you want to."},
        ),
    ] = Path("models")
    auto_health_check: Annotated[
        bool,
        Meta(
            description="Whether `up` verifies each service with a real request for one token.",
            extra=_RARELY_NEEDED,
        ),
    ] = True
    log_max_size_mb: Annotated[
        int,
        Meta(ge=1, description="The size in MB at which a log is archived.", extra=_LOGS),
    ] = 50
    log_max_files: Annotated[
        int,
        Meta(ge=1, description="How many archives of each log are kept.", extra=_LOGS),
    ] = 5
    dashboard: Annotated[
        bool, Meta(description="Whether the gateway serves the dashboard at /ui/.", extra=_AT_ONCE)
    ] = True
    dashboard_on_lan: Annotated[
        bool,
        Meta(
            description="Whether other machines may open the dashboard without TLS; anyone on the "
            "network path could then read the traffic.",
            extra={**_RARELY_NEEDED, **_AT_ONCE},
        ),
    ] = False
    stable_prompts: Annotated[
        bool,
        Meta(
            description="Whether the gateway removes text that coding clients change in their "
            "system prompts each turn, or moves it to the end.",
            extra={**_RARELY_NEEDED, **_BY_UP},
        ),
    ] = True
    remote_images: Annotated[
        bool,
        Meta(
            description="Whether engines may fetch images whose addresses are in a request, up to "
            "20 MB each and from public addresses only.",
            extra={**_RARELY_NEEDED, **_BY_UP},
        ),
    ] = False
    gateway_host: Annotated[
        str,
        Meta(
            description="Address the gateway listens on; anything but loopback opens it to the "
            "network.",
            extra={"valid": "an address of this machine, or 0.0.0.0", **_BY_UP},
        ),
    ] = "127.0.0.1"
    node_host: Annotated[
        str,
        Meta(
            description="Address on which other Macs reach the gateway with TLS (`nodes pair`); "
            "empty for none.",
            extra={"valid": "an address of this machine, 0.0.0.0, or empty for none", **_BY_UP},
        ),
    ] = ""
    node_port: Annotated[
        int, Meta(ge=1, le=65535, description="The port of `node-host`.", extra=_BY_UP)
    ] = 4443
    gateway_max_memory_mb: Annotated[
        int,
        Meta(
            ge=256,
            description="Memory in MB above which the watchdog restarts the gateway.",
            extra={**_RARELY_NEEDED, **_BY_WATCHDOG},
        ),
    ] = 2048
    keep_awake: Annotated[
        KeepAwake, Meta(description="When the Mac is kept from sleeping.", extra=_BY_WATCHDOG)
    ] = KeepAwake.SERVING
    idle_check: Annotated[
        bool,
        Meta(
            description="Whether the watchdog asks an idle engine for one token "
            "every five minutes.",
            extra={**_RARELY_NEEDED, **_BY_WATCHDOG},
        ),
    ] = True


@dataclass(frozen=True, slots=True)
class ConfigKeyDef:
    """What there is to know about one key.

    Attributes:
        bounded: The annotated type that its values are converted to.
        description: One sentence for `config list`.
        valid: Which values are allowed, in words.
        is_secret: The value is masked wherever it is shown.
        applied_by: How a change comes into force, in words; "" where the next command reads it.
        is_rarely_needed: `config list` leaves it out, unless it is set or everything is asked for.
        among: The only ones of its type's values that it takes; all where there are none.
    """

    name: str
    default: ConfigValue
    bounded: Any
    description: str
    valid: str
    is_secret: bool
    applied_by: str
    is_rarely_needed: bool
    among: tuple[ConfigValue, ...] = ()

    @property
    def type(self) -> type[ConfigValue]:
        """`str`, `int`, `bool`, `Path`, or an enum of words."""
        return self.bounded.__origin__

    def parse(self, text: str) -> ConfigValue:
        """The value that `text`, as typed by a person, means.

        A path may start with `~`, and a relative one is taken from the working directory.

        Raises:
            ConfigValidationError: When the key doesn't take this value.
        """
        text = text.strip()
        if self.type is Path and (path := _path(text)):
            return path.absolute()
        if self.type is bool:
            return self._converted(_BOOLEANS.get(text.lower(), text), strict=True)
        return self._converted(text, strict=False)

    def read(self, value: object, folder: Path) -> ConfigValue:
        """The value that the file gives; a relative path is taken from `folder`.

        Raises:
            ConfigValidationError: When the key doesn't take this value.
        """
        if self.type is Path and isinstance(value, str) and (path := _path(value)):
            return folder / path
        return self._converted(value, strict=True)

    def mask(self, value: ConfigValue) -> str:
        """`value` as it may be shown: of a secret at most the last characters."""
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if not self.is_secret or not text:
            return text
        shown = text[-_SHOWN_OF_SECRET:] if len(text) >= _SHORTEST_SHOWN_SECRET else ""
        return f"********{shown}"

    def _converted(self, value: object, *, strict: bool) -> ConfigValue:
        with suppress(msgspec.ValidationError):
            found = msgspec.convert(value, self.bounded, strict=strict)
            is_taken = self.name not in _HOSTS or found == self.default or _is_host(str(found))
            if is_taken and found in (self.among or (found,)):
                return found
        got = "that" if self.is_secret else repr(str(value))
        message = f"{self.name} can't be {got}: it must be {self.valid}."
        raise ConfigValidationError(self.name, message)


def _definition(field: str, bounded: Any) -> ConfigKeyDef:
    meta: Meta = bounded.__metadata__[0]
    said: Mapping[str, Any] = meta.extra or {}
    return ConfigKeyDef(
        name=field.replace("_", "-"),
        default=getattr(Config(), field),
        bounded=bounded,
        description=meta.description or "",
        valid=said.get("valid") or _valid(bounded.__origin__, meta),
        among=said.get("among", ()),
        is_secret=said.get("is_secret", False),
        applied_by=said.get("applied_by", ""),
        is_rarely_needed=said.get("is_rarely_needed", False),
    )


def _valid(kind: type, meta: Meta) -> str:
    """The allowed values in words."""
    if issubclass(kind, StrEnum):
        *others, last = (meta.extra or {}).get("among", kind)
        return f"{', '.join(others)} or {last}"
    if kind is int:
        return f"{meta.ge} or more" if meta.le is None else f"{meta.ge} to {meta.le}"
    return "true or false" if kind is bool else "a folder"


CONFIG_KEYS = {
    key.name: key
    for key in starmap(_definition, get_type_hints(Config, include_extras=True).items())
}
"""Every key by its name, in the order of `config list`."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key as it is in force.

    Attributes:
        value: The value in force; of a secret the secret itself.
    """

    definition: ConfigKeyDef
    value: ConfigValue
    default: ConfigValue
    source: Literal["file", "default"]

    @property
    def shown(self) -> str:
        """The value as it may be shown."""
        return self.definition.mask(self.value)

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
        return value if isinstance(value, bool | int) else self.definition.mask(value)


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


def find_key(name: str) -> ConfigKeyDef:
    """The definition of a key.

    Raises:
        ConfigValidationError: When there is no such key; the hint names the nearest ones.
    """
    definition = CONFIG_KEYS.get(name)
    if definition is None:
        near = difflib.get_close_matches(name.replace("_", "-"), CONFIG_KEYS, n=2, cutoff=0.5)
        guess = f"Did you mean {' or '.join(near)}? " if near else ""
        message = f"There is no configuration key {name!r}."
        hint = f"{guess}`mlx-stack config list` shows them all."
        raise ConfigValidationError(name, message, hint=hint)
    return definition


def load_config(home: Home) -> Config:
    """The configuration in force: the file's values over the defaults, paths absolute.

    Raises:
        InvalidFileError: When the file is damaged or says something that is not allowed.
    """
    values: dict[str, Any] = {"model-dir": home.models, **read_values(home)}
    return Config(**{key.replace("-", "_"): value for key, value in values.items()})


def list_settings(home: Home) -> Settings:
    """Every key.

    Raises:
        InvalidFileError: When the file is damaged or says something that is not allowed.
    """
    chosen = read_values(home)
    defaults = {
        key: home.models if key == "model-dir" else definition.default
        for key, definition in CONFIG_KEYS.items()
    }
    return Settings(
        tuple(
            Setting(
                definition=definition,
                value=chosen.get(key, defaults[key]),
                default=defaults[key],
                source="file" if key in chosen else "default",
            )
            for key, definition in CONFIG_KEYS.items()
        )
    )


def get_setting(home: Home, key: str) -> Setting:
    """One key.

    Raises:
        ConfigValidationError: When there is no such key.
        InvalidFileError: When the file is damaged or says something that is not allowed.
    """
    definition = find_key(key)
    return next(each for each in list_settings(home).settings if each.definition is definition)


def set_value(home: Home, key: str, text: str) -> Setting:
    """Give `key` the value that `text` means.

    Raises:
        ConfigValidationError: When there is no such key, or it doesn't take this value.
        InvalidFileError: When the file is damaged, so it is not written over.
    """
    value = find_key(key).parse(text)
    if key == "gateway-host":
        _check_is_ours(str(value))
    save_values(home, {**read_values(home), key: value})
    return get_setting(home, key)


def reset(home: Home, key: str | None) -> Reset:
    """Return `key`, or every key, to its default.

    A damaged file can be reset as a whole: it is replaced unread.

    Raises:
        ConfigValidationError: When there is no such key.
        InvalidFileError: When the file is damaged, and only one key was named.
    """
    if key is None:
        changed = tuple(CONFIG_KEYS) if home.config.exists() else ()
        home.config.unlink(missing_ok=True)
        return Reset(changed)
    values = read_values(home)
    if find_key(key).name not in values:
        return Reset(())
    del values[key]
    save_values(home, values)
    return Reset((key,))


def read_values(home: Home) -> dict[str, ConfigValue]:
    """The values that the configuration file sets, by key; empty where there is no file.

    Raises:
        InvalidFileError: When the file is damaged, or sets a key that doesn't exist or a value
            that is not allowed; the error names the line.
    """
    try:
        document = yaml_file.parse(home.config, hint=_HINT)
    except FileNotFoundError:
        return {}
    values: dict[str, ConfigValue] = {}
    for key, value in document.as_a(dict[str, object], hint=_HINT).items():
        try:
            values[key] = find_key(key).read(value, home.root)
        except ConfigValidationError as error:
            raise InvalidFileError(
                home.config, error.message, line=document.line(key), hint=error.hint or _HINT
            ) from error
    return values


def save_values(home: Home, values: Mapping[str, ConfigValue]) -> None:
    """Make `values` the whole content of the configuration file, readable by its owner only.

    Raises:
        OSError: When the file can't be written; what was there is unchanged.
    """
    plain: dict[str, yaml12.Value] = {
        key: str(value) if isinstance(value, Path | StrEnum) else value
        for key, value in values.items()
    }
    text = yaml12.write(plain) if plain else ""
    home.create()
    atomic_file.write_text(home.config, text, mode=atomic_file.PRIVATE)


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
            f"{host} isn't an address of this machine: {error.strerror or error}.",
            hint="127.0.0.1 is for this machine only; 0.0.0.0 is for all its networks.",
        ) from error
