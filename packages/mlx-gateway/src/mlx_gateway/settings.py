"""`gateway.yaml`: which model names there are, and where each is served.

A value is read as what its field wants, so that a model may be called `yes`, `1e3` or `null`.
"""

import hashlib
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, override
from urllib.parse import urlsplit

import msgspec
import yaml
from yaml.composer import ComposerError

from mlx_gateway.config_file import read_config
from mlx_gateway.errors import ConfigError

SCHEMA_VERSION = 1
DEFAULT_PORT = 4000

type NameAtGateway = Annotated[str, msgspec.Meta(max_length=256, pattern=r"\A[^\x00-\x1f\x7f]+\Z")]


class Upstream(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A server that speaks a model's APIs.

    Attributes:
        url: Its root, such as `http://127.0.0.1:8000`, without `/v1`.
        model: The name that it knows the model by.
        node: The machine on which another gateway serves it; None for an engine of our own.
    """

    url: Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[^/?#\s]+(/[^?#\s]*)?\Z")]
    model: NameAtGateway
    node: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9-]{0,31}\Z")] | None = None

    def shown(self, name: str) -> str:
        """What the model `name` is called when this upstream serves it: `standard@studio`."""
        return name if self.node is None else f"{name}@{self.node}"

    @property
    def root(self) -> str:
        """The URL without a slash at its end."""
        return self.url.rstrip("/")


class Role(StrEnum):
    """What a model is for; a request that wants something else is refused in words."""

    CHAT = "chat"
    VISION = "vision"
    EMBEDDING = "embedding"
    RERANK = "rerank"
    SPEECH_TO_TEXT = "speech-to-text"
    TEXT_TO_SPEECH = "text-to-speech"


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model name.

    Attributes:
        upstreams: Where it is served, the own engine first; a request goes to the one with the
            fewest outstanding plus unseen tokens.
        fallbacks: The models that a request goes on to when this one fails, in order.
        context_tokens: The longest prompt and answer together; None where nobody knows.
        max_concurrent: How many requests each upstream works on at once; None sets no limit.
        queue: How many more may wait here for their turn.
        takes_overflow: Whether prompts that are too long for another model may come here.
        sees_images: Whether it reads images; None where nobody knows, and they are passed on.
        calls_tools: Whether it calls tools, as clients that choose by it hear; None where nobody
            knows.
        thinks: The same for thinking before it answers.
        silence_s: How long an upstream may say nothing at all while it works; None for the usual.
        role: What it is for; None where nobody knows, and every request is passed on. Models stand
            in for each other only where both may chat.
        dimensions: How long an embedder's vectors are; None where nobody knows.
        shortens: Whether the beginning of such a vector is a vector by itself (Matryoshka).
        chat_only: Whether its engine has no APIs for answers but OpenAI's Chat Completions and
            Completions.
    """

    upstreams: Annotated[tuple[Upstream, ...], msgspec.Meta(min_length=1)]
    fallbacks: tuple[NameAtGateway, ...] = ()
    context_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    max_concurrent: Annotated[int, msgspec.Meta(ge=1)] | None = None
    queue: Annotated[int, msgspec.Meta(ge=0, le=100_000)] = 256
    takes_overflow: bool = True
    sees_images: bool | None = None
    calls_tools: bool | None = None
    thinks: bool | None = None
    silence_s: Annotated[float, msgspec.Meta(gt=0)] | None = None
    role: Role | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1)] | None = None
    shortens: bool = False
    chat_only: bool = False


class TlsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A second door, for other machines: every path is the same there, and all is encrypted.

    Attributes:
        host: Where it listens.
        certificate: A PEM file, with those that signed it after it.
        key: The PEM file of its private key.
    """

    host: str
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    certificate: str
    key: str


class LiteLlmSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """LiteLLM, for models that no engine serves."""

    url: Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[^/?#\s]+(/[^?#\s]*)?\Z")]


class GatewaySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `gateway.yaml` says.

    Attributes:
        ollama_port: A second port, on which Ollama's clients look first; None for none.
        tls: A door with TLS; None for none.
        litellm: Where LiteLLM answers, if there is one.
        stable_prompts: Whether what clients are known to change in their system prompts each turn
            is taken out, or moved behind what stays.
        remote_images: Whether engines may fetch the images whose addresses a request names.
    """

    schema_version: int
    models: dict[NameAtGateway, ModelSettings]
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = DEFAULT_PORT
    ollama_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] | None = None
    tls: TlsSettings | None = None
    aliases: dict[NameAtGateway, NameAtGateway] = {}
    litellm: LiteLlmSettings | None = None
    stable_prompts: bool = True
    remote_images: bool = False

    def is_cloud(self, root: str) -> bool:
        """Whether requests to the upstream with this root leave the machine, through LiteLLM."""
        return self.litellm is not None and root == self.litellm.url.rstrip("/")

    def is_here(self, upstream: Upstream) -> bool:
        """Whether the upstream is an engine of this machine."""
        return upstream.node is None and not self.is_cloud(upstream.root)


