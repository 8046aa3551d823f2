"""What the gateway costs and whether it loses anything: the real LiteLLM before the fake engine.

    uv run python benchmarks/gateway.py [latency] [load] [fallback] [start]

`latency`   added by the gateway against the engine directly, at 1, 8 and 32 concurrent streams
`load`      10,000 requests at 32 concurrent: none lost, none answered twice, memory growth
`fallback`  seconds until another tier has answered for a killed and for a hung one
`start`     until the gateway is ready, against LiteLLM's own bare start
"""

import argparse
import asyncio
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from mlx_stack.engines.environment import EngineName, require_environment, use_environment
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain
from mlx_stack.gateway import litellm
from mlx_stack.gateway.endpoint import gateway_endpoint
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import load_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

TOKENS = 8
STREAMS = (1, 8, 32)
ROUNDS = 5
LOAD_REQUESTS = 10_000
LOAD_CONCURRENCY = 32


@dataclass(frozen=True, slots=True)
class Target:
    """An endpoint to ask: its base URL, its key, and a model name there."""

    base_url: str
    key: str
    model: str


@contextmanager
def running_stack() -> Iterator[Program]:
    """Two tiers of the fake engine behind the real LiteLLM, in a home of their own."""
    with tempfile.TemporaryDirectory(prefix="gateway-benchmark-") as folder:
        home = Home(Path(folder) / "home")
        install_fake_engines(home)
        fake = require_environment(home.engines, EngineName.LITELLM)
        shutil.rmtree(fake.path)
        real = install(EngineName.LITELLM, home.engines, own_toolchain())
        use_environment(home.engines, real)
        define_stack(home, {"standard": {}, "fast": {}})
        program = Program(home, {})
        started = program.run("up", "--timeout", "300", timeout_s=400)
        print(started.out, started.err, sep="", end="")
        try:
            yield program
        finally:
            program.run("down")


def targets(home: Home) -> tuple[Target, Target]:
    """The engine of the first tier directly, and the same tier through the gateway."""
    tier = load_stack(home.stack).tiers[0]
    endpoint = gateway_endpoint(OpenStack(home))
    direct = Target(f"http://127.0.0.1:{tier.port}/v1", "none", tier.model)
    return direct, Target(endpoint.base_url, endpoint.key or "", tier.name)


async def stream_once(client: httpx.AsyncClient, target: Target, words: str) -> tuple[float, str]:
    """Seconds until the first and the whole answer of one streamed request."""
    body = {
        "model": target.model,
        "messages": [{"role": "user", "content": words}],
        "stream": True,
    }
    began = time.perf_counter()
    first = 0.0
    text = ""
    headers = {"Authorization": f"Bearer {target.key}"}
    url = f"{target.base_url}/chat/completions"
    async with client.stream("POST", url, json=body, headers=headers) as response:
        response.raise_for_status()
        async for line in response.aiter_lines():
            if '"content"' in line and not first:
                first = time.perf_counter() - began
            text += line
    return first, text


async def concurrently(count: int, limit: int, make: Callable[[int], Awaitable[None]]) -> None:
    """Run `make(0) … make(count - 1)`, at most `limit` at a time."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await make(number)

    await asyncio.gather(*(worker() for _ in range(limit)))


def measure_latency(home: Home) -> None:
    """Time to the first piece, directly and through the gateway, alternating."""
    words = " ".join("word" for _ in range(TOKENS))
    direct, through = targets(home)

    async def sample(target: Target, streams: int) -> list[float]:
        seconds: list[float] = []
        limits = httpx.Limits(max_connections=streams)
        async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:

            async def ask(_: int) -> None:
                seconds.append((await stream_once(client, target, words))[0])

            await concurrently(streams * 8, streams, ask)
        return seconds

    print(f"{'streams':>8} {'':>10} {'p50 ms':>8} {'p95 ms':>8}")
    for streams in STREAMS:
        asyncio.run(sample(through, streams))  # warm
        rows: dict[str, list[float]] = {"direct": [], "gateway": []}
        for _ in range(ROUNDS):
            rows["direct"] += asyncio.run(sample(direct, streams))
            rows["gateway"] += asyncio.run(sample(through, streams))
        quantiles = {name: spread(values) for name, values in rows.items()}
        for name, (p50, p95) in quantiles.items():
            print(f"{streams:>8} {name:>10} {p50 * 1e3:>8.1f} {p95 * 1e3:>8.1f}")
        added = [quantiles["gateway"][i] - quantiles["direct"][i] for i in range(2)]
        print(f"{streams:>8} {'added':>10} {added[0] * 1e3:>8.1f} {added[1] * 1e3:>8.1f}")


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile."""
    return statistics.median(values), statistics.quantiles(values, n=20)[18]


