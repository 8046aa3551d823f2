"""From nothing to the first token: an engine by itself, and the same one through the gateway.

    uv run python benchmarks/demand_cold_start.py [--engines HOME] [--rounds 5] [--model FOLDER]

Without `--engines` a stand-in answers, which shows what we add; with it the real engine of a state
folder, and the model in its `models/` (by default the embedded one of `demo --keep`). An engine by
itself is started by procsup and asked as soon as its port accepts a connection, which is looked for
every 2 ms. Prints where that time goes, the time through the gateway for a tier at rest, and how
long after the port's first connection the waiting request got its first token.
"""

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from mlx_procsup import start_service, stop_service
from mlx_stack.credentials import read_gateway_key
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.assembly import tier_service
from mlx_stack.services.engine_door import asker
from mlx_stack.stack import Stack, load_stack, save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

MOST_ADDED_S = 0.3
_LOOK_EVERY_S = 0.002
_WITHIN_S = 300


@dataclass(frozen=True, slots=True)
class Bare:
    """An engine by itself, in seconds from the beginning."""

    spawned: float
    listens: float
    first_token: float


def main() -> int:
    """Measure, print, and exit with 1 where we add more than we may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", type=Path, metavar="HOME")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Home(Path(folder) / "home"), {})
        define_stack(program.home, {"rare": {}}, fields={"rare": {"lazy": True}})
        if options.engines is None:
            install_fake_engines(program.home)
        else:
            program.home.engines.symlink_to(options.engines.absolute() / "engines")
            use_model(program.home, options.engines.absolute() / "models" / options.model)
        imports_s = import_time(program.home) if options.engines else 0.0
        program.run("up")
        try:
            bare = [ask_bare(program.home) for _ in range(options.rounds + 1)][1:]
            through = [ask_through(program) for _ in range(options.rounds + 1)][1:]
        finally:
            program.run("down")
    alone = statistics.median(each.first_token for each in bare)
    whole = statistics.median(first for first, _ in through)
    waited = statistics.median(waited for _, waited in through)
    listens = statistics.median(each.listens for each in bare)
    spawned = statistics.median(each.spawned for each in bare)
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, medians of {options.rounds}\n"
        f"by itself: first token after {alone:.2f} s: spawn {spawned:.2f}, import {imports_s:.2f}, "
        f"load {listens - spawned - imports_s:.2f}, first token {alone - listens:.2f}\n"
        f"through the gateway: first token after {whole:.2f} s ({whole - alone:+.2f}, "
        f"limit +{MOST_ADDED_S:g})\n"
        f"first token {waited * 1000:.0f} ms after the port's first connection; by itself "
        f"{(alone - listens) * 1000:.0f} ms"
    )
    return 0 if whole - alone <= MOST_ADDED_S else 1


def use_model(home: Home, model: Path) -> None:
    """Let the tier serve a real model."""
    stack: Stack = load_stack(home.stack)
    tier = msgspec.structs.replace(
        stack.tiers[0], model=model.name, source=str(model), quant=None, context_tokens=2048
    )
    save_stack(home.stack, msgspec.structs.replace(stack, tiers=(tier,)))


def import_time(home: Home) -> float:
    """How long the engine's Python takes until its program is imported."""
    python = tier_service(OpenStack(home), load_stack(home.stack).tiers[0]).spec.command[0]
    command = (python, "-I", "-c", "import vllm_mlx.cli, vllm_mlx.server")
    seconds: list[float] = []
    for _ in range(2):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return seconds[-1]


def ask_bare(home: Home) -> Bare:
    """Start the engine alone, ask it, and stop it."""
    tier = load_stack(home.stack).tiers[0]
    spec = tier_service(OpenStack(home), tier).spec
    began = time.perf_counter()
    start_service(spec, home.state_dirs)
    spawned = time.perf_counter() - began
    wait_until_listening(tier.port)
    listens = time.perf_counter() - began
    proof = asker(home.state_dirs, tier.name)("POST", "/v1/chat/completions").headers
    first_token(f"127.0.0.1:{tier.port}", tier.model, dict(proof))
    first = time.perf_counter() - began
    stop_service(tier.name, home.state_dirs, wanted=None)
    return Bare(spawned, listens, first)


def ask_through(program: Program) -> tuple[float, float]:
    """Seconds to the first token through the gateway, and how many after the first connection."""
    home, tier = program.home, load_stack(program.home.stack).tiers[0]
    program.run("down", "--tier", tier.name)
    program.run("up")
    listening: list[float] = []

    def watch() -> None:
        wait_until_listening(tier.port)
        listening.append(time.perf_counter())

    watching = threading.Thread(target=watch)
    watching.start()
    url = urlsplit(program.run("env", "--json").document["env"]["OPENAI_BASE_URL"])
    headers = {"Authorization": f"Bearer {read_gateway_key(home)}"}
    began = time.perf_counter()
    first_token(url.netloc, tier.name, headers)
    first = time.perf_counter()
    watching.join()
    return first - began, first - listening[0]


def wait_until_listening(port: int) -> None:
    """Return as soon as something accepts a connection there."""
    ends = time.monotonic() + _WITHIN_S
    while time.monotonic() < ends:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(_LOOK_EVERY_S)
    raise TimeoutError(f"nothing listens on port {port}")


def first_token(address: str, model: str, headers: dict[str, str]) -> None:
    """Ask for a streamed answer and return with its first content."""
    connection = http.client.HTTPConnection(address, timeout=_WITHIN_S)
    body = {
        "model": model,
        "stream": True,
        "max_tokens": 2,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    kind = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {**headers, **kind})
    response = connection.getresponse()
    if response.status != http.client.OK:
        raise RuntimeError(response.read().decode()[:500])
    for line in response:
        if b'"content":' in line and b'"content":""' not in line and b'"content":null' not in line:
            break
    connection.close()


if __name__ == "__main__":
    raise SystemExit(main())