def load_settings(path: Path) -> GatewaySettings:
    """The settings in the file at `path`.

    Raises:
        ConfigError: When the file is missing, damaged, of a newer version, or contradicts itself.
    """
    return load_version(path)[0]


def load_version(path: Path) -> tuple[GatewaySettings, str]:
    """The settings in the file at `path`, and their `version_of`, of one reading.

    Raises:
        ConfigError: As `load_settings` does.
    """
    content = read_config(path)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(path, f"is not UTF-8 text: {error.reason}") from error
    return parse_settings(text, path), _digest(content)


def parse_settings(text: str, path: Path | None = None) -> GatewaySettings:
    """The settings in `text`; `path` is named in errors.

    Raises:
        ConfigError: When they are damaged, of a newer version, or contradict themselves.
    """
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a BaseLoader underneath
        version = msgspec.convert(document, _Versioned, strict=False).schema_version
        if version != SCHEMA_VERSION:
            raise ConfigError(path, f"schema_version is {version}; this gateway reads 1")
        settings = msgspec.convert(document, GatewaySettings, strict=False)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(path, " ".join(str(error).split())) from error
    except msgspec.ValidationError as error:
        raise ConfigError(path, str(error)) from error
    problem = _contradiction(settings)
    if settings.ollama_port == settings.port:
        problem = "`ollama_port` is the same as `port`, which answers Ollama's clients as well"
    if settings.tls is not None and settings.tls.port in (settings.port, settings.ollama_port):
        problem = "`tls` has a port that the gateway listens on without TLS"
    if problem is not None:
        raise ConfigError(path, problem)
    return settings


def version_of(path: Path) -> str:
    """The digest of a settings file, which tells its versions apart.

    Raises:
        ConfigError: When it can't be read.
    """
    return _digest(read_config(path))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _contradiction(settings: GatewaySettings) -> str | None:
    """What is wrong though each field is valid by itself, or None."""
    if not settings.models:
        return "`models` is empty: a gateway needs at least one"
    for name, model in settings.models.items():
        problem = _wrong_model(name, model, settings.models)
        if problem is not None:
            return problem
    if settings.litellm is not None and not _is_address(settings.litellm.url):
        return f"`litellm` has an invalid URL: {settings.litellm.url}"
    for alias, target in settings.aliases.items():
        if alias in settings.models and alias != target:
            return f"the alias {alias!r} is also the name of a model"
        if target not in settings.models and target not in settings.aliases:
            return f"the alias {alias!r} names {target!r}, which is not defined"
        end = target
        for _ in settings.aliases:
            end = settings.aliases.get(end, end) if end not in settings.models else end
        if end not in settings.models:
            return f"the alias {alias!r} leads nowhere"
    return None


def _wrong_model(
    name: str, model: ModelSettings, others: Mapping[str, ModelSettings]
) -> str | None:
    """The same of one model."""
    unknown = next((other for other in model.fallbacks if other not in others), None)
    if unknown is not None:
        return f"the model {name!r} falls back to {unknown!r}, which is not defined"
    if model.upstreams[0].node is not None:
        return f"the first upstream of the model {name!r} must be an engine of this machine"
    roots = [upstream.root for upstream in model.upstreams]
    wrong = next((root for root in roots if not _is_address(root)), None)
    if wrong is not None:
        return f"the model {name!r} has an invalid URL: {wrong}"
    twice = next((root for root in roots if roots.count(root) > 1), None)
    return None if twice is None else f"the model {name!r} has the upstream {twice} twice"


def _is_address(url: str) -> bool:
    """Whether a URL names a host and a port that there can be, and can be asked as it stands."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna")
        return bool(host) and parts.port != 0 and url.isascii()
    except ValueError:
        return False


class _Versioned(msgspec.Struct):
    schema_version: int


class _Loader(yaml.BaseLoader):
    """Leaves every value as text; a key twice is an error, and so is an alias of YAML's own.

    With those a short file could become a very large value.
    """

    @override
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ComposerError(None, None, "YAML's aliases are not allowed", None)
        return super().compose_node(parent, index)

    @override
    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys: Counter[str] = Counter(str(key.value) for key, _ in node.value)
        for key, count in keys.items():
            if count > 1:
                raise ComposerError(None, None, f"the key {key!r} occurs twice", node.start_mark)
        return super().construct_mapping(node, deep)
