"""The clients that people use, on the installed product with the real engine: five stories each.

What configures them is what `connect` wrote. The model is the scripted one, so that each answer is
known before it is asked for. `MLX_STACK_TEST_SILENCE_S` is how long the engine says nothing before
the first token of the story of a long prefill: 12 seconds, in the nightly 90.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlx_procsup.testing import eventually
from mlx_stack.config import save_values
from mlx_stack.engines.environment import Environment
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, save_stack
from stack_testkit.home import allow_code
from stack_testkit.program import Program
from stack_testkit.real_clients import AGENTS, PACKAGES, clean_environment, install
from stack_testkit.sdk_stories import SCRIPTS

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]

SILENCE_S = float(os.environ.get("MLX_STACK_TEST_SILENCE_S", "12"))
CONTEXT_TOKENS = 32_768
TOO_LONG = "7 " * 40_000
"""More tokens than the context has: each digit is one."""
PATIENCE_S = 120 + 2 * SILENCE_S
WITH_TOOLS = [name for name, agent in AGENTS.items() if agent.tool is not None]
WORDS = " ".join(f"w{number}" for number in range(30))
SLOWLY = f"Wait 0.3 s. Repeat: {WORDS}\nOver."
"""A script of half a minute and more, so that the engine can be killed in its middle."""
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
OPENAI_LIKE = [name for name in SCRIPTS if name != "instructor"]


@dataclass(frozen=True)
class Said:
    """What a client printed: its answer, and what else it had to say.

    Some repeat the prompt with the latter.
    """

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Product:
    """The stack, up, and a user's home."""

    program: Program
    user: Path
    cache: Path

    def command(self, client: str, prompt: str) -> list[str]:
        """The command line that gives a prompt to an agent; it reads the prompt where it can."""
        values = {"{prompt}": prompt, "{file}": str(self._file("prompt.txt", prompt))}
        values["{functions}"] = str(self._file("functions.py", _FUNCTIONS))
        arguments = (values.get(each, each) for each in AGENTS[client].arguments)
        return [str(install(PACKAGES[client], self.cache)), *arguments]

    def ask(self, client: str, prompt: str, *more: str) -> Said:
        """What an agent says to a prompt."""
        return _finish(self.start(client, prompt, *more), prompt)

    def start(self, client: str, prompt: str, *more: str) -> subprocess.Popen[str]:
        """The agent, started; the prompt goes to its standard input."""
        return _start([*self.command(client, prompt), *more], self.user, {})

    def start_script(
        self, library: str, prompt: str, model: str = "standard"
    ) -> subprocess.Popen[str]:
        """The script of a library, started with what `env` says."""
        package = PACKAGES[library]
        program = install(package, self.cache)
        if package.program == "node":
            script = program.with_name("story.mjs")
            script.write_text(SCRIPTS[library])
            command = [str(program), str(script)]
        else:
            command = [str(program), "-c", SCRIPTS[library]]
        variables = self.program.run("env", "--json").document["env"]
        return _start(command, self.user, {**variables, "MODEL": model, "PROMPT": prompt})

    def run_script(self, library: str, prompt: str, model: str = "standard") -> dict[str, Any]:
        """What the script of a library printed."""
        return _document(_finish(self.start_script(library, prompt, model), ""))

    def kill_while_it_answers(self, tier: str, for_s: float = 4.0) -> None:
        """Kill the engine of a tier some seconds after a request reached it."""
        variables = self.program.run("env", "--json").document["env"]
        headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
        url = f"{variables['ANTHROPIC_BASE_URL']}/metrics"
        running = f'mlx_gateway_requests_running{{model="{tier}"}} 1.0'
        pid = int((self.program.home.pids / f"{tier}.pid").read_text())
        assert eventually(lambda: running in httpx.get(url, headers=headers).text, PATIENCE_S)
        time.sleep(for_s)  # the middle of an answer, which nothing announces
        os.kill(pid, signal.SIGKILL)

    def _file(self, name: str, content: str) -> Path:
        path = self.user / name
        path.write_text(content)
        return path


_FUNCTIONS = '''
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}"
'''


