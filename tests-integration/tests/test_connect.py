"""`ask` and `env`: what a client meets."""

import json
import os
import pty
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mlx_bench.roles.pictures import data_url, png
from mlx_stack.ask import ModelAnswer
from stack_testkit.home import define_stack
from stack_testkit.program import Program

pytestmark = pytest.mark.story


def test_ask_prints_the_answer_and_nothing_else(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")

    asked = served.run("ask", "how are you")

    assert asked.code == 0, asked.err
    assert asked.out == "You said: how are you\n"
    assert asked.err == ""


def test_ask_reads_the_question_from_a_pipe_and_reports_as_json(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up")

    asked = served.run("ask", "--tier", "fast", "--json", stdin="hello there\n")

    assert asked.code == 0, asked.err
    assert asked.document["answer"] == "You said: hello there"
    assert asked.document["model"] == "fast"
    assert asked.document["completion_tokens"] == 4


def test_ask_takes_up_files_what_is_piped_in_and_what_was_said_before(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})
    served.run("up")
    notes = tmp_path / "notes.txt"
    notes.write_text("three")

    first = served.run("ask", "one", "-m", "fast-model", "--file", str(notes), stdin="two")
    again = served.run("ask", "-c", "--system", "Be brief.", "--json", "four")
    kept = json.loads(served.home.conversation.read_text())

    assert first.out == "You said: one two notes.txt: three\n"
    assert again.document["model"] == "fast-model"
    assert [each["role"] for each in kept["messages"]] == ["system", *["user", "assistant"] * 2]
    assert served.home.conversation.stat().st_mode & 0o777 == 0o600
    assert served.run("ask", "--tier", "fast", "-m", "fast", "hi").code == 2


def test_ask_shows_a_picture_to_a_tier_that_sees_and_to_no_other(
    served: Program, tmp_path: Path
) -> None:
    define_stack(served.home, {"standard": {}, "sight": {}})
    folder = served.home.models / "sight-model"
    vision = {"model_type": "qwen3_vl", "text_config": {}, "vision_config": {"depth": 2}}
    (folder / "config.json").write_text(json.dumps(vision))
    served.run("up")
    picture, text = tmp_path / "dot.png", tmp_path / "dot.txt"
    shown = png(1, [(255, 0, 0)])
    picture.write_bytes(shown)
    text.write_text("no picture")

    seen = served.run("ask", "What is it?", "--tier", "sight", "--image", str(picture))
    unseen = served.run(
        "ask", "What is it?", "--tier", "standard", "--image", str(picture), "--json"
    )
    wrong = served.run("ask", "What is it?", "--tier", "sight", "--image", str(text), "--json")
    os.truncate(picture, 60 * 2**20)
    large = served.run("ask", "What is it?", "--tier", "sight", "--image", str(picture), "--json")

    assert seen.code == 0, seen.err
    assert "What is it?" in seen.out
    assert data_url(shown) in seen.out
    assert unseen.code == 1
    assert "image" in unseen.document["error"]["message"]
    assert wrong.code == 2
    assert large.code == 2
    assert "has 60 MB; the limit is 20 MB" in large.document["error"]["message"]


def test_on_a_terminal_without_a_question_ask_is_a_chat(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    screen, terminal = pty.openpty()

    chat = subprocess.Popen(
        served.command("ask"),
        env=served.environment,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    os.write(screen, b"one two\nthree\n\x04")
    answers, _ = chat.communicate(timeout=30)
    os.close(screen)
    os.close(terminal)

    assert chat.returncode == 0
    assert b"You said: one two\n" in answers
    assert b"You said: three\n" in answers
    assert len(json.loads(served.home.conversation.read_text())["messages"]) == 4
    assert served.home.chat_history.stat().st_mode & 0o777 == 0o600


def test_an_answer_says_how_fast_it_was_and_whether_it_was_cut_off() -> None:
    answer = ModelAnswer("q", "m", "a", "", None, 1.0, 3.0, 41, "length")

    assert answer.generation_tps == 20.0
    assert answer.is_cut_off
    assert not replace(answer, finish_reason="stop").is_cut_off
    assert replace(answer, completion_tokens=1).generation_tps is None


def test_ask_without_a_running_gateway_says_how_to_start_it(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    served.run("down")

    asked = served.run("ask", "hello", "--json")

    assert asked.code == 1
    assert "mlx-stack up" in asked.document["error"]["hint"]


def test_ask_for_a_tier_that_is_not_defined_names_those_that_are(served: Program) -> None:
    define_stack(served.home, {"standard": {}, "fast": {}})

    asked = served.run("ask", "hello", "--tier", "quick")

    assert asked.code == 2
    assert "standard, fast" in asked.err


def test_env_prints_what_a_shell_can_evaluate(served: Program) -> None:
    define_stack(served.home, {"standard": {}})
    served.run("up")
    key = json.loads(served.home.credentials.read_text())["gateway_key"]
    url = served.run("status", "--json").document["gateway_url"]

    lines = served.run("env").out.splitlines()

    assert f"export OPENAI_BASE_URL={url}" in lines
    assert f"export OPENAI_API_KEY={key}" in lines
    assert served.run("env", "--json").document["env"]["OPENAI_API_KEY"] == key
    assert f"set -gx OPENAI_API_KEY '{key}'" in served.run("env", "--shell", "fish").out


def test_env_before_the_first_up_has_no_key_and_creates_nothing(program: Program) -> None:
    done = program.run("env", "--json")

    assert done.code == 0
    assert done.document["env"]["OPENAI_BASE_URL"] == "http://127.0.0.1:4000/v1"
    assert done.document["env"]["OPENAI_API_KEY"] is None
    assert not program.home.root.exists()
