"""How long `mlx-hwprobe lookup` and `table` take from start to finish, against an empty Python.

    uv run python benchmarks/hwprobe_startup.py [--runs 30] [--json]

The three commands take turns, so that a busy machine is busy for all of them; each ratio is that of
the medians. The exit code is 1 where a ratio is above the limit.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

LIMIT = 7.0

PROGRAM = str(Path(sys.executable).with_name("mlx-hwprobe"))
COMMANDS = {
    "empty Python": (sys.executable, "-c", "pass"),
    "lookup": (PROGRAM, "lookup", "M4 Max"),
    "lookup --json": (PROGRAM, "lookup", "M4 Max", "--gpu-cores", "32", "--json"),
    "table": (PROGRAM, "table"),
    "table --json": (PROGRAM, "table", "--json"),
}


def time_once(command: tuple[str, ...]) -> float:
    """Seconds from the start of a command to its end."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def main() -> int:
    """Time every command in turns and compare the medians."""
    parser = argparse.ArgumentParser(description="Time lookup and table.")
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    for command in COMMANDS.values():
        time_once(command)  # so that the first reading of the disk doesn't count
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(arguments.runs):
        for name, command in COMMANDS.items():
            seconds[name].append(time_once(command))
    medians = {name: statistics.median(runs) for name, runs in seconds.items()}
    ratios = {name: median / medians["empty Python"] for name, median in medians.items()}
    if arguments.json:
        print(json.dumps({"limit": LIMIT, "median_s": medians, "ratio": ratios}, indent=2))
    else:
        for name, ratio in ratios.items():
            print(f"{name:<14} {medians[name] * 1000:6.1f} ms   {ratio:4.1f}x")
        print(f"limit: {LIMIT:g}x")
    return int(max(ratios.values()) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
