"""Real clients from PyPI and npm at pinned versions, and what each is told to do in a story.

They are installed by name with `uv` and `npm`, once for each version, into a folder that outlives
the run. What configures them is `mlx-stack connect`.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import uv

INSTALL_TIMEOUT_S = 600
_NOTHING_OF_OURS = ("ANTHROPIC_", "CLAUDE", "CODEX_", "OPENAI_", "OPENCODE", "MLX_STACK_", "XDG_")


@dataclass(frozen=True, slots=True)
class Package:
    """What is installed, and the program in it.

    Attributes:
        names: The packages of a registry, each with its version; those of npm as `name@version`,
            those of PyPI as `name==version`.
        program: The program; `python` and `node` run a script against the packages.
        python: Which Python it takes, where not ours.
    """

    names: tuple[str, ...]
    program: str
    python: str = "3.13"

    @property
    def is_of_npm(self) -> bool:
        """Whether it comes from npm."""
        return "==" not in self.names[0]


PACKAGES: Mapping[str, Package] = {
    "claude-code": Package(("@anthropic-ai/claude-code@2.1.332",), "claude"),
    "codex": Package(("@openai/codex@0.171.0",), "codex"),
    "opencode": Package(("opencode-ai@1.18.33",), "opencode"),
    "continue": Package(("@continuedev/cli@1.5.47",), "cn"),
    "aider": Package(("aider-chat==0.86.2",), "aider", python="<3.13"),
    "llm": Package(("llm==0.36",), "llm"),
    "openai": Package(("openai==3.3.0",), "python"),
    "anthropic": Package(("anthropic==2.14.0",), "python"),
    "langchain": Package(("langchain-openai==1.7.4", "langchain-anthropic==1.7.10"), "python"),
    "pydantic-ai": Package(("pydantic-ai-slim[openai,anthropic]==2.38.0",), "python"),
    "instructor": Package(("instructor[anthropic]==1.17.0",), "python"),
    "cohere": Package(("cohere==7.3.1",), "python"),
    "openai-npm": Package(("openai@7.59.0",), "node"),
    "anthropic-npm": Package(("@anthropic-ai/sdk@1.14.0",), "node"),
}


def install(package: Package, cache: Path) -> Path:
    """The program of a package, installed below `cache` at the first call.

    Raises:
        subprocess.CalledProcessError: When it can't be installed; what it said is shown.
    """
    folder = cache / "+".join(name.replace("/", "_") for name in package.names)
    programs = folder / "node_modules" / ".bin" if package.is_of_npm else folder / "bin"
    program = folder / "node" if package.program == "node" else programs / package.program
    if program.exists():
        return program
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if package.is_of_npm:
        (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
        commands = [["npm", "install", "--prefix", str(folder), *package.names]]
    else:
        uv_program = uv.find_uv_bin()
        commands = [
            [uv_program, "venv", "--quiet", "--clear", "--python", package.python, str(folder)],
            [uv_program, "pip", "install", "--quiet", "--python", str(folder), *package.names],
        ]
    for command in commands:
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_TIMEOUT_S)
    if package.program == "node":
        node = shutil.which("node")
        assert node is not None
        program.symlink_to(node)
    return program


def clean_environment(user: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a user who has set nothing for any client, with `variables` on top."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(_NOTHING_OF_OURS)
    }
    return {**kept, "HOME": str(user), "TERM": "dumb", "NO_COLOR": "1", **variables}


@dataclass(frozen=True, slots=True)
class Agent:
    """How a program is given a prompt without a terminal.

    Attributes:
        arguments: Its arguments; the prompt comes on standard input, but where `{prompt}` stands.
        tool: The call of one of its tools that runs `command` in a shell, and its arguments.
    """

    arguments: tuple[str, ...]
    tool: Callable[[str], dict[str, object]] | None

    def calling_its_tool(self, command: str) -> str:
        """The script in which the model runs a command by the program's own tool."""
        assert self.tool is not None
        return (
            f"Repeat: I look.\n<tool_call>\n{json.dumps(self.tool(command))}\n</tool_call>\nOver."
        )


def _bash(command: str) -> dict[str, object]:
    return {"name": "Bash", "arguments": {"command": command, "description": "look"}}


AGENTS: Mapping[str, Agent] = {
    "claude-code": Agent(("-p", "--allowedTools", "Bash"), _bash),
    "codex": Agent(
        (
            *("exec", "--strict-config", "--profile", "mlx-stack", "--skip-git-repo-check"),
            *("--sandbox", "danger-full-access", "-"),
        ),
        lambda command: {"name": "exec_command", "arguments": {"cmd": command}},
    ),
    "opencode": Agent(
        ("run",),
        lambda command: {
            "name": "bash",
            "arguments": {"command": command, "description": "look"},
        },
    ),
    "continue": Agent(("-p", "--auto", "{prompt}"), _bash),
    "llm": Agent(("-m", "mlx-stack/standard", "--functions", "{functions}"), None),
    "aider": Agent(("--yes-always", "--no-git", "--message-file", "{file}"), None),
}
