"""`connect`: other programs' files, changed and changed back, with everything else kept."""

import json
import tomllib
from pathlib import Path

import pytest
import yaml

from mlx_stack.credentials import ensure_gateway_key
from stack_testkit.home import define_stack
from stack_testkit.program import Program

CLIENTS = ["claude-code", "opencode", "codex", "continue", "zed", "llm", "open-webui"]
EXISTING = {
    "claude-code": (
        ".claude/settings.json",
        '{\n  // mine\n  "model": "opus",\n  "env": {"ANTHROPIC_MODEL": "claude-x"}\n}\n',
    ),
    "opencode": (".config/opencode/opencode.json", '{"theme": "dark", "provider": {"a": {}}}\n'),
    "codex": (".codex/config.toml", '# mine\nmodel = "o9" # best\n\n[tools]\nweb = true\n'),
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
    return Program(served.home, {**served.variables, "HOME": str(home), "XDG_CONFIG_HOME": ""})


def _key(program: Program) -> str:
    return str(json.loads(program.home.credentials.read_text())["gateway_key"])


def _home(program: Program) -> Path:
    return Path(program.variables["HOME"])


@pytest.mark.parametrize("client", CLIENTS)
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
    if client != "continue":  # a new file of Continue's has a frame besides its models
        assert not any(path.exists() for path in files)


@pytest.mark.parametrize("client", sorted(EXISTING))
def test_what_else_is_in_a_file_is_kept_and_comes_back(user: Program, client: str) -> None:
    name, text = EXISTING[client]
    path = _home(user) / name
    path.parent.mkdir(parents=True)
    path.write_text(text)

    connected = user.run("connect", client)

    assert connected.code == 0, connected.err
    changed = path.read_text()
    assert _key(user) in changed or client == "zed"
    if "mine" in text:
        assert "mine" in changed
    backup = path.with_name(f"{path.name}.before-mlx-stack")
    assert backup.read_text() == text
    user.run("connect", client, "--undo")
    assert _parsed(path) == _parsed(backup.with_name(path.name), text)
    assert not backup.exists()


def _parsed(path: Path, text: str | None = None) -> object:
    text = path.read_text() if text is None else text
    match path.suffix:
        case ".toml":
            return tomllib.loads(text)
        case ".yaml":
            return yaml.safe_load(text)
        case _:
            lines = [line for line in text.splitlines() if not line.strip().startswith("//")]
            return json.loads("\n".join(lines).replace(",\n}", "\n}"))


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
    path = _home(user) / ".codex" / "config.toml"
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
