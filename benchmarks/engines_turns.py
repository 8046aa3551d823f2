"""How many tokens a turn of a conversation costs in each mode of the engine, and if it is right.

    uv run python benchmarks/engines_turns.py [--home FOLDER] [--family NAME ...] [--mode NAME ...]
                                              [--turns 4] [--head-tokens 600] [--turn-tokens 120]

For each kind of architecture a model of random weights, tiny width and real structure is served by
the real engine. Two conversations take turns; then two whose client shortens each answer in the
history, as those do that leave the thinking out; then two ask at the same time. For each turn: the
tokens that the engine read, by its own log (its simple mode says nothing of what it spares, and
counts as if it read all), against those that are new; and whether the answer at temperature 0 is
the one that the engine gives when it keeps nothing. Engines are installed into FOLDER, by default
a temporary one.
"""

import argparse
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from script import run_script

from mlx_catalog import Quant
from mlx_procsup import HttpReadiness, ProcessSpec, StateDirs, start_service, stop_service
from mlx_procsup import wait_for_healthy as wait_until_ready
from mlx_stack.child_environment import inherited_environment
from mlx_stack.engines import guard, vllm_mlx
from mlx_stack.engines.environment import Environment
from mlx_stack.engines.kept_on_disk import VARIABLE, DiskBounds
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import FlagValue, Tier
from stack_testkit.conversations import Conversation, Engine
from stack_testkit.real_engine import real_engine
from stack_testkit.tiny_families import FAMILIES, make_tiny_family

_BATCHING: dict[str, FlagValue] = {"continuous-batching": True, "max-num-seqs": 4}
_KEEPING = _BATCHING | {"cache-memory-mb": 512}
ADDITIONS = tuple(str(Path(guard.__file__).with_name(f"{name}.py")) for name in guard.ADDITIONS)
_FIXES = ADDITIONS[:1]
"""Without them, prompts that are read together get wrong answers, whatever is kept."""
MODES: dict[str, tuple[tuple[str, ...], dict[str, FlagValue]]] = {
    "nothing kept": (_FIXES, _BATCHING | {"disable-prefix-cache": True}),
    "simple": ((), {}),
    "batching": ((), _KEEPING),
    "batching, chunked": ((), _KEEPING | {"chunked-prefill-tokens": 256}),
    "ours": (ADDITIONS, _KEEPING),
    "ours, one at a time": (ADDITIONS, _KEEPING | {"max-num-seqs": 1}),
}
"""What is applied to the engine, and its flags."""
_START = """
import runpy, sys
for each in {applied!r}:
    runpy.run_path(each)["apply"]()
from vllm_mlx.cli import main
sys.argv[0] = "vllm-mlx"
main()
"""


@contextmanager
def serving(
    engine: Environment,
    model: Path,
    state: Path,
    applied: tuple[str, ...],
    flags: Any,
    *,
    kept: DiskBounds | None = None,
) -> Iterator[Engine]:
    """The model behind the engine with these flags; with `kept`, conversations are kept there."""
    (port,) = free_ports(1)
    tier = Tier(
        name="tiny",
        model="tiny",
        quant=Quant.BF16,
        source=str(model),
        port=port,
        vllm_flags=flags,
    )
    dirs = StateDirs(state / "pids", state / "run", state / "logs")
    dirs.create()
    start = (str(engine.python), "-I", "-u", "-c", _START.format(applied=applied))
    spec = ProcessSpec(
        name=tier.name,
        command=vllm_mlx.command(start, tier, model),
        env={
            **inherited_environment(),
            **vllm_mlx.environment(state / "huggingface"),
            **({VARIABLE: kept.render()} if kept is not None else {}),
        },
        cwd=state,
        readiness=HttpReadiness(f"http://127.0.0.1:{port}/v1/models"),
    )
    try:
        wait_until_ready(start_service(spec, dirs), 120)
        yield Engine(f"http://127.0.0.1:{port}", dirs.log_file(tier.name))
    finally:
        stop_service(tier.name, dirs)


def play(engine: Engine, options: argparse.Namespace) -> dict[str, list[Conversation]]:
    """All conversations, two at a time."""
    played: dict[str, list[Conversation]] = {}
    for number, name in enumerate(("continued", "answers shortened", "at once")):
        pair = [
            Conversation(
                2 * number + which,
                options.head_tokens + 37 * which,
                options.turn_tokens,
                shortens=name == "answers shortened",
            )
            for which in range(2)
        ]
        for _ in range(options.turns):
            if name == "at once":
                with ThreadPoolExecutor() as pool:
                    list(pool.map(lambda each: each.next(engine), pair))
                continue
            for conversation in pair:
                conversation.next(engine)
        played[name] = pair
    return played


def main() -> None:
    """Measure each mode for each kind of model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where engines and models are, or will be")
    parser.add_argument("--family", nargs="*", default=list(FAMILIES), choices=FAMILIES)
    parser.add_argument("--mode", nargs="*", default=list(MODES), choices=MODES)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--head-tokens", type=int, default=600)
    parser.add_argument("--turn-tokens", type=int, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home = (options.home or Path(temporary)).absolute()
        engine, words = real_engine(home)
        for family in options.family:
            model = make_tiny_family(
                Path(temporary) / family, family, tokenizer_of=words, engine_python=engine.python
            )
            right: dict[str, list[Conversation]] | None = None
            for mode in ["nothing kept", *options.mode]:
                if mode == "nothing kept" and right is not None:
                    continue
                applied, flags = MODES[mode]
                state = Path(temporary) / f"{family}-{mode}"
                try:
                    with serving(engine, model, state, applied, flags) as served:
                        played = play(served, options)
                except (httpx.HTTPError, KeyError) as error:
                    print(
                        f"{family:18} {mode:24} failed: {type(error).__name__}: {error}", flush=True
                    )
                    continue
                right = right or played
                _report(family, mode, played, right)


def _report(
    family: str,
    mode: str,
    played: dict[str, list[Conversation]],
    right: dict[str, list[Conversation]],
) -> None:
    for name, pair in played.items():
        reads = [[turn.read_tokens for turn in each.turns] for each in pair]
        new = [each.new_tokens() for each in pair]
        worst = max(
            read / max(1, fresh)
            for of_one, fresh_of_one in zip(reads, new, strict=True)
            for read, fresh in list(zip(of_one, fresh_of_one, strict=True))[1:]
        )
        pairs = [
            (turn.answer, other.answer)
            for each, reference in zip(pair, right[name], strict=True)
            for turn, other in zip(each.turns, reference.turns, strict=True)
        ]
        same = sum(one == other for one, other in pairs)
        differing = len({one for one, _ in pairs})
        print(
            f"{family:18} {mode:24} {name:18} read {reads} new {new[0]} worst {worst:.2f}x, "
            f"{same} of {len(pairs)} answers the same ({differing} different ones)",
            flush=True,
        )


if __name__ == "__main__":
    run_script(main)
