"""What reaches the terminal or the pipe, whatever the text and whatever the terminal."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mlx_stack.cli.frame.context import wrapped
from mlx_stack.cli.frame.output import Column, Output, write_error, write_error_document
from mlx_stack.errors import Interrupted
from mlx_stack.home import Home

PROGRAM = Path(sys.executable).with_name("mlx-stack")
_ON_A_TERMINAL = (
    "import os, signal, sys; os.login_tty(0); signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.dup2(os.open(os.devnull, os.O_WRONLY), 1);"  # so that no line editor flushes the key away
    "os.execv(sys.argv[1], sys.argv[1:])"
)


def _run(
    *arguments: str | bytes, home: Path, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [PROGRAM, *arguments],
        env={
            **os.environ,
            "MLX_STACK_HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            **(variables or {}),
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )


def test_a_long_question_is_broken_between_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = f"/Users/someone/{'a-long-name/' * 5}"
    question = f"This stops the services and deletes {folder} except for the models. Continue?"

    lines = wrapped(question).splitlines()
    assert " ".join(lines) == question
    assert folder in lines
    assert all(len(line) + len(" [y/N]: ") < 40 for line in lines if line != folder)


def test_an_argument_that_is_no_text_is_answered(tmp_path: Path) -> None:
    done = _run("config", "get", b"\xff\xfe", "--json", home=tmp_path)

    assert done.returncode == 2
    assert "configuration key" in json.loads(done.stdout)["error"]["message"]
    assert b"Traceback" not in done.stderr


@pytest.mark.story
@pytest.mark.parametrize(
    "line", [("models", "--catalog"), ("recommend",), ("--help",), ("recommend", "--json"), ()]
)
def test_a_terminal_that_knows_only_ascii_is_answered(
    line: tuple[str, ...], tmp_path: Path
) -> None:
    mac = ("--hardware", "m4-max:40:64") if line and line[0] in ("models", "recommend") else ()

    done = _run(*line, *mac, home=tmp_path, variables={"PYTHONIOENCODING": "ascii"})

    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    if "--json" in line:
        assert json.loads(done.stdout)["schema_version"] == 1


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {}])
def test_a_pipe_gets_no_colours(
    variables: dict[str, str], say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    for line in ((), ("--help",), ("config", "list"), ("no-such-command",)):
        said = say(*line)
        assert "\033" not in said.out + said.err


def test_the_programs_own_pipe_gets_no_colours(tmp_path: Path) -> None:
    done = _run("config", "list", home=tmp_path)
    assert b"\033" not in done.stdout + done.stderr


def test_a_reader_that_goes_away_is_no_failure_with_a_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(
        [PROGRAM, "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "MLX_STACK_HOME": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_nothing_is_created_by_reading(say: Callable[..., Any], home: Home) -> None:
    for line in ((), ("status",), ("config", "list"), ("models",), ("logs",), ("env",)):
        say(*line)

    assert not home.root.exists()


class _Interruption:
    """Standard input that is interrupted while it is read."""

    def __init__(self, interruption: BaseException) -> None:
        self._interruption = interruption

    def readline(self, _size: int) -> str:
        raise self._interruption


@pytest.mark.parametrize(
    ("interruption", "code", "kind"),
    [(KeyboardInterrupt(), 130, "interrupted"), (Interrupted(), 143, "terminated")],
)
def test_an_interrupted_command_still_answers_with_one_document(
    interruption: BaseException,
    code: int,
    kind: str,
    say: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", _Interruption(interruption))

    said = say("config", "set", "openrouter-key", "-", "--json")

    assert said.code == code
    assert said.document["error"]["type"] == kind
    assert "Traceback" not in said.err


@pytest.mark.parametrize("key", [b"\x03", b"\x04"])
def test_leaving_at_a_question_leaves_a_clean_line(key: bytes, tmp_path: Path) -> None:
    screen, terminal = pty.openpty()
    reset = subprocess.Popen(
        [sys.executable, "-c", _ON_A_TERMINAL, PROGRAM, "config", "reset"],
        env={**os.environ, "MLX_STACK_HOME": str(tmp_path), "NO_COLOR": "1", "TERM": "xterm"},
        stdin=terminal,
    )
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(screen, 1024)
    while reset.poll() is None:
        os.write(screen, key)  # again where it came just before the wait for it, and was lost
        with suppress(subprocess.TimeoutExpired):
            reset.wait(timeout=5)
    assert reset.returncode == 130
    os.close(terminal)
    with suppress(OSError):  # what Linux raises behind the last byte
        while more := os.read(screen, 1024):
            shown += more
    os.close(screen)
    assert b"\r\nerror: interrupted\r\n" in shown


def test_a_closed_stderr_leaves_the_exit_code_and_an_empty_stdout(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", '"$0" config get nope 2>&-', PROGRAM],
        env={**os.environ, "MLX_STACK_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, b"")


def _in_shell(line: str, home: Path) -> subprocess.CompletedProcess[str]:
    """A line for the shell, in which `$0` is the program."""
    return subprocess.run(
        ["/bin/sh", "-c", line, PROGRAM],
        env={**os.environ, "MLX_STACK_HOME": str(home), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.story
@pytest.mark.parametrize(
    "words", ["config set log-max-files -", "config reset", "ask", "setup --model nope --no-start"]
)
def test_a_closed_stdin_has_nothing_to_read(words: str, tmp_path: Path) -> None:
    done = _in_shell(f'"$0" {words} <&-', tmp_path / "home")

    assert done.returncode in (1, 2)
    assert done.stderr.startswith(("error: ", "Looking at the machine"))
    assert "Traceback" not in done.stderr


@pytest.mark.story
@pytest.mark.parametrize(
    ("words", "code"),
    [("--version", 1), ("--help", 1), ("config list --json", 1), ("frobnicate --json", 2)],
)
def test_an_answer_that_nobody_takes_is_a_failure_that_is_told(
    words: str, code: int, tmp_path: Path
) -> None:
    done = _in_shell(f'ulimit -f 0; "$0" {words} >{tmp_path}/answer', tmp_path / "home")

    assert done.returncode == code
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.story
@pytest.mark.parametrize("words", ["--version", "config list", "no-such-command --json"])
@pytest.mark.parametrize("stdout", [">&-", f"1<{os.devnull}"])
def test_an_output_that_is_closed_is_no_traceback(words: str, stdout: str, tmp_path: Path) -> None:
    assert "Traceback" not in _in_shell(f'"$0" {words} {stdout}', tmp_path / "home").stderr


def test_the_exit_code_tells_where_nobody_takes_the_message(tmp_path: Path) -> None:
    line = f'ulimit -f 0; "$0" frobnicate 2>{tmp_path}/message'

    assert _in_shell(line, tmp_path / "home").returncode == 2


def test_a_reader_that_has_gone_hears_nothing_of_a_traceback(tmp_path: Path) -> None:
    assert "Traceback" not in _in_shell('"$0" --version | :', tmp_path).stderr


def test_an_error_that_quotes_a_server_steers_no_terminal(capsys: pytest.CaptureFixture[str]):
    write_error("It said: \x1b]0;owned\x07", "Look at \x9b31mthis\ttab\nand this")
    err = capsys.readouterr().err
    assert not {"\x1b", "\x07", "\x9b"} & set(err)
    assert "\ttab\nand this" in err


_STEERS = "a\x1b]0;owned\x07b\x9b31mc[/b][bold]d\rE"


def test_no_way_to_write_lets_what_others_wrote_steer_the_terminal(
    capsys: pytest.CaptureFixture[str],
):
    output = Output()
    output.answer(_STEERS, (_STEERS, "bold"))
    output.item("✓", _STEERS)
    output.table((Column(_STEERS), Column("x")), [(_STEERS, (_STEERS, "red"))])
    output.text(_STEERS)
    output.piece(_STEERS)
    output.say(_STEERS)
    output.hint(_STEERS)
    written = capsys.readouterr()
    for text in (written.out, written.err):
        assert not {"\x1b", "\x07", "\x9b", "\r"} & set(text)
        assert "[/b][bold]" in text, "it is no markup"


def test_json_holds_what_others_wrote_and_steers_nothing(capsys: pytest.CaptureFixture[str]):
    write_error_document("x", _STEERS, None)
    out = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(out)
    assert json.loads(out)["error"]["message"] == _STEERS


def test_colours_of_a_log_stay(capsys: pytest.CaptureFixture[str]):
    Output().text("\x1b[32mINFO\x1b[0m: \x1b[2Jready")
    assert "INFO: \ufffd[2Jready" in capsys.readouterr().out
