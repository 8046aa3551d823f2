"""The programs that can be connected: which files they read, and what goes into them.

Sources: each program's own documentation of custom endpoints, as of November 2026.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mlx_gateway.keys import Priority
from mlx_stack.clients.documents import DocumentPath, FormatName, Item
from mlx_stack.errors import UsageError

NAME = "mlx-stack"
"""Our name in other programs' files; whatever carries it is ours."""

type ClientSettings = Mapping[DocumentPath, object]


@dataclass(frozen=True, slots=True)
class ClientEndpoint:
    """The gateway as a client needs to know it.

    Attributes:
        root_url: Its address without `/v1`.
        base_url: Its address with `/v1`.
        models: The tiers' names in the order of the stack, each with its context length or None.
    """

    root_url: str
    base_url: str
    key: str
    models: Mapping[str, int | None]

    @property
    def main(self) -> str:
        """The model for the real work."""
        return next(iter(self.models))

    @property
    def small(self) -> str:
        """The model for small background work: `fast` if there is one."""
        return "fast" if "fast" in self.models else self.main


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a user's files are.

    Attributes:
        variables: The environment; some programs let it move their files.
        state: The state folder of mlx-stack, for files that only we write.
    """

    home: Path
    variables: Mapping[str, str]
    is_mac: bool
    state: Path

    def config(self, *parts: str) -> Path:
        """A path below `XDG_CONFIG_HOME`, by default `~/.config`; a relative one doesn't count."""
        base = Path(self.variables.get("XDG_CONFIG_HOME", ""))
        return (base if base.is_absolute() else self.home / ".config").joinpath(*parts)

    def moved(self, variable: str, default: Path) -> Path:
        """The folder that `variable` names, or `default`; absolute."""
        return Path(self.variables.get(variable) or default).absolute()


@dataclass(frozen=True, slots=True)
class ClientFile:
    """What goes into one file of a client.

    Attributes:
        settings: Our values, by their path in the file.
        frame: What a new file must say as well.
    """

    path: Path
    format: FormatName
    settings: ClientSettings
    frame: ClientSettings = field(default_factory=dict[DocumentPath, object])


@dataclass(frozen=True, slots=True)
class Client:
    """A program that can talk to the gateway.

    Attributes:
        next_step: What the user does after that; `{main}` stands for the first model, `{key}` for
            its key.
        priority: How urgent its requests are.
    """

    name: str
    title: str
    files: Callable[[Surroundings, ClientEndpoint], tuple[ClientFile, ...]]
    next_step: str
    priority: Priority = Priority.INTERACTIVE


def _claude_code(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    folder = around.moved("CLAUDE_CONFIG_DIR", around.home / ".claude")
    variables = {
        "ANTHROPIC_BASE_URL": to.root_url,
        "ANTHROPIC_AUTH_TOKEN": to.key,
        "ANTHROPIC_MODEL": to.main,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": to.main,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": to.main,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": to.small,
    }
    settings: ClientSettings = {("env", name): value for name, value in variables.items()}
    return (ClientFile(folder / "settings.json", "jsonc", settings),)


def _opencode(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    commented = around.config("opencode", "opencode.jsonc")
    path = commented if commented.exists() else commented.with_suffix(".json")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": NAME,
        "options": {"baseURL": to.base_url, "apiKey": to.key},
        "models": {name: {"name": f"{name} (local)"} for name in to.models},
    }
    return (ClientFile(path, "jsonc", {("provider", NAME): provider}),)


def _codex(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    folder = around.moved("CODEX_HOME", around.home / ".codex")
    provider = {
        "name": NAME,
        "base_url": to.base_url,
        "wire_api": "responses",
        "experimental_bearer_token": to.key,
    }
    settings: ClientSettings = {("model_providers", NAME): provider}
    return (ClientFile(folder / "config.toml", "toml", settings),)


def _continue(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    models: ClientSettings = {
        ("models", Item("name", f"{NAME} {model}")): {
            "name": f"{NAME} {model}",
            "provider": "openai",
            "model": model,
            "apiBase": to.base_url,
            "apiKey": to.key,
            "roles": ["chat", "edit", "apply"],
        }
        for model in to.models
    }
    frame: ClientSettings = {("name",): "Local models", ("version",): "0.0.1", ("schema",): "v1"}
    return (ClientFile(around.home / ".continue" / "config.yaml", "yaml", models, frame),)


def _zed(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    fallback_context_tokens = 32_768
    provider = {
        "api_url": to.base_url,
        "available_models": [
            {
                "name": name,
                "display_name": f"{name} (local)",
                "max_tokens": context_tokens or fallback_context_tokens,
                "capabilities": {"tools": True, "images": False},
            }
            for name, context_tokens in to.models.items()
        ],
    }
    settings: ClientSettings = {("language_models", "openai_compatible", NAME): provider}
    return (ClientFile(around.config("zed", "settings.json"), "jsonc", settings),)


def _llm(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    mac = around.home / "Library" / "Application Support" / "io.datasette.llm"
    default = mac if around.is_mac else around.config("io.datasette.llm")
    folder = around.moved("LLM_USER_PATH", default)
    models: ClientSettings = {
        (Item("model_id", f"{NAME}/{model}"),): {
            "model_id": f"{NAME}/{model}",
            "model_name": model,
            "api_base": to.base_url,
            "api_key_name": NAME,
        }
        for model in to.models
    }
    return (
        ClientFile(folder / "extra-openai-models.yaml", "yaml", models),
        ClientFile(folder / "keys.json", "jsonc", {(NAME,): to.key}),
    )


def _open_webui(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    variables = {
        "OPENAI_API_BASE_URL": to.base_url,
        "OPENAI_API_KEY": to.key,
        "ENABLE_OLLAMA_API": "false",
    }
    settings: ClientSettings = {(name,): value for name, value in variables.items()}
    return (ClientFile(around.state / "open-webui.env", "variables", settings),)


CLIENTS: tuple[Client, ...] = (
    Client(
        "claude-code",
        "Claude Code",
        _claude_code,
        "Start `claude`; it uses `{main}`.",
        Priority.AGENT,
    ),
    Client(
        "opencode",
        "opencode",
        _opencode,
        f"In opencode, `/models` lists `{NAME}/{{main}}`.",
        Priority.AGENT,
    ),
    Client(
        "codex",
        "Codex CLI",
        _codex,
        f"Start `codex -c model_provider={NAME} -m {{main}}`.",
        Priority.AGENT,
    ),
    Client("continue", "Continue", _continue, f"Choose `{NAME} {{main}}` in Continue's models."),
    Client(
        "zed",
        "Zed",
        _zed,
        "Zed keeps keys in the keychain: paste {key} under Agent Settings > LLM "
        f"Providers > {NAME}, or start Zed with MLX_STACK_API_KEY set to it.",
    ),
    Client("llm", "llm", _llm, f"Ask with `llm -m {NAME}/{{main}} 'a question'`."),
    Client(
        "open-webui",
        "Open WebUI",
        _open_webui,
        "Start it with these variables: `set -a; . {file}; open-webui serve`. In a container, "
        "use `--env-file {file} --network host`.",
    ),
)


def require_client(name: str) -> Client:
    """The client of that name, however it is spelled (`Claude Code`, `claude_code`).

    Raises:
        UsageError: When there is no such client.
    """
    wanted = name.lower().replace(" ", "-").replace("_", "-")
    for client in CLIENTS:
        if client.name == wanted:
            return client
    known = ", ".join(client.name for client in CLIENTS)
    raise UsageError(f"Unknown client {name!r}.", hint=f"Available: {known}.")
