"""The programs that keep their settings to themselves: what to type, and where.

Sources: each program's own documentation as of November 2026. Cline's command was also carried out
(3.0); its file is its own: one that it doesn't like it replaces, all providers in it included.

(decision 0090)
"""

import json

from mlx_gateway.keys import Priority
from mlx_stack.clients.client import (
    ASSUMED_CONTEXT_TOKENS,
    NAME,
    Client,
    ClientEndpoint,
    Surroundings,
    Traces,
    answer_tokens,
)
from mlx_stack.clients.with_files import AGENT_PROMPT_TOKENS

_ELSEWHERE = (
    "On another machine, or in a container: `mlx-stack config set gateway-host 0.0.0.0`, "
    "`mlx-stack up`, and this machine's name instead of 127.0.0.1."
)


def _cline(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "In a terminal:",
            f"  cline auth -p openai-compatible -b {to.base_url} -k {to.key} -m {to.main}",
            "In the editor, Cline's settings (the gear), for Plan and Act:",
            *_openai_compatible(to),
        ]
    )


def _roo_code(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(["Roo Code's settings (the gear) > Providers:", *_openai_compatible(to)])


def _openai_compatible(to: ClientEndpoint) -> list[str]:
    """The form of Cline and of what came from it."""
    rows = {
        "API Provider": "OpenAI Compatible",
        "Base URL": to.base_url,
        "API Key": to.key,
        "Model ID": to.main,
        "Context Window": to.main_context,
        "Max Output Tokens": answer_tokens(to.main_context),
    }
    return [f"  {name}: {value}" for name, value in rows.items() if value is not None]


def _vs_code(_: Surroundings, to: ClientEndpoint) -> str:
    models: list[object] = []
    for name, known_context_tokens in to.models.items():
        context_tokens = known_context_tokens or ASSUMED_CONTEXT_TOKENS
        answer = answer_tokens(context_tokens) or 0
        models.append(
            {
                "id": name,
                "name": f"{name} (local)",
                "url": f"{to.base_url}/chat/completions",
                "toolCalling": True,
                "vision": False,
                "maxInputTokens": context_tokens - answer,
                "maxOutputTokens": answer,
            }
        )
    return "\n".join(
        [
            "In VS Code 1.122 or later, run `Chat: Manage Language Models` > Add Models > Custom",
            "Endpoint, and enter:",
            f"  Group name: {NAME}",
            f"  API key: {to.key}",
            "  API type: Chat Completions",
            "VS Code then opens chatLanguageModels.json. Make this the `models` of the new entry:",
            json.dumps(models, indent=2),
        ]
    )


def _cursor(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "Cursor sends all requests through its own servers, which can't reach this machine: it",
            "needs a public HTTPS address, from a tunnel of your choice that leads to",
            f"{to.root_url} and sends it that Host. Anyone who knows the address can try keys.",
            "Your own models need a paid plan, and Tab completion always uses Cursor's models.",
            "Cursor Settings > Models > API Keys:",
            f"  OpenAI API Key: {to.key}",
            "  Override OpenAI Base URL: https://YOUR-TUNNEL/v1",
            f"  Add Custom Model: {to.main}",
        ]
    )


def _n8n(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "Credentials > Add credential > OpenAI:",
            f"  API Key: {to.key}",
            f"  Base URL: {to.base_url}",
            f"In the OpenAI Chat Model node, choose it and, by ID, the model `{to.main}`.",
            _ELSEWHERE,
        ]
    )


def _home_assistant(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "Settings > Devices & services > Add integration > Ollama:",
            f"  URL: {to.root_url}",
            f"  API key: {to.key}",
            f"Then add a conversation agent there, with the model `{to.main}`. The field for the",
            "API key came in 2026; without it, Home Assistant can't connect.",
            _ELSEWHERE,
        ]
    )


def _langchain(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "from langchain_openai import ChatOpenAI",
            "",
            f'model = ChatOpenAI(model="{to.main}", base_url="{to.base_url}", api_key="{to.key}")',
            'print(model.invoke("Why is the sky blue?").content)',
        ]
    )


def _pydantic_ai(_: Surroundings, to: ClientEndpoint) -> str:
    return "\n".join(
        [
            "from pydantic_ai import Agent",
            "from pydantic_ai.models.openai import OpenAIChatModel",
            "from pydantic_ai.providers.openai import OpenAIProvider",
            "",
            f'provider = OpenAIProvider(base_url="{to.base_url}", api_key="{to.key}")',
            f'agent = Agent(OpenAIChatModel("{to.main}", provider=provider))',
            'print(agent.run_sync("Why is the sky blue?").output)',
        ]
    )


CLIENTS_BY_HAND: tuple[Client, ...] = (
    Client(
        "cline",
        "Cline",
        Traces(("cline",), folders=(".cline",)),
        _cline,
        first_prompt_tokens=AGENT_PROMPT_TOKENS,
        priority=Priority.AGENT,
    ),
    Client(
        "roo-code",
        "Roo Code",
        Traces(folders=(".roo",)),
        _roo_code,
        first_prompt_tokens=AGENT_PROMPT_TOKENS,
        priority=Priority.AGENT,
    ),
    Client("vs-code", "VS Code", Traces(("code",), ("Visual Studio Code",)), _vs_code),
    Client("cursor", "Cursor", Traces(("cursor",), ("Cursor",), (".cursor",)), _cursor),
    Client("n8n", "n8n", Traces(("n8n",), folders=(".n8n",)), _n8n),
    Client("home-assistant", "Home Assistant", Traces(), _home_assistant),
    Client("langchain", "LangChain", Traces(), _langchain),
    Client("pydantic-ai", "pydantic-ai", Traces(), _pydantic_ai),
)
