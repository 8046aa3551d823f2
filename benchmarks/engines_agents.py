"""How many tokens eight agents make a tier read on each turn, through the installed program.

    uv run python benchmarks/engines_agents.py [--home FOLDER] [--family NAME ...] [--agents 8]
                                               [--turns 4] [--prefix-tokens 900] [--answers]

For each kind of architecture a model of random weights, tiny width and real structure is a tier of
a stack of its own, planned for as many requests at once as there are agents. `mlx-stack up` starts
it, `mlx-stack bench --agents` measures it. By turn: the tokens read against those that are new, of
all agents together and of the worst. With --answers, as many conversations are put to the engine at
once instead, each with the answers it got, and then every turn of each by itself to the same engine
after it has forgotten everything: how many answers at temperature 0 are the same. The weights are
float32, so that what is computed together rounds as what is computed alone does. Engines are
installed into FOLDER, by default a temporary one.
"""

import argparse
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from engines_turns import ADDITIONS, serving
from script import run_script

from mlx_stack.engines.environment import Environment
from mlx_stack.engines.vllm_mlx import STEP_TOKENS
from mlx_stack.home import Home
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Stack, Tier, save_stack
from stack_testkit.conversations import Conversation
from stack_testkit.program import Program
from stack_testkit.real_engine import real_engine
from stack_testkit.tiny_families import FAMILIES, make_tiny_family


def main() -> None:
    """Measure each kind of model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and models are, or will be")
    parser.add_argument("--family", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--prefix-tokens", type=int, default=900)
    parser.add_argument("--answers", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        kept = (options.home or Path(temporary)).absolute()
        engine, words = real_engine(kept)
        for number, family in enumerate(options.family):
            model = make_tiny_family(
                Path(temporary) / "models" / f"tiny-{number}",
                family,
                tokenizer_of=words,
                engine_python=engine.python,
            )
            if options.answers:
                state = Path(temporary) / f"answers-{number}"
                print(f"{family:24} {compared(engine, model, state, options)}", flush=True)
                continue
            home = Home(Path(temporary) / f"home-{number}")
            home.create()
            home.engines.symlink_to(kept / "engines")
            print(f"{family:24} {measured(home, model, options)}", flush=True)


def measured(home: Home, model: Path, options: argparse.Namespace) -> str:
    """What agents at this model read, in words."""
    tier = Tier(
        name="fast",
        model="tiny",
        quant=None,
        source=str(model),
        port=free_ports(1)[0],
        vllm_flags={},
        context_tokens=8192,
        concurrency=options.agents,
    )
    save_stack(home.stack, Stack(schema_version=1, tiers=(tier,)))
    program = Program(home, {})
    try:
        started = program.run("up", "--tier", "fast", "--timeout", "120", "--json", timeout_s=200)
        if started.code != 0:
            return f"didn't start: {started.out}"
        command = ["bench", "fast", "--agents", str(options.agents), "--turns", str(options.turns)]
        command += ["--prefix-tokens", str(options.prefix_tokens), "--generation-tokens", "16"]
        done = program.run(*command, "--json", timeout_s=600)
        return _rendered(done.document) if done.code == 0 else f"failed: {done.err}"
    finally:
        program.run("down", timeout_s=60)


def compared(engine: Environment, model: Path, state: Path, options: argparse.Namespace) -> str:
    """How many answers of agents at once are those that each gets alone, in words."""
    flags = {"continuous-batching": True, "cache-memory-mb": 1024, "prefill-step-size": STEP_TOKENS}
    flags["max-num-seqs"] = options.agents
    agents = [
        Conversation(seed, options.prefix_tokens + 37 * seed, 80, shortens=seed % 2 == 1)
        for seed in range(options.agents)
    ]
    with serving(engine, model, state, ADDITIONS, flags) as served:
        for _ in range(options.turns):
            with ThreadPoolExecutor(options.agents) as pool:
                list(pool.map(lambda each: each.next(served), agents))
        same, answers = 0, set[str]()
        for agent in agents:
            for number, turn in enumerate(agent.turns):
                served.forget()
                alone = served.ask(agent.messages[: 2 * number + 2], answer_tokens=24)
                same += alone.answer == turn.answer
                answers.add(alone.answer)
    return f"{same} of {options.agents * options.turns} answers the same ({len(answers)} different)"


def _rendered(report: dict[str, Any]) -> str:
    runs: list[dict[str, Any]] = report["runs"]
    words: list[str] = []
    for turn in range(1, 1 + max(run["turn"] for run in runs)):
        of_turn = [run for run in runs if run["turn"] == turn]
        if any(run["read_tokens"] is None for run in of_turn):
            words.append(f"{turn}: unknown")
            continue
        new = sum(run["new_tokens"] for run in of_turn)
        read = sum(run["read_tokens"] for run in of_turn)
        worst = max(run["read_tokens"] / max(1, run["new_tokens"]) for run in of_turn)
        words.append(f"{turn}: {read}/{new} = {read / max(1, new):.2f} (worst {worst:.2f})")
    return "read/new of turn " + ", ".join(words)


if __name__ == "__main__":
    run_script(main)
