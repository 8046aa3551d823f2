"""How many tokens does a turn read after the engine was restarted, and is the answer right?

    uv run python benchmarks/engines_restart.py [--home FOLDER] [--family NAME ...] [--turns 2]
                                                [--head-tokens 600] [--turn-tokens 120]

For each kind of architecture a model of random weights, tiny width and real structure is served by
the real engine with mlx-stack's additions and a folder for conversations. Two conversations with
one system prompt take turns, the engine is stopped and started again, each takes another turn, and
a third begins with the same system prompt. What is read of each against what is new; whether the
answers at temperature 0 are those of an engine that has forgotten everything; how long the stop
took, and how large the files are. Engines are installed into FOLDER, by default a temporary one.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines_turns import ADDITIONS, MODES, serving
from script import run_script

from mlx_stack.engines.environment import Environment
from mlx_stack.engines.kept_on_disk import DiskBounds
from stack_testkit.conversations import Conversation, Engine
from stack_testkit.real_engine import real_engine
from stack_testkit.tiny_families import FAMILIES, make_tiny_family

_ANSWER_TOKENS = 12
_UNBATCHED = ("parallel mamba-2", "sparse latent attention")


def main() -> None:
    """Measure each kind of model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and models are, or will be")
    parser.add_argument("--family", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--head-tokens", type=int, default=600)
    parser.add_argument("--turn-tokens", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home, folder = (options.home or Path(temporary)).absolute(), Path(temporary)
        engine, words = real_engine(home)
        for family in options.family:
            model = make_tiny_family(
                folder / family, family, tokenizer_of=words, engine_python=engine.python
            )
            said = measured(engine, model, folder / f"state of {family}", family, options)
            print(f"{family:24} {said}", flush=True)


def measured(
    engine: Environment, model: Path, state: Path, family: str, options: argparse.Namespace
) -> str:
    """What was read after the restart, in words."""
    kept = DiskBounds(state / "kept" / "tiny", 10**9)
    kept.folder.parent.mkdir(parents=True)
    mode = "ours, one at a time" if family in _UNBATCHED else "ours"

    @contextmanager
    def started(name: str) -> Iterator[Engine]:
        with serving(engine, model, state / name, ADDITIONS, MODES[mode][1], kept=kept) as served:
            yield served

    first, second, third = (
        Conversation(seed, options.head_tokens, options.turn_tokens, shortens=False)
        for seed in range(3)
    )
    second.messages[0] = third.messages[0] = first.messages[0]
    with started("before") as served:
        for _ in range(options.turns):
            for each in (first, second):
                each.next(served, _ANSWER_TOKENS)
    sizes = [path.stat().st_size for path in kept.folder.iterdir()]
    with started("after") as served:
        for each in (first, second, third):
            each.next(served, _ANSWER_TOKENS)
        right = 0
        for each in (first, second, third):
            served.forget()
            fresh = served.ask(each.messages[:-1], _ANSWER_TOKENS)
            right += fresh.answer == each.turns[-1].answer
    words = [f"{each.turns[-1].read_tokens}/{each.new_tokens()[-1]}" for each in (first, second)]
    words.append(f"{third.turns[0].read_tokens}/{third.turns[0].prompt_tokens}")
    return (
        f"read/new after the restart {' '.join(words[:2])}, read/whole of a new one with the same "
        f"system prompt {words[2]}; {right} of 3 answers the same; files {sizes}"
    )


if __name__ == "__main__":
    run_script(main)
