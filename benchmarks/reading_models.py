"""An embedder beside a model that chats: what it holds, and what others notice of its work.

    MLX_STACK_HOME=… mlx-stack up
    MLX_STACK_HOME=… uv run benchmarks/reading_models.py --embedder all-minilm-l6-v2 --chat smollm

The stack must be up, with a tier of each kind. First the embedder gets one batch that is as large
as it ever computes: texts of its whole context, as many as fit. The most memory that its process
holds meanwhile stands against what was planned. Then chat requests are timed to their first token,
each once while nothing else happens and once while 512 texts are embedded.
"""

import argparse
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil

from mlx_stack.engines.mlx_vlm_start import TOKENS_AT_ONCE
from mlx_stack.home import Home
from mlx_stack.open_stack import OpenStack
from mlx_stack.planning.tiers import planned_memory

TEXTS = 512
WORDS = ("the", "harbour", "lies", "quiet", "under", "a", "grey", "sky")


def document(*arguments: str) -> dict[str, Any]:
    """What a command of mlx-stack says in JSON."""
    done = subprocess.run(("mlx-stack", *arguments, "--json"), check=False, capture_output=True)
    return json.loads(done.stdout)


def embed(client: httpx.Client, model: str, texts: list[str]) -> float:
    """The seconds that vectors of the texts took."""
    began = time.perf_counter()
    client.post("/embeddings", json={"model": model, "input": texts}).raise_for_status()
    return time.perf_counter() - began


def ttft_s(client: httpx.Client, model: str, number: int) -> float:
    """The seconds to the first token of a short answer."""
    question = f"Question {number}: what is the capital of France? Answer in a few words."
    messages = [{"role": "user", "content": question}]
    body = {"model": model, "messages": messages, "max_tokens": 4, "stream": True}
    began = time.perf_counter()
    with client.stream("POST", "/chat/completions", json=body) as answer:
        for line in answer.iter_lines():
            if '"content"' in line and '"content": ""' not in line and '"content":""' not in line:
                return time.perf_counter() - began
    raise SystemExit("the answer had no token")


@contextmanager
def peak_of(pid: int) -> Iterator[list[int]]:
    """The most that a process held meanwhile, in bytes."""
    process, peak, done = psutil.Process(pid), [0], threading.Event()

    def look() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], process.memory_info().rss)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield peak
    finally:
        done.set()
        looking.join()


@contextmanager
def embedding(client: httpx.Client, model: str) -> Iterator[threading.Event]:
    """Embed 512 texts again and again meanwhile; set once that has begun."""
    done, begun = threading.Event(), threading.Event()

    def work() -> None:
        while not done.is_set():
            begun.set()
            embed(client, model, [f"{number} {' '.join(WORDS[:6])}" for number in range(TEXTS)])

    working = threading.Thread(target=work, daemon=True)
    working.start()
    begun.wait()
    time.sleep(1)
    try:
        yield begun
    finally:
        done.set()


def main() -> None:
    """Measure both, and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--embedder", required=True, help="the tier that embeds")
    parser.add_argument("--chat", required=True, help="the tier that chats")
    parser.add_argument("--times", type=int, default=7)
    options = parser.parse_args()

    variables = document("env")["env"]
    headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    opened = OpenStack(Home(Path(os.environ["MLX_STACK_HOME"])))
    tier = opened.stack.tier(options.embedder)
    plan = planned_memory(opened, tier) if tier is not None else None
    assert tier is not None
    assert plan is not None
    rows = {row["name"]: row for row in document("status")["services"]}
    context = tier.context_tokens or 512
    with httpx.Client(
        base_url=variables["OPENAI_BASE_URL"], headers=headers, timeout=900, trust_env=False
    ) as client:
        texts = [" ".join(WORDS * (context // 8))] * max(1, TOKENS_AT_ONCE // context)
        with peak_of(rows[options.embedder]["pid"]) as peak:
            seconds = embed(client, options.embedder, texts)
        planned = plan.with_process_bytes or 0
        print(f"one batch of {len(texts)} texts of {context} tokens: {seconds:.1f} s")
        print(
            f"memory: planned {planned / 1e6:.0f} MB, peak {peak[0] / 1e6:.0f} MB "
            f"(planned / peak {planned / peak[0]:.2f})"
        )
        ttft_s(client, options.chat, 0)
        alone = [ttft_s(client, options.chat, 1 + each) for each in range(options.times)]
        with embedding(client, options.embedder):
            beside = [ttft_s(client, options.chat, 100 + each) for each in range(options.times)]
        again = [ttft_s(client, options.chat, 200 + each) for each in range(options.times)]
    quiet = [*alone, *again]
    print(f"TTFT alone: median {median(quiet):.2f} s of {[round(each, 2) for each in quiet]}")
    print(f"TTFT beside: median {median(beside):.2f} s of {[round(each, 2) for each in beside]}")
    print(f"ratio {median(beside) / median(quiet):.2f}")


if __name__ == "__main__":
    main()