def measure_load(home: Home) -> None:
    """Every one of many requests must come back exactly once, with its own answer."""
    _, through = targets(home)
    gateway = psutil.Process(int((home.pids / "gateway.pid").read_text()))
    log = home.logs / "standard.log"
    before = log.read_text().count("POST")
    memory_mb = [gateway.memory_info().rss / 1e6]
    answered = [0] * LOAD_REQUESTS

    async def run() -> None:
        limits = httpx.Limits(max_connections=LOAD_CONCURRENCY)
        async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as client:

            async def ask(number: int) -> None:
                _, text = await stream_once(client, through, f"number {number}.")
                answered[number] += f"{number}." in text
                if number % (LOAD_REQUESTS // 10) == 0:
                    memory_mb.append(gateway.memory_info().rss / 1e6)

            await concurrently(LOAD_REQUESTS, LOAD_CONCURRENCY, ask)

    began = time.perf_counter()
    asyncio.run(run())
    seconds = time.perf_counter() - began
    reached = log.read_text().count("POST") - before
    rate = LOAD_REQUESTS / seconds
    print(f"{LOAD_REQUESTS} requests, {LOAD_CONCURRENCY} at a time: {seconds:.0f} s, {rate:.0f}/s")
    print(f"with their own answer: {sum(answered)}; reached the engine: {reached}")
    print("gateway memory in MB:", " ".join(f"{value:.0f}" for value in memory_mb))


def measure_fallback(home: Home) -> None:
    """Stop and kill the first tier; the second must answer."""
    _, through = targets(home)

    def ask() -> float:
        async def once() -> float:
            async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
                began = time.perf_counter()
                await stream_once(client, through, "hello")
                return time.perf_counter() - began

        return asyncio.run(once())

    def send(signal_: signal.Signals) -> None:
        os.killpg(int((home.pids / "standard.pid").read_text()), signal_)

    trusted_s = 0.5  # an answer of the engine is believed for a part of this
    print(f"healthy: {statistics.median(ask() for _ in range(5)):.2f} s")
    send(signal.SIGKILL)
    print(f"killed:  {ask():.2f} s")
    Program(home, {}).run("up", timeout_s=120)
    ask()
    send(signal.SIGSTOP)
    print(f"hung at the moment of the request: {ask():.2f} s")
    send(signal.SIGCONT)
    time.sleep(trusted_s + 1)  # the gateway asks a tier that hung once a second
    ask()
    time.sleep(trusted_s)
    send(signal.SIGSTOP)
    print(f"hung before it: {ask():.2f} s, and the next request: {ask():.2f} s")
    send(signal.SIGKILL)


def measure_start(home: Home) -> None:
    """LiteLLM with an empty configuration, and the gateway, alternating."""
    program = require_environment(home.engines, EngineName.LITELLM).program("litellm")
    installed = Program(home, {})
    bare_config = home.root / "bare.yaml"
    bare_config.write_text("model_list: []\n", encoding="utf-8")
    bare: list[float] = []
    ours: list[float] = []
    for _ in range(3):
        bare.append(time_bare_start(program, bare_config))
        installed.run("down")
        document = installed.run("up", "--json", "--timeout", "300", timeout_s=400).document
        row = next(row for row in document["services"] if row["name"] == "gateway")
        ours.append(row["seconds"])
    print(f"bare LiteLLM ready: {statistics.median(bare):.1f} s ({min(bare):.1f}-{max(bare):.1f})")
    print(f"gateway ready:      {statistics.median(ours):.1f} s ({min(ours):.1f}-{max(ours):.1f})")


def time_bare_start(program: Path, config: Path) -> float:
    """Seconds until LiteLLM alone answers its liveness probe."""
    (port,) = free_ports(1)
    environment = {
        **os.environ,
        **litellm.environment(
            master_key="sk-benchmark-of-the-bare-start-0123456789", openrouter_key=""
        ),
    }
    environment.pop("PYTHONPATH")
    began = time.perf_counter()
    command = litellm.command(program, config, host="127.0.0.1", port=port)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health/liveliness", trust_env=False)
            except httpx.HTTPError:
                time.sleep(0.05)
            else:
                return time.perf_counter() - began
    finally:
        process.terminate()
        process.wait()


MEASUREMENTS: dict[str, Callable[[Home], None]] = {
    "start": measure_start,
    "latency": measure_latency,
    "load": measure_load,
    "fallback": measure_fallback,
}


def main() -> int:
    """Run the chosen measurements, by default all of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", nargs="*", choices=[*MEASUREMENTS, []], default=[])
    chosen = parser.parse_args().which or list(MEASUREMENTS)
    with running_stack() as program:
        for name, measure in MEASUREMENTS.items():
            if name in chosen:
                print(f"\n== {name}", flush=True)
                measure(program.home)
    return 0


if __name__ == "__main__":
    sys.exit(main())
