"""What programs are told of the tiers: models for each role, and how much room there is."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlx_stack.clients.client import (
    ClientEndpoint,
    ClientFile,
    Surroundings,
    answer_tokens,
    has_room,
)
from mlx_stack.clients.documents import FORMATS
from mlx_stack.clients.registry import CLIENTS, require_client

AROUND = Surroundings(Path("/nowhere/user"), {}, is_mac=True, state=Path("/nowhere/state"))
URL = "http://127.0.0.1:4000"


def endpoint(**models: int | None) -> ClientEndpoint:
    return ClientEndpoint(URL, f"{URL}/v1", "sk-a-key", models)


def files(client: str, to: ClientEndpoint) -> tuple[ClientFile, ...]:
    write = require_client(client).files
    assert write is not None
    return write(AROUND, to)


def variables(to: ClientEndpoint) -> dict[str, Any]:
    (file,) = files("claude-code", to)
    return {str(path[-1]): value for path, value in file.settings.items()}


@given(st.integers(1, 2_000_000), st.integers(1, 100_000))
def test_an_answer_leaves_most_of_the_context_and_an_agent_that_fits_leaves_room_for_it(
    context_tokens: int, first_prompt_tokens: int
):
    answer = answer_tokens(context_tokens)
    assert answer is not None
    assert answer <= context_tokens / 8
    if has_room(context_tokens, first_prompt_tokens):
        assert first_prompt_tokens + answer <= context_tokens
        assert has_room(context_tokens + 1, first_prompt_tokens)


def test_what_nobody_knows_is_not_written():
    told = variables(endpoint(standard=None))
    assert not [name for name in told if "TOKENS" in name and name != REMINDER]
    assert not [name for name in told if "WINDOW" in name]
    (codex,) = files("codex", endpoint(standard=None))
    assert ("model_context_window",) not in codex.settings
    assert len(files("aider", endpoint(standard=None))) == 1
    assert answer_tokens(None) is None


REMINDER = "CLAUDE_CODE_TOTAL_TOKENS_REMINDER"


def test_claude_code_keeps_the_head_of_its_prompt_and_knows_its_window():
    told = variables(endpoint(standard=131_072, fast=32_768))

    assert told["CLAUDE_CODE_ATTRIBUTION_HEADER"] == "0"
    assert told[REMINDER] == "off"
    assert told["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "131072"
    assert told["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] == "131072"
    assert told["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] == "16384"


def test_claude_code_is_not_told_a_window_that_it_warns_of():
    told = variables(endpoint(standard=32_768))

    assert told["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] == "32768"
    assert "CLAUDE_CODE_AUTO_COMPACT_WINDOW" not in told


@pytest.mark.parametrize(
    ("fast", "helper"),
    [(32_768, "fast"), (None, "fast"), (16_384, "standard")],
)
def test_sub_agents_work_on_the_fast_tier_where_it_holds_their_prompt(
    fast: int | None, helper: str
):
    to = endpoint(standard=131_072, fast=fast)

    told = variables(to)
    (opencode,) = files("opencode", to)

    assert told["CLAUDE_CODE_SUBAGENT_MODEL"] == helper
    assert opencode.settings["agent", "general", "model"] == f"mlx-stack/{helper}"
    assert told["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == "fast"
    assert opencode.settings["small_model",] == "mlx-stack/fast"


def test_opencode_and_aider_leave_what_was_said_as_it_was():
    (opencode,) = files("opencode", endpoint(standard=131_072))
    aider, _ = files("aider", endpoint(standard=131_072))

    assert opencode.settings["compaction", "prune"] is False
    assert aider.settings["map-refresh",] == "files"


@pytest.mark.parametrize("client", [each for each in CLIENTS if each.files is not None])
@pytest.mark.parametrize("context_tokens", [None, 32_768])
def test_what_is_written_reads_back_and_undoing_it_leaves_nothing(
    client: Any, context_tokens: int | None
):
    for file in client.files(AROUND, endpoint(standard=context_tokens, fast=context_tokens)):
        editor, text = FORMATS[file.format], ""
        for path, value in file.settings.items():
            text = editor.set(text, path, value)
        for path, value in file.settings.items():
            assert editor.get(text, path) == value
        for path in file.settings:
            text = editor.delete(text, path)
        assert "".join(text.split()) in ("", "{}", "[]")


@pytest.mark.parametrize("client", CLIENTS)
def test_every_program_has_a_name_of_its_own_and_says_what_comes_next(client: Any):
    assert [each.name for each in CLIENTS].count(client.name) == 1
    assert client.next_step(AROUND, endpoint(standard=None, fast=65_536))


def test_an_app_and_a_program_show_that_something_is_on_this_machine(tmp_path: Path):
    app = tmp_path / "Applications" / "Zed.app"
    app.mkdir(parents=True)
    zed = require_client("zed").traces

    assert Surroundings(tmp_path, {"PATH": ""}, is_mac=True, state=tmp_path).find(zed) == app
    assert Surroundings(tmp_path, {"PATH": ""}, is_mac=False, state=tmp_path).find(zed) is None
