"""Does `bench --tune` decide right, where what each setting does is known?

    uv run python benchmarks/bench_tune.py [--rounds 20] [--seed 1] [--tokens-per-s 200]

The stand-in engine is given four effects for four settings of the tuner's own, drawn anew in each
round: one makes it 8 % faster, one 5 % slower, one 0.5 % faster, and one 10 % faster with other
answers. `mlx-stack bench --tune` then decides. Right is: only the first is kept.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from script import run_script

from mlx_stack.home import Home
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

EFFECTS = {"faster": "1.08", "slower": "0.95", "noise": "1.005", "answers": "words"}
SETTINGS = (
    {"stream-interval": 4},
    {"stream-interval": 8},
    {"prefill-step-size": 1024},
    {"prefill-step-size": 2048},
    {"prefill-step-size": 4096},
)
"""What the tuner tries with every model, and the stand-in can see on its command line."""
FASTER_TOO = "1.1"
STAND_IN = {"paced": 0.01, "prefill-tps": 400}
"""Its speed varies by 1 % from request to request, and not with how busy this machine is."""


def main() -> int:
    """Play the rounds; 1 if one is decided wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tokens-per-s", type=float, default=200)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    right = 0
    for number in range(1, options.rounds + 1):
        planted = dict(zip(EFFECTS, draw.sample(SETTINGS, len(EFFECTS)), strict=True))
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            found = tune(Path(folder), planted, 1 / options.tokens_per_s)
            took_s = time.monotonic() - began
        outcomes = {name: outcome_of(found, settings) for name, settings in planted.items()}
        kept = found["vllm_flags"] or {}
        own = ("planted", "token-delay", *STAND_IN)
        kept = {name: value for name, value in kept.items() if name not in own}
        is_right = kept == planted["faster"] and found["is_finished"]
        right += is_right
        words = ", ".join(f"{name}: {outcome}" for name, outcome in outcomes.items())
        print(f"{number:3} {'right' if is_right else 'WRONG'} {took_s:4.0f} s  {words}", flush=True)
        if not is_right:
            print(json.dumps(found["trials"]), file=sys.stderr)
    print(f"{right} of {options.rounds} right")
    return 0 if right == options.rounds else 1


def tune(folder: Path, planted: dict[str, dict[str, int]], token_delay: float) -> Any:
    """What the tuner says of a stand-in with these effects."""
    home = Home(folder / "home")
    install_fake_engines(home)
    flags = {"planted": effects(planted), "token-delay": token_delay, **STAND_IN}
    define_stack(home, {"standard": flags})
    asked = ("--tune", "--prompt-tokens", "40", "--generation-tokens", "48", "--json")
    done = Program(home, {}).run("bench", "standard", *asked, timeout_s=600)
    if done.code:
        raise SystemExit(done.err)
    return done.document


def effects(planted: dict[str, dict[str, int]]) -> str:
    """The stand-in's `--planted`."""
    found: list[str] = []
    for name, settings in planted.items():
        ((flag, value),) = settings.items()
        found.append(f"{flag}={value}:{EFFECTS[name]}")
        if name == "answers":
            found.append(f"{flag}={value}:{FASTER_TOO}")
    return ",".join(found)


def outcome_of(found: Any, settings: dict[str, int]) -> str:
    """What was made of a setting."""
    for trial in found["trials"]:
        if trial["step"] == "single" and trial["settings"] == settings:
            return f"{trial['outcome']} ({trial['gain'] - 1:+.1%})"
    return "not tried"


if __name__ == "__main__":
    run_script(main)
