"""What the shell offers after TAB."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete

from mlx_stack.cli.root import root
from mlx_stack.home import Home
from mlx_stack.stack import Stack, Tier, save_stack


def _offered(line: str) -> list[str]:
    *words, incomplete = line.split(" ")
    complete = ShellComplete(root, {}, "mlx-stack", "_MLX_STACK_COMPLETE")
    return [item.value for item in complete.get_completions(words, incomplete)]


@pytest.fixture
def stack(home: Home) -> Home:
    tier = Tier(
        name="standard", model="qwen3-8b", quant="int4", source="/m", port=8000, vllm_flags={}
    )
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))
    home.logs.mkdir()
    (home.logs / "gateway.log").touch()
    return home


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("st", ["status"]),
        ("up --t", ["--tier", "--timeout"]),
        ("up --tier ", ["standard"]),
        ("init --remove st", ["standard"]),
        ("bench ", ["standard"]),
        ("pull qwen3-8", ["qwen3-8b"]),
        ("estimate qwen3-8", ["qwen3-8b"]),
        ("setup --model qwen3-8", ["qwen3-8b"]),
        ("config get litellm-", ["litellm-port"]),
        ("config set memory", ["memory-budget-pct"]),
        ("logs g", ["gateway"]),
        ("connect claude", ["claude-code"]),
        ("engines r", ["rollback"]),
        ("engines verify l", ["litellm"]),
        ("env --shell f", ["fish"]),
    ],
)
def test_names_are_completed(line: str, offered: list[str], stack: Home) -> None:
    assert stack.stack.exists()
    assert _offered(line) == offered


def test_a_damaged_file_offers_nothing_and_says_nothing(
    stack: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.stack.write_bytes(b"\xff")
    stack.catalog.mkdir()
    (stack.catalog / "x.yaml").write_text("[")

    assert _offered("up --tier ") == _offered("pull qwen") == []
    assert capsys.readouterr() == ("", "")


def test_a_line_that_is_not_finished_is_no_error(
    stack: Home, capsys: pytest.CaptureFixture[str]
) -> None:
    assert stack.stack.exists()
    assert _offered("init --as ") == []
    assert _offered("init --as x --remove ") == ["standard"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_every_shell_is_printed(shell: str) -> None:
    program = Path(sys.executable).with_name("mlx-stack")
    done = subprocess.run(
        [program, "completion", shell], capture_output=True, text=True, check=True
    )

    assert "_MLX_STACK_COMPLETE" in done.stdout
