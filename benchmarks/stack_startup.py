"""How fast the program answers, compared with the other `mlx-stack` on PyPI.

    uv run python benchmarks/stack_startup.py [--rounds 7] [--rival FOLDER]

Both programs run in one session, in turn, each with a home that doesn't exist. Without --rival the
other program is installed with uv into a temporary environment. Printed are medians of the wall
time and of the processor time (which a busy machine disturbs less), and how they relate.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

RIVAL = "mlx-stack==0.3.8"
COMPLETION = {
    "_MLX_STACK_COMPLETE": "bash_complete",
    "COMP_WORDS": "mlx-stack st",
    "COMP_CWORD": "1",
}


class Case(NamedTuple):
    """One command line, and the largest share of the rival's time that it may take."""

    name: str
    arguments: tuple[str, ...]
    allowed: float
    variables: Mapping[str, str]


CASES = (
    Case("--version", ("--version",), 1 / 8, {}),
    Case("completion", (), 1 / 8, COMPLETION),
    Case("--help", ("--help",), 1 / 4, {}),
    Case("status, no stack", ("status",), 1 / 4, {}),
    Case("status --json, no stack", ("status", "--json"), 1 / 4, {}),
)


class Cost(NamedTuple):
    """What one run took, in seconds."""

    wall_s: float
    cpu_s: float


def main() -> int:
    """Measure, print, and exit with 1 where a share is larger than allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rival", type=Path, help="an environment that has the other program")
    options = parser.parse_args()
    ours = Path(sys.executable).with_name("mlx-stack")
    with tempfile.TemporaryDirectory() as scratch:
        environment = options.rival or install_rival(Path(scratch) / "rival")
        theirs = environment / "bin" / "mlx-stack"
        print(f"medians of {options.rounds} rounds, milliseconds (wall / processor)\n")
        print(f"{'':<24} {'ours':>13} {'rival':>15}   share (wall, processor, allowed)")
        worst = [compare(case, ours, theirs, options.rounds, Path(scratch)) for case in CASES]
    return 0 if all(worst) else 1


def compare(case: Case, ours: Path, theirs: Path, rounds: int, scratch: Path) -> bool:
    """Measure one case and print its line; whether ours is fast enough."""
    runs = [(run(ours, case, scratch), run(theirs, case, scratch)) for _ in range(rounds + 1)][1:]
    mine, other = (median([pair[side] for pair in runs]) for side in (0, 1))
    wall, cpu = mine.wall_s / other.wall_s, mine.cpu_s / other.cpu_s
    print(
        f"{case.name:<24} {mine.wall_s * 1e3:6.0f} /{mine.cpu_s * 1e3:5.0f} "
        f"{other.wall_s * 1e3:7.0f} /{other.cpu_s * 1e3:6.0f}   "
        f"1/{1 / wall:<5.1f} 1/{1 / cpu:<5.1f} 1/{1 / case.allowed:.0f}"
    )
    return wall <= case.allowed and cpu <= case.allowed


def run(program: Path, case: Case, scratch: Path) -> Cost:
    """One run of a program, its output thrown away."""
    homes = {"MLX_STACK_HOME": str(scratch / "no-home"), "HOME": str(scratch)}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run(
        (program, *case.arguments),
        env={**os.environ, **homes, **case.variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    wall_s = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(wall_s, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def median(costs: list[Cost]) -> Cost:
    """The medians of each figure by itself."""
    return Cost(
        statistics.median(cost.wall_s for cost in costs),
        statistics.median(cost.cpu_s for cost in costs),
    )


def install_rival(environment: Path) -> Path:
    """An environment with the other program."""
    subprocess.run(("uv", "venv", "--quiet", "--python", sys.executable, environment), check=True)
    python = environment / "bin" / "python"
    subprocess.run(("uv", "pip", "install", "--quiet", "--python", python, RIVAL), check=True)
    return environment


if __name__ == "__main__":
    sys.exit(main())
