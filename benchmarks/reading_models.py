"""What models that read hold, against their plan, and what others notice of their work.

    MLX_STACK_HOME=… uv run benchmarks/reading_models.py memory all-minilm-l6-v2 bge-m3:int8
    MLX_STACK_HOME=… uv run benchmarks/reading_models.py ttft --embedder minilm --chat smollm

`memory` needs the engines, and no model: each is made with random weights and a made-up tokenizer,
in the shape and the precision of its entry in the catalog (`reading_weights.py`), and served by the
real engine with mlx-stack's additions. What its process holds after the start stands against the
weights and the process that are planned, and the most that it holds during one batch, as large as
any is, against the whole plan. With `--layers` a model has fewer, since MLX's CPU build takes hours
for a large one: what a batch takes doesn't depend on them. MLX's CPU build keeps the scores of
attention where a Mac has a kernel that doesn't; they are named apart.

`ttft` needs a stack that is up, with a tier that embeds and one that chats. Chat requests are timed
to their first token, each once while nothing else happens and once while 512 texts are embedded.
"""

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from reading_weights import MODELS, make_model
from script import run_script

from mlx_catalog import ModelRole
from mlx_recommend import MemoryUse, Workload, memory_use
from mlx_stack.bench.target import BenchTarget, serve_beside
from mlx_stack.engines.environment import EngineName, require_environment
from mlx_stack.engines.mlx_vlm_start import TOKENS_AT_ONCE
from mlx_stack.home import Home
from mlx_stack.models.serving import entry_of, fit_and_shape
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Tier

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
def embedding(client: httpx.Client, model: str, texts: list[str]) -> Iterator[list[float]]:
    """Embed the texts again and again meanwhile; the seconds that each time took."""
    done, seconds = threading.Event(), list[float]()

    def work() -> None:
        while not done.is_set():
            seconds.append(embed(client, model, texts))

    working = threading.Thread(target=work)
    working.start()
    time.sleep(1)
    try:
        yield seconds
    finally:
        done.set()
        working.join()


def memory(options: argparse.Namespace) -> None:
    """Serve each model, and print what its process holds."""
    given = Home(Path(os.environ["MLX_STACK_HOME"]))
    python = require_environment(given.engines, EngineName.VLLM_MLX).python
    for words in options.models:
        name, _, quant = words.partition(":")
        with tempfile.TemporaryDirectory(prefix="reading-models-") as temporary:
            home = Home(Path(temporary))
            home.create()
            home.engines.symlink_to(given.engines.absolute())
            opened = OpenStack(home)
            tier, folder = _tier(opened, name, quant, options, python)
            _, shape = fit_and_shape(entry_of(opened.catalog, tier), tier, folder)
            assert shape is not None
            shape = replace(shape, role=tier.role)
            work = Workload(context_tokens=tier.context_tokens or 512)
            # MLX's CPU build has no kernel that does without the scores
            heads = MODELS[name].config.get("num_attention_heads", shape.layer_score_heads)
            here = memory_use(replace(shape, layer_score_heads=heads), work)
            with serve_beside(opened, tier, folder) as target:
                print(f"{name} {tier.quant}, {options.layers or 'all'} layers:", flush=True)
                plan = memory_use(shape, work)
                _measure(target, tier, plan, here, has_batch=not options.at_rest)


def _tier(
    opened: OpenStack, name: str, quant: str, options: argparse.Namespace, python: Path
) -> tuple[Tier, Path]:
    """A tier of the model, which is made, and its folder."""
    entry, model = opened.catalog.get(name), MODELS[name]
    sources = dict(entry.sources.items())
    chosen = next((each for each in sources if each == quant), next(iter(sources)))
    is_wide = sources[chosen].bits_per_weight == 32
    if options.layers:
        model = replace(model, config={**model.config, "num_hidden_layers": options.layers})
    # one with other layers is none of the catalog's
    known = f"{name}-of-{options.layers}-layers" if options.layers else name
    folder = opened.home.models / known
    make_model(folder, model, chosen, is_wide=is_wide, engine_python=python)
    (port,) = free_ports(1)
    tier = Tier(
        name="reader",
        model=known,
        quant=chosen,
        source=str(folder),
        port=port,
        vllm_flags={},
        role=entry.role,
        context_tokens=min(options.tokens, entry.max_context_tokens or options.tokens),
    )
    return tier, folder