def _start(command: list[str], user: Path, variables: dict[str, str]) -> subprocess.Popen[str]:
    work = user / "work"
    work.mkdir(exist_ok=True)
    return subprocess.Popen(
        command,
        cwd=work,
        env=clean_environment(user, variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _finish(process: subprocess.Popen[str], prompt: str) -> Said:
    try:
        out, err = process.communicate(prompt, timeout=PATIENCE_S)
    finally:
        process.kill()
    sys.stdout.write(out + err)  # shown where the test fails
    return Said(process.returncode, out, err)


def _document(said: Said) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(said.out.strip().splitlines()[-1])
    return document


@pytest.fixture(scope="module")
def product(
    engines_home: Path,
    vllm_mlx_environment: Environment,
    scripted_model: Path,
    pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Product]:
    """Two tiers of the scripted model, up, and every agent connected to them."""
    assert vllm_mlx_environment.state == "ready"
    folder = tmp_path_factory.mktemp("clients")
    home = Home(folder / "home")
    home.create()
    home.engines.symlink_to(engines_home / "engines")
    allow_code(scripted_model)
    *ports, gateway_port = free_ports(3)
    flags = {"tool-call-parser": "hermes", "enable-auto-tool-choice": True}
    tiers = tuple(
        Tier(
            name=name,
            model=f"scripted-{name}",
            quant=None,
            source=str(scripted_model),
            port=port,
            vllm_flags=flags,
            context_tokens=CONTEXT_TOKENS,
        )
        for name, port in zip(("standard", "fast"), ports, strict=True)
    )
    # the aliases that the documentation recommends
    aliases = {"gpt-4o": "standard", "claude-haiku-4-5": "fast"}
    save_stack(home.stack, Stack(schema_version=1, tiers=tiers, aliases=aliases))
    save_values(home, {"litellm-port": gateway_port})
    user = folder / "user"
    user.mkdir()
    variables = {"HOME": str(user), "XDG_CONFIG_HOME": "", "CODEX_HOME": "", "LLM_USER_PATH": ""}
    program = Program(home, {**variables, "CLAUDE_CONFIG_DIR": ""})
    try:
        _up(program)
        for client in AGENTS:
            done = program.run("connect", client, "--json")
            assert done.code == 0, done.out
        yield Product(program, user, Path(pytestconfig.cache.mkdir("clients")))
    finally:
        program.run("down", timeout_s=60)


def _up(program: Program) -> None:
    started = program.run("up", "--timeout", "300", "--json", timeout_s=400)
    assert started.code == 0, started.out + started.err


@pytest.fixture
def stack(product: Product) -> Product:
    """The running product, whole again after whatever the test before did to it."""
    _up(product.program)
    return product


@pytest.mark.parametrize("client", AGENTS)
def test_an_agent_prints_the_answer(stack: Product, client: str) -> None:
    said = stack.ask(client, "Repeat: one fine answer\nOver.")

    assert (said.code, "one fine answer" in said.out) == (0, True)


@pytest.mark.parametrize("client", WITH_TOOLS)
def test_an_agent_runs_its_tool_and_hands_the_result_back(stack: Product, client: str) -> None:
    said = stack.ask(client, AGENTS[client].calling_its_tool("echo from the $((6*7)) tool"))

    assert (said.code, "Seen:" in said.out, "from the 42 tool" in said.out) == (0, True, True)


def test_llm_calls_a_function_and_hands_the_result_back(stack: Product) -> None:
    said = stack.ask("llm", f"Repeat: I look. {CALL}\nOver.")

    assert (said.code, "Seen: sunny in Paris" in said.out) == (0, True)


def test_aider_writes_the_file_that_the_model_wrote(stack: Product) -> None:
    said = stack.ask("aider", "Repeat: new.py\n```\nprint(42)\n```\nOver.")

    assert said.code == 0
    assert (stack.user / "work" / "new.py").read_text().strip() == "print(42)"


@pytest.mark.parametrize("client", AGENTS)
def test_an_agent_waits_through_a_long_prefill(stack: Product, client: str) -> None:
    begun = time.monotonic()

    said = stack.ask(client, f"Read for {SILENCE_S:g} s. Repeat: after a while\nOver.")

    assert (said.code, "after a while" in said.out) == (0, True)
    assert time.monotonic() - begun >= SILENCE_S


@pytest.mark.parametrize("client", [name for name in AGENTS if name != "continue"])
def test_an_agent_says_that_the_prompt_is_too_long(stack: Product, client: str) -> None:
    said = stack.ask(client, TOO_LONG)

    words = ("too long", "ran out of room in the model's context window")
    assert any(each in said.out + said.err for each in words)


@pytest.mark.parametrize("client", AGENTS)
def test_an_agent_survives_an_engine_that_is_killed_in_the_middle(
    stack: Product, client: str
) -> None:
    """It asks again and another tier answers to the end; llm doesn't, and says what failed."""
    process = stack.start(client, SLOWLY)
    assert process.stdin is not None
    process.stdin.write(SLOWLY)
    process.stdin.close()
    process.stdin = None
    stack.kill_while_it_answers("standard")

    said = _finish(process, "")

    if client == "llm":
        assert "The answer was cut off" in said.err
    else:
        assert WORDS in said.out


@pytest.mark.parametrize("library", OPENAI_LIKE)
def test_a_library_gets_the_answer(stack: Product, library: str) -> None:
    assert stack.run_script(library, "Repeat: one fine answer") == {"said": "one fine answer"}


@pytest.mark.parametrize("model", ["standard", "gpt-4o", "claude-haiku-4-5"])
@pytest.mark.parametrize("library", OPENAI_LIKE)
def test_a_library_calls_a_function_under_every_name_of_a_model(
    stack: Product, library: str, model: str
) -> None:
    got = stack.run_script(library, f"Repeat: I look. {CALL}", model)

    assert got == {"said": "Seen: sunny in Paris"}


def test_instructor_gets_an_object(stack: Product) -> None:
    call = '<tool_call>\n{"name": "City", "arguments": {"city": "Paris"}}\n</tool_call>'

    assert stack.run_script("instructor", f"Repeat: {call}") == {"said": "Paris"}


@pytest.mark.parametrize("library", OPENAI_LIKE)
def test_a_library_waits_through_a_long_prefill(stack: Product, library: str) -> None:
    got = stack.run_script(library, f"Read for {SILENCE_S:g} s. Repeat: after a while")

    assert got == {"said": "after a while"}


@pytest.mark.parametrize("library", OPENAI_LIKE)
def test_a_library_says_that_the_prompt_is_too_long(stack: Product, library: str) -> None:
    got = stack.run_script(library, TOO_LONG)

    assert "too long" in got["message"]


@pytest.mark.parametrize("library", OPENAI_LIKE)
def test_a_library_raises_an_error_where_the_engine_is_killed_in_the_middle(
    stack: Product, library: str
) -> None:
    process = stack.start_script(library, SLOWLY)
    stack.kill_while_it_answers("standard")

    got = _document(_finish(process, ""))

    assert got.get("failed") or got["said"].endswith("w29"), "half an answer is no answer"


@pytest.mark.parametrize("model", ["standard", "claude-haiku-4-5"])
def test_claude_code_works_under_the_names_that_the_documentation_recommends(
    stack: Product, model: str
) -> None:
    script = AGENTS["claude-code"].calling_its_tool("echo from the $((6*7)) tool")

    said = stack.ask("claude-code", script, "--model", model)

    assert (said.code, "Seen: from the 42 tool" in said.out) == (0, True)


def test_claude_code_knows_the_context_and_lets_the_fast_tier_help(stack: Product) -> None:
    call = '{"name": "Agent", "arguments": {"description": "say", "prompt": "hello"}}'

    said = stack.ask("claude-code", f"Repeat: <tool_call>\n{call}\n</tool_call>\nOver.", *_JSON)

    models: dict[str, dict[str, int]] = _document(said)["modelUsage"]
    assert {name: usage["contextWindow"] for name, usage in models.items()} == {
        "standard": CONTEXT_TOKENS,
        "fast": CONTEXT_TOKENS,
    }


_JSON = ("--output-format", "json")


@pytest.mark.parametrize(
    ("client", "tokens"), [("claude-code", 20_000), ("codex", 15_000), ("opencode", 15_000)]
)
def test_what_an_agent_begins_with_is_no_more_than_connect_makes_room_for(
    stack: Product, client: str, tokens: int
) -> None:
    read = _counter(stack, client)
    before = read()
    stack.ask(client, "Repeat: hello\nOver.")

    assert eventually(lambda: read() > before, 10)  # the ledger is written in batches
    assert 1_000 < read() - before <= tokens


def _counter(stack: Product, client: str) -> Callable[[], int]:
    def read() -> int:
        rows = stack.program.run("usage", "--by", "key", "--json").document["rows"]
        return next((int(row["prompt_tokens"]) for row in rows if row["key"] == client), 0)

    return read
