"""What the documentation recommends to clients, done by the real libraries."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mlx_catalog import yaml12
from mlx_stack.stack import load_stack, save_stack
from stack_testkit.home import define_stack
from stack_testkit.program import Program
from stack_testkit.real_clients import clean_environment
from stack_testkit.sdk_stories import SCRIPTS

pytestmark = pytest.mark.story


class _Page(msgspec.Struct):
    aliases: dict[str, str]


PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "connect-clients.md"


def blocks(language: str) -> list[str]:
    """The code of one language on the page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture
def recommended(served: Program) -> Program:
    """A stack with the aliases of the page, up."""
    define_stack(served.home, {"standard": {}, "fast": {}})
    (block,) = blocks("yaml")
    aliases = msgspec.convert(yaml12.read(block), _Page).aliases
    stack = msgspec.structs.replace(load_stack(served.home.stack), aliases=aliases)
    save_stack(served.home.stack, stack)
    assert served.run("up").code == 0
    return served


def run_python(program: Program, script: str, **variables: str) -> str:
    known = program.run("env", "--json").document["env"]
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(program.home.root, {**known, **variables}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_tool_is_called_and_its_result_comes_back_under_every_recommended_alias(
    recommended: Program,
) -> None:
    aliases = load_stack(recommended.home.stack).aliases
    assert aliases, "the page recommends some"
    for alias in aliases:
        for library in ("openai", "anthropic"):
            prompt = 'Call weather {"city": "Paris"}'
            out = run_python(recommended, SCRIPTS[library], MODEL=alias, PROMPT=prompt)
            assert json.loads(out) == {"said": "Seen: sunny in Paris"}, (alias, library)


def test_the_program_on_the_page_prints_an_answer(recommended: Program) -> None:
    (script,) = blocks("python")

    assert run_python(recommended, script) == "You said: Why is the sky blue?\n"
