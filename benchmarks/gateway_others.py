"""Other gateways for `gateway_relay.py --others FOLDER`: exact versions, and how each is started.

    uv run python benchmarks/gateway_others.py FOLDER

installs them there with uv and npm, each into its own folder, and names those that can't be.
Each is started as its documentation says, in front of one engine that speaks OpenAI's API.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

KEY = "sk-a-key-of-the-benchmark-0123456789"
"""What clients of every gateway give."""
LITELLM_LOCK = (
    Path(__file__).parents[1] / "packages/mlx-stack/src/mlx_stack/engines/locks/litellm.txt"
)
INSTALL_WITHIN_S = 600


@dataclass(frozen=True, slots=True)
class Start:
    """How a gateway is started.

    Attributes:
        arguments: After its program.
        model: The name that clients ask for.
        environment: Variables besides the usual ones.
        headers: What requests carry besides the usual.
    """

    arguments: list[str]
    model: str = "fake"
    environment: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Other:
    """Another gateway.

    Attributes:
        name: Its name and version in tables.
        package: What uv or npm is asked to install, with its exact version.
        program: Where that puts its program, in the folder that it is installed into.
        start: How it is started, given a folder for its settings, a port, and an engine's root.
    """

    name: str
    package: tuple[str, ...]
    program: str
    start: Callable[[Path, int, str], Start]

    def install(self, into: Path) -> Path:
        """Its program, installed unless it is there.

        Raises:
            subprocess.SubprocessError: When it can't be installed.
        """
        folder = into / self.name.replace(" ", "-")
        program = folder / self.program
        if not program.exists():
            if self.program.startswith("node_modules/"):
                run("npm", "install", "--no-audit", "--no-fund", "--prefix", folder, *self.package)
            else:
                run("uv", "venv", "--clear", "--python", sys.executable, folder)
                run("uv", "pip", "install", "--python", folder / "bin/python", *self.package)
        return program


def run(*command: object) -> None:
    """Run it, and say nothing unless it fails."""
    words = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=INSTALL_WITHIN_S)


def start_litellm(folder: Path, port: int, engine: str) -> Start:
    """LiteLLM with one worker."""
    config = folder / "litellm.yaml"
    parameters = {"model": "openai/fake", "api_base": f"{engine}/v1", "api_key": "none"}
    model = {"model_name": "fake", "litellm_params": parameters}
    config.write_text(json.dumps({"model_list": [model]}))
    return Start(
        ["--config", str(config), "--port", str(port), "--host", "127.0.0.1"],
        environment={
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MASTER_KEY": KEY,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        },
    )


def start_lm_proxy(folder: Path, port: int, engine: str) -> Start:
    """LM-Proxy."""
    connection = {"api_type": "open_ai", "api_base": f"{engine}/v1", "api_key": "none"}
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "connections": {"engine": connection},
        "routing": {"*": "engine.fake"},
        "groups": {"default": {"api_keys": [KEY]}},
    }
    config = folder / "config.json"
    config.write_text(json.dumps(settings))
    return Start(["--config", str(config)])


def start_vllm_router(folder: Path, port: int, engine: str) -> Start:  # noqa: ARG001
    """vllm-router, a load balancer: it knows no keys, names or fallbacks of models."""
    return Start(
        [
            *("--host", "127.0.0.1", "--port", str(port), "--worker-urls", engine),
            *("--policy", "round_robin", "--log-level", "error"),
        ]
    )


def start_portkey(folder: Path, port: int, engine: str) -> Start:  # noqa: ARG001
    """Portkey, which gets the engine in each request."""
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"{engine}/v1"}
    return Start([f"--port={port}", "--headless"], headers=headers)


def start_bare_relay(folder: Path, port: int, engine: str) -> Start:  # noqa: ARG001
    """The least that any gateway does."""
    return Start([str(Path(__file__).with_name("bare_relay.py")), str(port), engine])


def start_nothing(folder: Path, port: int, engine: str) -> Start:
    """For what was never seen to install."""
    raise NotImplementedError


RELAY_NEEDS = (
    "uvicorn==0.54.0",
    "uvloop==0.23.0",
    "httptools==0.9.0",
    "aiohttp==3.14.5",
)
OTHERS = (
    Other("a bare relay", RELAY_NEEDS, "bin/python", start_bare_relay),
    Other("LiteLLM 1.109.1", ("--no-deps", "-r", str(LITELLM_LOCK)), "bin/litellm", start_litellm),
    Other("LM-Proxy 3.3.2", ("lm-proxy==3.3.2",), "bin/lm-proxy", start_lm_proxy),
    Other("vllm-router 0.1.17", ("vllm-router==0.1.17",), "bin/vllm-router", start_vllm_router),
    Other("Portkey 1.15.2", ("@portkey-ai/gateway@1.15.2",), "node_modules/.bin/gateway",
          start_portkey),
    Other("openai-forward 0.8.1", ("openai-forward==0.8.1",), "bin/aifd", start_nothing),
)  # fmt: skip


def installed(folder: Path) -> dict[Other, Path]:
    """The programs of those that can be installed; the others are named."""
    programs: dict[Other, Path] = {}
    for other in OTHERS:
        if os.environ.get("ONLY", other.name) != other.name:
            continue
        try:
            programs[other] = other.install(folder)
        except (OSError, subprocess.SubprocessError) as error:
            said = str(getattr(error, "stderr", "") or error).splitlines()
            why = [line.strip() for line in said if "error" in line.lower()]
            print(f"{other.name} does not install here: {(why or said)[-1]}")
    return programs


if __name__ == "__main__":
    for each, path in installed(Path(sys.argv[1])).items():
        print(f"{each.name}: {path}")
