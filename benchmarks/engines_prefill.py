"""How long does a short request wait while two long prompts are read, and what does a step cost?

    uv run python benchmarks/engines_prefill.py [--home FOLDER] [--family NAME ...] [--step N ...]
                                                [--long-tokens 16000] [--short-tokens 1000 ...]
                                                [--real | --model FOLDER] [--only-ours]

A model of random weights is served by the real engine as it is and with mlx-stack's additions, with
each prefill step. For each length of short requests: the time to the first token of one by itself;
then of those that come while two long prompts are read, each a while after the one before. And how
many tokens a second are read of two prompts by themselves. With --real the model has the widths and
layers of one of half a billion parameters, so that arithmetic takes the time, as on a Mac, and not
the way to it; with --model a model of yours is served, by the engine of the state folder --home.
The two long prompts are given up once enough short ones were answered. Engines are installed into
FOLDER, by default a temporary one.
"""

import argparse
import itertools
import random
import statistics
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
from engines_turns import ADDITIONS, serving
from script import run_script

from mlx_stack.engines.environment import EngineName, Environment, require_environment
from stack_testkit.real_engine import real_engine
from stack_testkit.tiny_families import FAMILIES, make_tiny_family

_WORDS = "the house of a red river and its old stone bridge were quiet in winter".split()  # noqa: SIM905


_HALF_A_BILLION = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rope_theta": 1000000.0,
}
"""The geometry of Qwen2.5-0.5B."""


def main() -> None:
    """Measure each step for each kind of model, with the additions and without."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and models are, or will be")
    parser.add_argument("--family", nargs="*", default=["full attention"], choices=FAMILIES)
    parser.add_argument("--step", nargs="*", type=int, default=[2048, 512])
    parser.add_argument("--long-tokens", type=int, default=16_000)
    parser.add_argument("--rate-tokens", type=int, default=4000)
    parser.add_argument("--short-tokens", nargs="*", type=int, default=[1000])
    parser.add_argument("--requests", type=int, default=6, help="short ones of each length")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--model", type=Path, help="its folder; needs --home")
    parser.add_argument("--only-ours", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name, engine, model in engines_and_models(options, Path(temporary)):
            measure(name, engine, model, Path(temporary), options)


def engines_and_models(
    options: argparse.Namespace, temporary: Path
) -> Iterator[tuple[str, Environment, Path]]:
    """What each model is called, the engine, and the model's folder."""
    home = (options.home or temporary).absolute()
    if options.model is not None:
        engine = require_environment(home / "engines", EngineName.VLLM_MLX)
        yield options.model.name, engine, options.model.absolute()
        return
    engine, words = real_engine(home)
    for family in options.family:
        model = make_tiny_family(
            temporary / family,
            family,
            tokenizer_of=words,
            engine_python=engine.python,
            **(_HALF_A_BILLION if options.real else {}),
        )
        yield family, engine, model


def measure(
    name: str, engine: Environment, model: Path, temporary: Path, options: argparse.Namespace
) -> None:
    """Print the figures of one model, with each step."""
    modes = (("the engine's own", ()), ("with additions", ADDITIONS))
    for mode, applied in modes[options.only_ours :]:
        for step in options.step:
            flags = {"continuous-batching": True, "max-num-seqs": 4, "max-tokens": 8}
            flags |= {"cache-memory-mb": 512, "prefill-step-size": step}
            state = temporary / f"{name}-{mode}-{step}"
            with serving(engine, model, state, applied, flags) as served:
                for said in measured(served.url, options):
                    print(f"{name:18} {mode:18} step {step:5}: {said}", flush=True)


def measured(url: str, options: argparse.Namespace) -> Iterator[str]:
    """All figures of one engine, in words."""
    seed = itertools.count()
    nobody_leaves = threading.Event()

    def ask(tokens: int, leave: threading.Event = nobody_leaves) -> float | None:
        return ttft_s(url, next(seed), tokens, leave)

    ask(min(options.short_tokens))
    if options.rate_tokens:
        begun = time.monotonic()
        with ThreadPoolExecutor() as pool:
            list(pool.map(ask, [options.rate_tokens] * 2))
        rate_tps = 2 * options.rate_tokens / (time.monotonic() - begun)
        yield f"two of {options.rate_tokens} words by themselves: {rate_tps:.0f} words/s"
    for tokens in options.short_tokens:
        alone = _known(ask(tokens) for _ in range(max(3, options.requests // 2)))
        usual_s = statistics.median(alone)
        leave, meanwhile = threading.Event(), list[float]()
        with ThreadPoolExecutor() as pool:
            pair = [pool.submit(ask, options.long_tokens, leave) for _ in range(2)]
            time.sleep(max(0.5, usual_s))  # they are being read
            for _ in range(options.requests):
                begun = time.monotonic()
                waited_s = ask(tokens)
                if waited_s is None or any(each.done() for each in pair):
                    break
                meanwhile.append(waited_s)
                time.sleep(random.uniform(0.5, 1.5) * (time.monotonic() - begun))
            leave.set()
        if not meanwhile:
            yield f"{tokens} words: the long ones were read before one of these was"
            continue
        median_s, most_s = statistics.median(meanwhile), max(meanwhile)
        yield (
            f"{tokens} words: TTFT alone {usual_s:.2f} s, meanwhile {median_s:.2f} s in the median "
            f"and {most_s:.2f} s at most of {len(meanwhile)} ({median_s / usual_s:.1f} and "
            f"{most_s / usual_s:.1f} times)"
        )


def _known(times_s: Iterable[float | None]) -> list[float]:
    return [each for each in times_s if each is not None]


def ttft_s(url: str, seed: int, tokens: int, leave: threading.Event) -> float | None:
    """The time to the first event with text of a new prompt of about so many tokens.

    None where it was left before.
    """
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
            if leave.is_set():
                break
            if (
                first is None
                and line.startswith("data: {")
                and '"content":"' in line.replace(" ", "")
            ):
                first = time.monotonic() - begun
    return first


if __name__ == "__main__":
    run_script(main)
