"""Lines lost when a log is rotated under its writer: copy, truncate, compress.

    uv run python benchmarks/procsup_rotation.py [--rate 5000] [--rotations 20]

A writer in its own process prints numbered lines, one `write` each, at a steady rate; the log
is rotated again and again. Every line that is missing in the archives and the log together is lost.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from script import run_script

from mlx_procsup import all_lines, rotate_log

WRITER = """
import os, sys, time
rate, seconds = float(sys.argv[1]), float(sys.argv[2])
started, number = time.perf_counter(), 0
while (now := time.perf_counter() - started) < seconds:
    if number < now * rate:
        os.write(1, f"line {number} of a log of requests, of the usual length\\n".encode())
        number += 1
os.write(1, f"line {number} is the last\\n".encode())
"""


def main() -> int:
    """Rotate and count."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=5000, help="lines a second")
    parser.add_argument("--rotations", type=int, default=20)
    parser.add_argument("--every-s", type=float, default=0.5)
    options = parser.parse_args()
    seconds = (options.rotations + 2) * options.every_s
    with tempfile.TemporaryDirectory(prefix="procsup-rotation-") as folder:
        log = Path(folder) / "writer.log"
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        arguments = (str(options.rate), str(seconds))
        with subprocess.Popen((sys.executable, "-c", WRITER, *arguments), stdout=handle) as writer:
            os.close(handle)
            for _ in range(options.rotations):
                time.sleep(options.every_s)
                rotate_log(log, max_files=options.rotations + 1)
            writer.wait()
        numbers = [int(line.split()[1]) for line in all_lines(log)]
    total, kept = max(numbers) + 1, len(set(numbers))
    rate = total / seconds
    print(f"{total} lines written, {rate:.0f} a second, {options.rotations} rotations")
    print(
        f"lost: {total - kept}, twice: {len(numbers) - kept}, out of order: "
        f"{sum(a > b for a, b in pairwise(numbers))}"
    )
    return 0 if total - kept <= 5 else 1


if __name__ == "__main__":
    run_script(main)
