"""The program `mlx-gateway` as a process, in front of engines."""

import json
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from mlx_procsup.testing import eventually
from mlx_stack.services.ports import free_ports
from stack_testkit.program import Program


@contextmanager
def running_gateway(folder: Path, models: Mapping[str, object], *, key: str) -> Generator[str]:
    """The program with these models, its settings in `folder`; its URL once it answers."""
    port = free_ports(1)[0]
    config = folder / "gateway.yaml"
    config.write_text(json.dumps({"schema_version": 1, "port": port, "models": models}))
    program = Path(sys.executable).with_name("mlx-gateway")
    with subprocess.Popen(
        (program, "serve", "--config", config), env={**os.environ, "MLX_GATEWAY_KEY": key}
    ) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            assert eventually(lambda: _answers(url), within_s=60)
            yield url
        finally:
            process.terminate()


def client_of(program: Program, timeout_s: float = 240) -> httpx.Client:
    """A client of the gateway of a stack that is up, with its key."""
    variables: dict[str, str] = program.run("env", "--json").document["env"]
    return httpx.Client(
        base_url=variables["OPENAI_BASE_URL"],
        headers={"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"},
        timeout=timeout_s,
        trust_env=False,
    )


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/liveliness").is_success
    except httpx.TransportError:
        return False