def _measure(
    target: BenchTarget, tier: Tier, plan: MemoryUse, here: MemoryUse, *, has_batch: bool
) -> None:
    """Print what the process holds at rest, and at most while it computes a batch."""
    assert target.process is not None
    pid = target.process.pid
    endpoint = target.endpoint
    with httpx.Client(
        base_url=endpoint.base_url, auth=endpoint.auth, timeout=3600, trust_env=False
    ) as client:
        rest = psutil.Process(pid).memory_info().rss
        start_bytes = (plan.weights_bytes or 0) + plan.process_bytes
        print(_compared("at rest: weights and process", start_bytes, rest), flush=True)
        if not has_batch:
            return
        length = tier.context_tokens or 512
        texts = [" ".join(WORDS * (length // 8))] * max(1, TOKENS_AT_ONCE // length)
        with peak_of(pid) as peak:
            began = time.perf_counter()
            if tier.role is ModelRole.RERANK:
                body = {"model": tier.model, "query": "sky", "documents": texts}
                client.post("/rerank", json=body).raise_for_status()
            else:
                embed(client, tier.model, texts)
            seconds = time.perf_counter() - began
        metal = client.get("/status").json()["metal"]
    own = here.overhead_bytes - plan.overhead_bytes
    planned = here.with_process_bytes or 0
    print(f"  {len(texts)} texts of {length} tokens: {seconds:.0f} s")
    print(_compared("at most", planned, peak[0]))
    print(
        f"  of the plan {plan.overhead_bytes / 1e6:.0f} MB are work, and {own / 1e6:.0f} MB more "
        f"are scores, of the CPU build alone; MLX's own peak beside the weights: "
        f"{metal['peak_memory_gb'] * 1e3 - (plan.weights_bytes or 0) / 1e6:.0f} MB"
    )


def _compared(what: str, planned: int, held: int) -> str:
    ratio = planned / held
    return f"  {what}: planned {planned / 1e6:.0f} MB, held {held / 1e6:.0f} MB ({ratio:.2f})"


def ttft(options: argparse.Namespace) -> None:
    """Time chat requests alone and beside texts that are embedded."""
    variables = document("env")["env"]
    headers = {"Authorization": f"Bearer {variables['OPENAI_API_KEY']}"}
    with httpx.Client(
        base_url=variables["OPENAI_BASE_URL"], headers=headers, timeout=900, trust_env=False
    ) as client:
        ttft_s(client, options.chat, 0)
        texts = [f"{number} {' '.join(WORDS * options.words)}" for number in range(TEXTS)]
        embed_s = min(embed(client, options.embedder, texts) for _ in range(2))
        alone = [ttft_s(client, options.chat, 1 + each) for each in range(options.times)]
        with embedding(client, options.embedder, texts) as embeds_s:
            beside = [ttft_s(client, options.chat, 100 + each) for each in range(options.times)]
        again = [ttft_s(client, options.chat, 200 + each) for each in range(options.times)]
    quiet = [*alone, *again]
    print(f"TTFT alone: median {median(quiet):.2f} s of {[round(each, 2) for each in quiet]}")
    print(f"TTFT beside: median {median(beside):.2f} s of {[round(each, 2) for each in beside]}")
    print(f"ratio {median(beside) / median(quiet):.2f}, worst {max(beside) / median(quiet):.2f}")
    print(f"{TEXTS} texts alone: {embed_s:.1f} s; beside: median {median(embeds_s):.1f} s")


def main() -> None:
    """Measure one of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = parser.add_subparsers(required=True)
    held = kinds.add_parser("memory", help="what processes hold")
    held.add_argument("models", nargs="+", help="entries of the catalog, with :QUANT if you like")
    held.add_argument("--layers", type=int, help="fewer than the model has")
    held.add_argument("--tokens", type=int, default=512, help="of a text")
    held.add_argument("--at-rest", action="store_true", help="compute no batch")
    held.set_defaults(measure=memory)
    timed = kinds.add_parser("ttft", help="what others notice")
    timed.add_argument("--embedder", required=True, help="the tier that embeds")
    timed.add_argument("--chat", required=True, help="the tier that chats")
    timed.add_argument("--times", type=int, default=7)
    timed.add_argument("--words", type=int, default=1, help="of a text, in eights")
    timed.set_defaults(measure=ttft)
    options = parser.parse_args()
    options.measure(options)


if __name__ == "__main__":
    run_script(main)
