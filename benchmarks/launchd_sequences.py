"""Do random things to a job on a stand-in Mac, and count how they end.

    uv run python benchmarks/launchd_sequences.py [--sequences 300] [--seed 1]

After each operation it is checked that a loaded job has its plist and a plist its job, that what
runs belongs to a loaded job, and that the operation did what was asked or raised an error that says
what happened and what to do. A breach ends the run with the sequence that led to it.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from stack_testkit.launchd_world import LABEL, World
from stack_testkit.simulated_processes import Behaviour

BEHAVIOURS = (
    Behaviour(),
    Behaviour(ends_after_s=0.3, exit_code=1),
    Behaviour(ends_after_s=2.0, exit_code=78),
    Behaviour(ignores_sigterm=True),
    Behaviour(unkillable=True),
)
FAULTS = (
    *(("bootstrap", code) for code in (1, 2, 5, 17, 37, 119, 122, 125, 141)),
    *(("bootout", code) for code in (1, 5, 36, 125, 141)),
    *(("enable", 1), ("kickstart", 113), ("print", 141), ("print", 1)),
)
DONE_ANYWAY = (5, 36)
"""Codes behind which a command was seen to have worked; a denial that does the deed was not."""
LONGEST = 12


def random_operation(dice: random.Random) -> tuple[Any, ...]:
    """Give an operation of World and its arguments."""
    name = dice.choice(
        (
            "install",
            "install",
            "uninstall",
            "crash",
            "wait",
            "program_becomes",
            "log_out",
            "log_in",
            "loaded_elsewhere",
            "change",
        )
    )
    match name:
        case "install":
            return name, dice.randint(1, 3)
        case "wait":
            return name, dice.uniform(0, 30)
        case "program_becomes":
            return name, dice.choice(BEHAVIOURS)
        case "change":
            return name, random_change(dice)
        case _:
            return (name,)


def random_change(dice: random.Random) -> dict[str, Any]:
    """Give new settings of the Mac: faults to come, delays, what is switched off, its macOS."""
    faults: list[dict[str, Any]] = []
    for _ in range(dice.randint(0, 2)):
        verb, code = dice.choice(FAULTS)
        faults.append(
            {
                "verb": verb,
                "code": code,
                "text": f"{verb} failed: {code}",
                "times": 1 if verb == "print" else dice.randint(1, 3),
                "does_it_anyway": code in DONE_ANYWAY and dice.random() < 0.5,
            }
        )
    return {
        "faults": faults,
        "ghost_s": dice.choice((0.0, 0.4, 2.5, 60.0)),
        "teardown_s": dice.choice((0.0, 0.6, 4.0)),
        "bootout_code": dice.choice((0, 36)),
        "loaded_code": dice.choice((5, 37, 17)),
        "login_items_off": dice.choice(([], [], [LABEL])),
        "overrides": dice.choice(({}, {"501": {LABEL: True}})),
        "macos": dice.choice(("11.7", "14.2", "15.7.9", "26.5.1", "27.0")),
    }


def main() -> int:
    """Run the sequences and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    dice = random.Random(options.seed)
    tally: Counter[str] = Counter()
    operations = 0
    began = time.monotonic()
    for number in range(options.sequences):
        sequence = [random_operation(dice) for _ in range(dice.randint(1, LONGEST))]
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            for name, *arguments in sequence:
                try:
                    world.do(name, *arguments)
                except AssertionError as error:
                    print(f"sequence {number}, {name}: {error}")
                    print(*sequence, sep="\n")
                    return 1
                operations += 1
            tally += world.tally
    seconds = time.monotonic() - began
    print(f"{options.sequences} sequences, {operations} operations, {seconds:.1f} s, no breach")
    for end, count in sorted(tally.items()):
        print(f"  {end:<32} {count:5}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
