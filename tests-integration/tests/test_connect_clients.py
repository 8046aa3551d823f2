"""`connect`: other programs' files, changed and changed back, with everything else kept."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from mlx_gateway.keys import ClientKeys, load_keys
from mlx_stack.credentials import ensure_gateway_key
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story

CLIENTS = [
    *("claude-code", "codex", "opencode", "aider", "continue", "zed", "llm", "open-webui"),
    *(
        "cline",
        "roo-code",
        "vs-code",
        "cursor",
        "n8n",
        "home-assistant",
        "langchain",
        "pydantic-ai",
    ),
]
WITH_FILES, BY_HAND = CLIENTS[:8], CLIENTS[8:]
AGENTS = ["claude-code", "codex", "opencode", "cline", "roo-code"]
EXISTING = {
    "claude-code": (
        ".claude/settings.json",
        '{\n  // mine\n  "model": "opus",\n  "env": {"ANTHROPIC_MODEL": "claude-x"}\n}\n',
    ),
    "opencode": (".config/opencode/opencode.json", '{"theme": "dark", "provider": {"a": {}}}\n'),
    "codex": (
        ".codex/mlx-stack.config.toml",
        '# mine\nmodel = "o9" # best\n\n[tools]\nweb = true\n',
    ),
    "aider": (".aider.conf.yml", "# mine\nmodel: other\ndark-mode: true\n"),
    "continue": (
        ".continue/config.yaml",
        "# mine\nname: Me\nmodels:\n  - name: other\n    provider: ollama\n",
    ),
    "zed": (".config/zed/settings.json", '// mine\n{\n  "theme": "One",\n}\n'),
    "llm": (".config/io.datasette.llm/keys.json", '{"openai": "sk-mine"}\n'),
}


@pytest.fixture
def user(served: Program, tmp_path: Path) -> Program:
    """A user with a home folder of their own and a stack that has a key."""
    home = tmp_path / "user"
    home.mkdir()
    define_stack(served.home, {"standard": {}, "fast": {}})
    ensure_gateway_key(served.home)
    return served.with_variables(HOME=str(home), XDG_CONFIG_HOME="")


def _key(program: Program) -> str:
    return str(json.loads(program.home.credentials.read_text())["gateway_key"])


def _holders(program: Program, text: str) -> list[str]:
    """The clients whose keys stand in a text."""
    keys = load_keys(program.home.client_keys) or ClientKeys()
    digests = {keys.digest(key).hex() for key in re.findall(r"sk-[\w-]{40,}", text)}
    return [each.name for each in keys.keys if each.digest in digests]


def _home(program: Program) -> Path:
    return Path(program.variables["HOME"])


@pytest.mark.parametrize("client", WITH_FILES)
def test_connecting_twice_changes_nothing_the_second_time_and_undo_removes_the_files(
    user: Program, client: str
) -> None:
    first = user.run("connect", client, "--json")
    assert first.code == 0, first.err
    files = [Path(row["path"]) for row in first.document["files"]]
    assert all(row["changed"] for row in first.document["files"])
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in files)

    again = user.run("connect", client, "--json")
    assert not any(row["changed"] for row in again.document["files"])

    undone = user.run("connect", client, "--undo")
    assert undone.code == 0, undone.err
    assert not any(path.exists() for path in files)
    assert not user.home.connections.exists()


def test_each_program_has_a_key_of_its_own_until_it_is_disconnected(user: Program) -> None:
    shown = user.run("connect", "claude-code", "--dry-run")
    assert shown.code == 0
    assert not user.home.client_keys.exists()

    for client in ("claude-code", "open-webui", "zed"):
        assert user.run("connect", client).code == 0
    listed = user.run("keys", "list", "--json").document["keys"]
    rights = {row["name"]: (row["tiers"], row["priority"]) for row in listed}
    assert rights == {
        "claude-code": (None, "agent"),
        "open-webui": (None, "interactive"),
        "zed": (None, "interactive"),
    }

    user.run("connect", "claude-code", "--undo")
    names = [row["name"] for row in user.run("keys", "--json").document["keys"]]
    assert names == ["open-webui", "zed"]


def test_a_program_that_keeps_no_file_is_given_its_key_to_paste(user: Program) -> None:
    dry = user.run("connect", "zed", "--dry-run", "--json")
    assert "sk-" not in dry.document["next_step"]

    for _ in range(2):
        done = user.run("connect", "zed", "--json")
        assert _holders(user, done.document["next_step"]) == ["zed"]


def test_a_program_whose_key_was_revoked_is_not_connected_until_it_has_another(
    user: Program,
) -> None:
    user.run("connect", "codex")
    path = _home(user) / ".codex" / "mlx-stack.config.toml"
    before = path.read_text()
    user.run("keys", "revoke", "codex")

    def is_connected() -> bool:
        rows = user.run("connect", "--json").document["clients"]
        return {row["name"]: row["connected"] for row in rows}["codex"]

    assert not is_connected()
    user.run("connect", "codex")
    assert is_connected()
    assert path.read_text() != before
    assert _holders(user, path.read_text()) == ["codex"]


def test_a_key_that_was_added_by_hand_is_not_taken_over(user: Program) -> None:
    user.run("keys", "add", "codex")

    refused = user.run("connect", "codex", "--json")
    assert (refused.code, "keys revoke codex" in refused.document["error"]["hint"]) == (1, True)
    assert user.run("connect", "codex", "--undo").code == 0
    assert [row["name"] for row in user.run("keys", "--json").document["keys"]] == ["codex"]


@pytest.mark.parametrize("client", sorted(EXISTING))
def test_what_else_is_in_a_file_is_kept_and_comes_back(user: Program, client: str) -> None:
    name, text = EXISTING[client]
    path = _home(user) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)

    connected = user.run("connect", client)

    assert connected.code == 0, connected.err
    changed = path.read_text()
    assert _key(user) not in changed, "the admin's key is no program's"
    assert _holders(user, changed) == ([] if client == "zed" else [client])
    if "mine" in text:
        assert "mine" in changed
    backup = path.with_name(f"{path.name}.before-mlx-stack")
    assert backup.read_text() == text
    assert f"Backup of the original: {backup}." in connected.out
    user.run("connect", client, "--undo")
    assert path.read_text() == text
    assert not backup.exists()


@pytest.mark.parametrize(
    ("client", "name", "content"),
    [
        ("claude-code", ".claude/settings.json", b'{\r\n\t"model": "opus"\r\n}\r\n'),
        (
            "codex",
            ".codex/mlx-stack.config.toml",
            b'\xef\xbb\xbf# mine\r\nmodel = "o9"\r\n[tui]\r\nx=1',
        ),
        ("continue", ".continue/config.yaml", b"# mine\r\nmodels:\r\n- name: a   # why\r\n"),
        ("continue", ".continue/config.yaml", b"# mine, and nothing else\n"),
        ("continue", ".continue/config.yaml", b"prompt: " + b"word " * 60 + b"\n"),
        ("opencode", ".config/opencode/opencode.json", b"\xef\xbb\xbf// mine\n"),
        ("zed", ".config/zed/settings.json", b'{ "theme" : "One" , }'),
        ("zed", ".config/zed/settings.json", b"  \n"),
        ("llm", ".config/io.datasette.llm/keys.json", b"{}"),
    ],
)
def test_a_file_that_nobody_else_changed_comes_back_to_the_byte(
    user: Program, client: str, name: str, content: bytes
) -> None:
    path = _home(user) / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    path.chmod(0o640)

    connected = user.run("connect", client)

    assert connected.code == 0, connected.err
    changed = path.read_bytes()
    assert changed.startswith(b"\xef\xbb\xbf") == content.startswith(b"\xef\xbb\xbf")
    assert b"\r\n" not in content or changed.count(b"\r\n") == changed.count(b"\n")
    assert b"mine" not in content or b"mine" in changed
    assert not user.run("connect", client, "--json").document["files"][0]["changed"]
    user.run("connect", client, "--undo")
    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == 0o640


def test_undo_needs_neither_the_port_nor_the_stack_nor_the_key_of_then(user: Program) -> None:
    path = _home(user) / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"env": {"ANTHROPIC_MODEL": "claude-x"}}')
    user.run("connect", "claude-code")
    key = _key(user)
    user.run("config", "set", "litellm-port", "4321")
    user.home.stack.unlink()
    user.home.credentials.unlink()

    undone = user.run("connect", "claude-code", "--undo", "--json")

    assert undone.code == 0, undone.err
    assert key not in undone.out
    assert path.read_text() == '{"env": {"ANTHROPIC_MODEL": "claude-x"}}'


def test_undo_of_what_was_never_connected_changes_nothing(user: Program) -> None:
    path = _home(user) / ".claude" / "settings.json"
    path.parent.mkdir()
    path.write_text('{"env": {"ANTHROPIC_MODEL": "standard"}}')

    undone = user.run("connect", "claude-code", "--undo")

    assert undone.code == 0
    assert "not connected" in undone.err
    assert path.read_text() == '{"env": {"ANTHROPIC_MODEL": "standard"}}'


@pytest.mark.parametrize("client", ["continue", "llm"])
def test_a_tier_that_is_gone_goes_from_the_file_with_the_next_connection(
    user: Program, client: str
) -> None:
    path = Path(user.run("connect", client, "--json").document["files"][0]["path"])
    assert "fast" in path.read_text()
    define_stack(user.home, {"standard": {}})

    user.run("connect", client)

    assert "fast" not in path.read_text()
    user.run("connect", client, "--undo")
    assert not path.exists()


def test_what_the_user_added_since_survives_another_connection_and_undo(user: Program) -> None:
    path = _home(user) / ".config" / "zed" / "settings.json"
    path.parent.mkdir(parents=True)
    path.write_text('{\n  // mine\n  "theme": "One"\n}\n')
    user.run("connect", "zed")
    path.write_text(path.read_text().replace('"theme": "One"', '"theme": "Two",\n  "vim": true'))
    user.run("config", "set", "litellm-port", "4321")

    user.run("connect", "zed")
    assert "4321" in path.read_text()

    user.run("connect", "zed", "--undo")
    assert path.read_text() == '{\n  // mine\n  "theme": "Two",\n  "vim": true\n}\n'


@pytest.mark.parametrize(
    ("client", "name", "content"),
    [
        ("zed", ".config/zed/settings.json", "[" * 100_000),
        ("zed", ".config/zed/settings.json", f'{{"a": {"1" * 5000}}}'),
        ("continue", ".continue/config.yaml", "a: 2001-99-99\n"),
    ],
)
def test_absurd_files_are_refused_and_left_alone(
    user: Program, client: str, name: str, content: str
) -> None:
    path = _home(user) / name
    path.parent.mkdir(parents=True)
    path.write_text(content)

    done = user.run("connect", client, "--json")

    assert done.code == 2
    assert done.document["error"]["type"] == "invalid-file"
    assert path.read_text() == content


def test_a_relative_config_folder_is_no_folder(user: Program) -> None:
    astray = user.with_variables(XDG_CONFIG_HOME="astray")

    row = astray.run("connect", "opencode", "--json").document["files"][0]

    assert row["path"] == str(_home(user) / ".config" / "opencode" / "opencode.json")


def test_a_dry_run_shows_the_change_without_the_key_and_writes_nothing(user: Program) -> None:
    shown = user.run("connect", "claude-code", "--dry-run")

    assert "ANTHROPIC_BASE_URL" in shown.out
    assert _key(user) not in shown.out
    assert not (_home(user) / ".claude").exists()


def test_a_value_that_was_changed_since_is_left_alone_by_undo(user: Program) -> None:
    user.run("connect", "claude-code")
    path = _home(user) / ".claude" / "settings.json"
    document = json.loads(path.read_text())
    document["env"]["ANTHROPIC_MODEL"] = "my-own"
    path.write_text(json.dumps(document))

    user.run("connect", "claude-code", "--undo")

    assert json.loads(path.read_text()) == {"env": {"ANTHROPIC_MODEL": "my-own"}}


def test_a_damaged_file_is_named_and_left_alone(user: Program) -> None:
    path = _home(user) / ".codex" / "mlx-stack.config.toml"
    path.parent.mkdir()
    path.write_text("model = \n")

    done = user.run("connect", "codex", "--json")

    assert done.code == 2
    assert str(path) in done.document["error"]["message"]
    assert path.read_text() == "model = \n"


def test_the_list_says_which_clients_are_connected(user: Program) -> None:
    user.run("connect", "llm")

    rows = {
        row["name"]: row["connected"] for row in user.run("connect", "--json").document["clients"]
    }

    assert list(rows) == CLIENTS
    assert [name for name, connected in rows.items() if connected] == ["llm"]
    assert user.run("connect", "emacs").code == 2


@pytest.mark.parametrize("client", BY_HAND)
def test_a_program_that_keeps_no_file_is_told_what_to_type_and_counts_as_connected(
    user: Program, client: str
) -> None:
    port = user.run("env", "--json").document["env"]["OPENAI_BASE_URL"]
    dry = user.run("connect", client, "--dry-run")
    assert "standard" in dry.out
    assert "sk-" not in dry.out
    assert not user.home.client_keys.exists()

    done = user.run("connect", client)

    assert port.removesuffix("/v1") in done.out
    assert _holders(user, done.out) == [client]
    row = next(row for row in _listed(user) if row["name"] == client)
    assert (row["by_hand"], row["connected"]) == (True, True)
    undone = user.run("connect", client, "--undo")
    assert "has been revoked" in undone.err
    assert user.run("keys", "--json").document["keys"] == []
    assert "not connected" in user.run("connect", client, "--undo").err


@pytest.mark.parametrize("client", AGENTS)
def test_an_agent_whose_first_prompt_has_no_room_is_refused_with_the_way_out(
    user: Program, client: str
) -> None:
    define_stack(user.home, {"standard": {}, "longctx": {}})
    _set_contexts(user, standard=16_384, longctx=131_072)

    refused = user.run("connect", client, "--json")
    assert refused.code == 1
    assert "standard has 16,384" in refused.document["error"]["message"]
    assert f"connect {client} --tier longctx" in refused.document["error"]["hint"]
    assert not user.home.client_keys.exists()

    assert user.run("connect", client, "--tier", "longctx").code == 0
    assert next(row for row in _listed(user) if row["name"] == client)["connected"]

    _set_contexts(user, standard=16_384, longctx=8_192)
    hint = user.run("connect", client, "--json").document["error"]["hint"]
    assert "init --intent agent-fleet" in hint
    assert str(user.home.stack) in hint
    assert user.run("connect", "continue", "--json").code == 0, "it is no agent"


def test_the_list_says_which_programs_are_on_this_machine(user: Program, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    aider = programs / "aider"
    aider.write_text("#!/bin/sh\n")
    aider.chmod(0o755)
    (_home(user) / ".n8n").mkdir()
    here = user.with_variables(PATH=str(programs))

    found = {row["name"]: row["found_at"] for row in _listed(here) if row["found_at"]}

    assert found == {"aider": str(aider), "n8n": str(_home(user) / ".n8n")}
    assert f"found               {aider}" in here.run("connect").out


def test_a_tier_that_is_not_defined_is_no_tier_to_connect_to(user: Program) -> None:
    refused = user.run("connect", "llm", "--tier", "slow")
    assert (refused.code, "standard, fast" in refused.err) == (2, True)
    assert user.run("connect", "--tier", "fast").code == 2


def test_the_tier_that_was_asked_for_does_the_real_work(user: Program) -> None:
    user.run("connect", "claude-code", "--tier", "fast")

    variables = json.loads((_home(user) / ".claude" / "settings.json").read_text())["env"]

    assert variables["ANTHROPIC_MODEL"] == "fast"


def _listed(program: Program) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = program.run("connect", "--json").document["clients"]
    return rows


def _set_contexts(program: Program, **context_tokens: int) -> None:
    stack = load_stack(program.home.stack)
    tiers = tuple(
        msgspec.structs.replace(tier, context_tokens=context_tokens[tier.name])
        for tier in stack.tiers
    )
    save_stack(program.home.stack, msgspec.structs.replace(stack, tiers=tiers))
