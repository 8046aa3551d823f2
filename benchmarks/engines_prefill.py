"""How long does a short request wait while two long prompts are read, and what does a step cost?

    uv run python benchmarks/engines_prefill.py [--home FOLDER] [--family NAME ...] [--step N ...]
                                                [--long-tokens 16000] [--short-tokens 1000]

A model of random weights is served by the real engine as it is and with mlx-stack's additions, with
each prefill step. The time to the first token of a short request by itself; then of short requests
that come while two long prompts are read; and how many tokens a second are read of the long ones
alone. Engines are installed into FOLDER, by default a temporary one.
"""

import argparse
import random
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from engines_turns import ADDITIONS, serving

from mlx_stack.engines import embedded_model
from mlx_stack.engines.environment import EngineName
from mlx_stack.engines.install import install
from mlx_stack.engines.uv_process import own_toolchain
from stack_testkit.tiny_families import FAMILIES, make_tiny_family

_WORDS = "the house of a red river and its old stone bridge were quiet in winter".split()  # noqa: SIM905


def main() -> None:
    """Measure each step for each kind of model, with the additions and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and models are, or will be")
    parser.add_argument("--family", nargs="*", default=["full attention"], choices=FAMILIES)
    parser.add_argument("--step", nargs="*", type=int, default=[2048, 512])
    parser.add_argument("--long-tokens", type=int, default=16_000)
    parser.add_argument("--short-tokens", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).absolute()
        toolchain = own_toolchain()
        engine = install(EngineName.VLLM_MLX, home / "engines", toolchain)
        words = embedded_model.make_embedded_model(home / "models", engine, toolchain)
        for family in options.family:
            model = make_tiny_family(
                Path(temporary) / family, family, tokenizer_of=words, engine_python=engine.python
            )
            for name, applied in (("the engine's own", ()), ("with additions", ADDITIONS)):
                for step in options.step:
                    flags = {"continuous-batching": True, "max-num-seqs": 4, "max-tokens": 8}
                    flags |= {"cache-memory-mb": 512, "prefill-step-size": step}
                    state = Path(temporary) / f"{family}-{name}-{step}"
                    with serving(engine, model, state, applied, flags) as served:
                        said = measured(served.url, options)
                    print(f"{family:18} {name:18} step {step:5}: {said}", flush=True)


def measured(url: str, options: argparse.Namespace) -> str:
    """All rounds against one engine, in words."""
    seed = iter(range(10_000))

    def ask(tokens: int) -> float:
        return ttft_s(url, next(seed), tokens)

    ask(options.short_tokens)
    alone = [ask(options.short_tokens) for _ in range(5)]
    rates: list[float] = []
    meanwhile: list[float] = []
    for busy in (False, True):
        for _ in range(options.rounds):
            with ThreadPoolExecutor() as pool:
                pair = [pool.submit(ask, options.long_tokens) for _ in range(2)]
                time.sleep(0.3)  # they are being read
                while busy and not any(each.done() for each in pair):
                    meanwhile.append(ask(options.short_tokens))
                    time.sleep(0.2)
                longest_s = max(each.result() for each in pair)
                if not busy:
                    rates.append(2 * options.long_tokens / longest_s)
    usual_s = statistics.median(alone)
    median_s, longest_s = statistics.median(meanwhile), max(meanwhile)
    return (
        f"TTFT alone {usual_s:.2f} s, meanwhile {median_s:.2f} s in the median and "
        f"{longest_s:.2f} s at most of {len(meanwhile)} ({median_s / usual_s:.1f} and "
        f"{longest_s / usual_s:.1f} times); the long ones by themselves "
        f"{statistics.median(rates):.0f} tokens/s"
    )


def ttft_s(url: str, seed: int, tokens: int) -> float:
    """The time to the first event with text of a new prompt of about so many tokens."""
    text = f"{seed} " + " ".join(random.Random(seed).choices(_WORDS, k=tokens))
    body = {
        "model": "tiny",
        "messages": [{"role": "user", "content": text}],
        "max_tokens": 4,
        "temperature": 0,
        "stream": True,
    }
    begun, first = time.monotonic(), None
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if (
                first is None
                and line.startswith("data: {")
                and '"content":"' in line.replace(" ", "")
            ):
                first = time.monotonic()
    return (first or time.monotonic()) - begun


if __name__ == "__main__":
    main()
