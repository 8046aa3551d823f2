"""What a single user gains or loses by continuous batching: speed, and the second turn.

    uv run python benchmarks/engines_conversation.py [--home FOLDER] [--prompt-tokens 3000]
                                                         [--embedded] [--answer-tokens 200]

A model of random weights (or, with `--embedded`, SmolLM2-135M) is served by the real engine in its
simple mode and with continuous batching, asked in turns. For each: tokens a second of one answer,
and the time until a conversation's second turn is answered (one token), as a share of the first's.
Medians of five rounds.
"""

import argparse
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
from engines_liveness import served
from script import run_script

from mlx_stack.engines import embedded_model
from mlx_stack.engines.vllm_mlx import Serving
from stack_testkit.real_engine import real_engine
from stack_testkit.tiny_model import make_tiny_model

_ROUNDS = 5
_MODES = {"simple": Serving(), "batching": Serving(reuses_prefixes=True)}
_WORDS = "the quick brown fox jumps over the lazy dog and runs away again "


@dataclass(frozen=True)
class Round:
    """Seconds of one round's three requests."""

    decode: float
    first_turn: float
    second_turn: float


def ask(url: str, contents: list[str], max_tokens: int) -> tuple[str, float]:
    """Put the last of `contents` after the turns before it; the answer, and its seconds."""
    roles = ("user", "assistant")
    body = {
        "model": embedded_model.NAME,
        "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    began = time.perf_counter()
    response = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600)
    response.raise_for_status()
    return response.json()["choices"][0]["message"]["content"], time.perf_counter() - began


def measure(url: str, prompt_tokens: int, answer_tokens: int, number: int) -> Round:
    """One round; `number` keeps it from being answered from an earlier one's cache."""
    _, decode = ask(url, [f"Tell me a long story about {number} ships."], answer_tokens)
    prompt = f"{number} " + _WORDS * (prompt_tokens // 13)
    answer, first = ask(url, [prompt], 1)
    _, second = ask(url, [prompt, answer, "And then?"], 1)
    return Round(decode, first, second)


def main() -> None:
    """Measure both modes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and model are, or will be")
    parser.add_argument("--prompt-tokens", type=int, default=3000)
    parser.add_argument("--answer-tokens", type=int, default=200)
    parser.add_argument("--embedded", action="store_true", help="the embedded model instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).absolute()
        engine, tokenizer_of = real_engine(home)
        model = tokenizer_of
        if not options.embedded:
            model = make_tiny_model(
                Path(temporary) / "model",
                tokenizer_of=tokenizer_of,
                engine_python=engine.python,
                hidden_size=256,
            )
        rounds: dict[str, list[Round]] = {name: [] for name in _MODES}
        with ExitStack() as engines:
            urls = {
                name: engines.enter_context(
                    served(engine, model, Path(temporary) / name, 1, traits)
                )
                for name, traits in _MODES.items()
            }
            for number in range(_ROUNDS + 1):
                for name, url in urls.items():
                    rounds[name].append(
                        measure(url, options.prompt_tokens, options.answer_tokens, number)
                    )
        for name, measured in rounds.items():
            _report(name, measured[1:], options.answer_tokens)  # the first warms up


def _report(name: str, rounds: list[Round], answer_tokens: int) -> None:
    decode = statistics.median(answer_tokens / each.decode for each in rounds)
    first = statistics.median(each.first_turn for each in rounds)
    share = statistics.median(each.second_turn / each.first_turn for each in rounds)
    print(f"{name:<9} {decode:6.1f} tokens/s; first turn {first:.2f} s, second {share:.0%} of it")


if __name__ == "__main__":
    run_script(main)
