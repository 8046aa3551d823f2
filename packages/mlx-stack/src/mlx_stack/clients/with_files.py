"""The programs whose configuration files are written: which they are, and what goes into them.

Every key here was taken by the version of the program that the nightly tests drive (`clients`); Zed
and Open WebUI, which they don't, by the program's own documentation as of November 2026.
"""

from pathlib import Path

from mlx_gateway.keys import Priority
from mlx_stack.clients.client import (
    ASSUMED_CONTEXT_TOKENS,
    NAME,
    Client,
    ClientEndpoint,
    ClientFile,
    ClientSettings,
    Surroundings,
    Traces,
    answer_tokens,
)
from mlx_stack.clients.documents import DocumentPath, Item

CLAUDE_CODE_PROMPT_TOKENS = 20_000
"""Claude Code 2.1 in an empty folder: 13,500; a few MCP servers and a CLAUDE.md come on top."""
AGENT_PROMPT_TOKENS = 15_000
"""Codex CLI 0.171 in an empty folder: 9,100; opencode 1.18: 7,600; Cline 3.0: 5,600."""

_LEAST_COMPACT_WINDOW = 100_000
"""Claude Code warns of a smaller one, and compacts within its context all the same."""


def _claude_code(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    folder = around.moved("CLAUDE_CONFIG_DIR", around.home / ".claude")
    variables: dict[str, object] = {
        "ANTHROPIC_BASE_URL": to.root_url,
        "ANTHROPIC_AUTH_TOKEN": to.key,
        "ANTHROPIC_MODEL": to.main,
        "ANTHROPIC_DEFAULT_FABLE_MODEL": to.main,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": to.main,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": to.main,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": to.small,
        "CLAUDE_CODE_SUBAGENT_MODEL": to.helper(CLAUDE_CODE_PROMPT_TOKENS),
        # the head of the prompt stays the same from one turn to the next
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",
        "CLAUDE_CODE_TOTAL_TOKENS_REMINDER": "off",
    }
    if to.main_context is not None:
        # it takes a model that it doesn't know for one of a million tokens
        variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(to.main_context)
        variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(answer_tokens(to.main_context))
        if to.main_context >= _LEAST_COMPACT_WINDOW:
            variables["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(to.main_context)
    settings: ClientSettings = {("env", name): value for name, value in variables.items()}
    return (ClientFile(folder / "settings.json", "jsonc", settings),)


def _codex(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    """A profile of our own next to the user's `config.toml`, which keeps its own model."""
    folder = around.moved("CODEX_HOME", around.home / ".codex")
    provider = {
        "name": NAME,
        "base_url": to.base_url,
        "wire_api": "responses",
        "experimental_bearer_token": to.key,
    }
    settings: dict[DocumentPath, object] = {
        ("model",): to.main,
        ("model_provider",): NAME,
        ("web_search",): "disabled",  # a tool that OpenAI's servers carry out
    }
    if to.main_context is not None:
        room = to.main_context - (answer_tokens(to.main_context) or 0)
        settings["model_context_window",] = to.main_context
        settings["model_auto_compact_token_limit",] = room
    settings["model_providers", NAME] = provider
    return (ClientFile(folder / f"{NAME}.config.toml", "toml", settings),)


def _opencode(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    commented = around.config("opencode", "opencode.jsonc")
    path = commented if commented.exists() else commented.with_suffix(".json")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": NAME,
        # by default it gives up after five minutes, however lively the answer
        "options": {"baseURL": to.base_url, "apiKey": to.key, "timeout": False},
        "models": {
            name: {"name": f"{name} (local)"} | _opencode_limit(context_tokens)
            for name, context_tokens in to.models.items()
        },
    }
    helper = f"{NAME}/{to.helper(AGENT_PROMPT_TOKENS)}"
    settings: ClientSettings = {
        ("model",): f"{NAME}/{to.main}",
        ("small_model",): f"{NAME}/{to.small}",
        ("agent", "general", "model"): helper,
        ("agent", "explore", "model"): helper,
        # it would empty old tool results, and everything after them had to be read again
        ("compaction", "prune"): False,
        ("provider", NAME): provider,
    }
    return (ClientFile(path, "jsonc", settings),)


def _opencode_limit(context_tokens: int | None) -> dict[str, object]:
    """The room of a model; without it, opencode never compacts."""
    if context_tokens is None:
        return {}
    return {"limit": {"context": context_tokens, "output": answer_tokens(context_tokens)}}


def _aider(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    settings: ClientSettings = {
        ("model",): f"openai/{to.main}",
        ("weak-model",): f"openai/{to.small}",
        # the map of the repository comes early in the prompt: new only with other files, not with
        # every message
        ("map-refresh",): "files",
        ("openai-api-base",): to.base_url,
        ("openai-api-key",): to.key,
    }
    metadata: ClientSettings = {
        (f"openai/{name}",): {
            "max_input_tokens": context_tokens,
            "max_output_tokens": answer_tokens(context_tokens),
            "input_cost_per_token": 0,
            "output_cost_per_token": 0,
            "litellm_provider": "openai",
            "mode": "chat",
        }
        for name, context_tokens in to.models.items()
        if context_tokens is not None
    }
    return (
        ClientFile(around.home / ".aider.conf.yml", "yaml", settings),
        *(
            [ClientFile(around.home / ".aider.model.metadata.json", "jsonc", metadata)]
            if metadata
            else []
        ),
    )


def _continue(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    models: ClientSettings = {
        ("models", Item("name", f"{NAME} {model}")): {
            "name": f"{NAME} {model}",
            "provider": "openai",
            "model": model,
            "apiBase": to.base_url,
            "apiKey": to.key,
            "roles": ["chat", "edit", "apply"],
            "capabilities": ["tool_use"],
        }
        | _continue_limit(context_tokens)
        for model, context_tokens in to.models.items()
    }
    frame: ClientSettings = {("name",): "Local models", ("version",): "0.0.1", ("schema",): "v1"}
    return (ClientFile(around.home / ".continue" / "config.yaml", "yaml", models, frame),)


def _continue_limit(context_tokens: int | None) -> dict[str, object]:
    if context_tokens is None:
        return {}
    limit = {"contextLength": context_tokens, "maxTokens": answer_tokens(context_tokens)}
    return {"defaultCompletionOptions": limit}


def _zed(around: Surroundings, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    provider = {
        "api_url": to.base_url,
        "available_models": [
            {
                "name": name,
                "display_name": f"{name} (local)",
                "max_tokens": context_tokens or ASSUMED_CONTEXT_TOKENS,
                "max_output_tokens": answer_tokens(context_tokens or ASSUMED_CONTEXT_TOKENS),
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
            "supports_tools": True,
            "supports_schema": True,
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
        "TASK_MODEL_EXTERNAL": to.small,  # titles, tags and search queries
    }
    settings: ClientSettings = {(name,): value for name, value in variables.items()}
    return (ClientFile(_open_webui_file(around), "variables", settings),)


def _open_webui_file(around: Surroundings) -> Path:
    return around.state / "open-webui.env"


CLIENTS_WITH_FILES: tuple[Client, ...] = (
    Client(
        "claude-code",
        "Claude Code",
        Traces(("claude",), folders=(".claude",)),
        lambda _, to: f"Start `claude`; it uses `{to.main}`, and `{to.small}` for small work.",
        _claude_code,
        CLAUDE_CODE_PROMPT_TOKENS,
        Priority.AGENT,
    ),
    Client(
        "codex",
        "Codex CLI",
        Traces(("codex",), folders=(".codex",)),
        lambda _, to: f"Start `codex --profile {NAME}`; it uses `{to.main}`.",
        _codex,
        AGENT_PROMPT_TOKENS,
        Priority.AGENT,
    ),
    Client(
        "opencode",
        "opencode",
        Traces(("opencode",), folders=(".config/opencode",)),
        lambda _, to: f"Start `opencode`; it uses `{NAME}/{to.main}`, `/models` lists the others.",
        _opencode,
        AGENT_PROMPT_TOKENS,
        Priority.AGENT,
    ),
    Client(
        "aider",
        "Aider",
        Traces(("aider",), folders=(".aider",)),
        lambda _, to: f"Start `aider`; it uses `openai/{to.main}`.",
        _aider,
        priority=Priority.AGENT,
    ),
    Client(
        "continue",
        "Continue",
        Traces(("cn",), folders=(".continue",)),
        lambda _, to: f"Choose `{NAME} {to.main}` in Continue's models.",
        _continue,
    ),
    Client(
        "zed",
        "Zed",
        Traces(("zed", "zeditor"), ("Zed",), (".config/zed",)),
        lambda _, to: (
            f"Zed keeps keys in the keychain: paste {to.key} under Settings > AI > LLM Providers > "
            f"{NAME}, or start Zed with MLX_STACK_API_KEY set to it."
        ),
        _zed,
    ),
    Client(
        "llm",
        "llm",
        Traces(("llm",), folders=(".config/io.datasette.llm",)),
        lambda _, to: f"Ask with `llm -m {NAME}/{to.main} 'a question'`.",
        _llm,
    ),
    Client(
        "open-webui",
        "Open WebUI",
        Traces(("open-webui",), ("Open WebUI",)),
        lambda around, _: (
            f"Start it with these variables: `set -a; . {_open_webui_file(around)}; open-webui "
            f"serve`. In a container, use `--env-file {_open_webui_file(around)} --network host`."
        ),
        _open_webui,
    ),
)
