"""Does an engine that is busy still answer `GET /v1/models`, and are two requests both answered?

    uv run python benchmarks/engines_liveness.py [--home FOLDER] [--prompt-tokens 4000]

The embedded model is served twice by the real engine: one request at a time (the engine's simple
mode) and with continuous batching. While a long prompt is read and an answer written, `/v1/models`
is asked ten times a second; then two questions are put at once. Engines and model are installed
into FOLDER, by default a temporary one.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from script import run_script

from mlx_catalog import Quant
from mlx_procsup import (
    HttpReadiness,
    ProcessSpec,
    StateDirs,
    start_service,
    stop_service,
    wait_for_healthy,
)
from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines import embedded_model, vllm_mlx
from mlx_stack.engines.environment import Environment
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Tier
from stack_testkit.real_engine import real_engine

_INTERVAL_S = 0.1
_LONG_S = 900.0
_WORDS = "the quick brown fox jumps over the lazy dog and runs away again "


@dataclass
class Watch:
    """Response times of `/v1/models` while something else runs."""

    url: str
    seconds: list[float] = field(default_factory=list[float])
    done: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Ask until told to stop."""
        with httpx.Client(timeout=60) as client:
            while not self.done.wait(_INTERVAL_S):
                began = time.perf_counter()
                client.get(f"{self.url}/v1/models").raise_for_status()
                self.seconds.append(time.perf_counter() - began)

    def report(self, what: str) -> None:
        """One line: how many were answered, how fast, and how many were late."""
        ordered = sorted(self.seconds)
        late = sum(each > 1.0 for each in ordered)
        print(
            f"  {what:<26} {len(ordered):4} asked, "
            f"median {statistics.median(ordered) * 1e3:6.1f} ms, "
            f"p99 {ordered[int(len(ordered) * 0.99)] * 1e3:6.0f} ms, "
            f"slowest {ordered[-1] * 1e3:6.0f} ms, {late} later than 1 s"
        )


@contextmanager
def watched(url: str, what: str) -> Iterator[None]:
    """Ask `/v1/models` all the while, and print how that went."""
    watch = Watch(url)
    thread = threading.Thread(target=watch.run)
    thread.start()
    began = time.perf_counter()
    try:
        yield
    finally:
        watch.done.set()
        thread.join()
        watch.report(f"{what} ({time.perf_counter() - began:.0f} s)")


def ask(url: str, content: str, max_tokens: int, *, stream: bool = False) -> int:
    """Put one question; how many tokens the answer has (0 where it was streamed)."""
    body = {
        "model": embedded_model.NAME,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": stream,
    }
    address = f"{url}/v1/chat/completions"
    if stream:
        with httpx.stream("POST", address, json=body, timeout=_LONG_S) as response:
            response.raise_for_status()
            for _ in response.iter_bytes():
                pass
        return 0
    response = httpx.post(address, json=body, timeout=_LONG_S)
    response.raise_for_status()
    return response.json()["usage"]["completion_tokens"]


@contextmanager
def served(
    engine: Environment,
    model: Path,
    state: Path,
    concurrency: int,
    traits: vllm_mlx.Serving | None = None,
) -> Iterator[str]:
    """The model, served by the real engine, at the URL."""
    (port,) = free_ports(1)
    tier = Tier(
        name=f"tier-{concurrency}",
        model=embedded_model.NAME,
        quant=Quant.INT4,
        source=str(model),
        port=port,
        vllm_flags={},
        concurrency=concurrency,
    )
    dirs = StateDirs(state / "pids", state / "run", state / "logs")
    dirs.create()
    spec = ProcessSpec(
        name=tier.name,
        command=vllm_mlx.command((str(engine.program("vllm-mlx")),), tier, model, traits),
        env={**inherited_environment(), **vllm_mlx.environment(state / "huggingface")},
        cwd=state,
        readiness=HttpReadiness(f"http://127.0.0.1:{port}/v1/models"),
    )
    try:
        wait_for_healthy(start_service(spec, dirs), 120)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_service(tier.name, dirs)


def measure(url: str, prompt_tokens: int) -> None:
    """Everything about one engine."""
    prompt = _WORDS * (prompt_tokens // 13)
    with watched(url, "idle"):
        time.sleep(3)
    with watched(url, f"prefill of {prompt_tokens}"):
        ask(url, prompt, 1)
    with watched(url, "prefill, streamed"):
        ask(url, "Again: " + prompt, 1, stream=True)
    with watched(url, "generation of 60"):
        ask(url, "Tell me a long story about the sea.", 60)
    with watched(url, "two at once"), ThreadPoolExecutor() as pool:
        counts = list(pool.map(lambda text: ask(url, text, 16), ("Say one.", "Say two.")))
    print(f"  two requests at once: {counts} tokens")


def main() -> None:
    """Measure both modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and model are, or will be")
    parser.add_argument("--prompt-tokens", type=int, default=4000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).absolute()
        engine, model = real_engine(home)
        for concurrency, mode in ((1, "one request at a time"), (4, "continuous batching")):
            print(mode)
            with served(engine, model, Path(temporary), concurrency) as url:
                measure(url, options.prompt_tokens)


if __name__ == "__main__":
    run_script(main)
