"""`ask` and `env`: what a client meets."""

import json

from stack_testkit.home import define_stack
from stack_testkit.program import Program


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
