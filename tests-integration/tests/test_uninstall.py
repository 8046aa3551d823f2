"""`uninstall --all`: nothing runs, clients are as they were, and only what isn't ours is left."""

import re
from pathlib import Path

import psutil
import pytest

from mlx_stack.uninstall import OURS
from stack_testkit.home import define_stack
from stack_testkit.program import Program
from stack_testkit.schemas import differences

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def user(served: Program, tmp_path: Path) -> Program:
    """A user with a stack, without launchd."""
    home = tmp_path / "user"
    home.mkdir()
    define_stack(served.home, {"standard": {}})
    return served.with_variables(HOME=str(home), XDG_CONFIG_HOME="")


def runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.story
def test_everything_is_stopped_restored_and_removed(user: Program) -> None:
    settings = Path(user.variables["HOME"]) / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text('{"model": "opus"}\n', encoding="utf-8")
    started = user.run("up", "--json").document["services"]
    assert user.run("connect", "claude-code").code == 0
    watchdog = user.run("watch", "--daemon", "--json").document["pid"]

    done = user.run("uninstall", "--all", "--yes", "--json")

    assert done.code == 0, done.err
    assert differences(done.document, "uninstall") == []
    assert done.document["clients"] == ["claude-code"]
    assert settings.read_text(encoding="utf-8") == '{"model": "opus"}\n'
    assert [path.name for path in settings.parent.iterdir()] == ["settings.json"]
    assert [pid for pid in (watchdog, *(row["pid"] for row in started)) if runs(pid)] == []
    # the model folder was copied there, not pulled
    assert [path.name for path in user.home.root.iterdir()] == ["models"]
    assert [path.name for path in user.home.models.iterdir()] == ["standard-model"]


@pytest.mark.story
def test_files_that_others_put_into_the_state_folder_stay(user: Program) -> None:
    (user.home.root / "notes.txt").write_text("mine", encoding="utf-8")

    done = user.run("uninstall", "--all", "--models", "--yes")

    assert done.code == 0, done.err
    assert (user.home.root / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert f"{user.home.root}" in done.out


def test_every_file_that_the_reference_lists_is_removed_but_for_the_users_own() -> None:
    page = (REPOSITORY / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    names = {name.split("/")[0] for row in rows for name in re.findall(r"`([\w./<>*-]+)`", row)}

    kept = {"models", "model-dir", "catalog", "-wal", "-shm", ".log.1.gz"}
    assert names - kept == {*OURS} - {"ledger.db-wal", "ledger.db-shm"}


@pytest.mark.story
def test_nobody_is_there_to_confirm_it(user: Program) -> None:
    refused = user.run("uninstall", "--all")

    assert refused.code == 2
    assert "--yes" in refused.err
    assert user.home.stack.exists()


@pytest.mark.story
def test_it_works_where_nothing_was_ever_set_up(program: Program) -> None:
    done = program.run("uninstall", "--all", "--yes")

    assert done.code == 0, done.err
    assert done.out == "Nothing of the stack is left.\n"
    assert not program.home.root.exists()
