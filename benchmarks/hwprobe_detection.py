"""How long detecting a Mac takes: the probe's own time, and whether its programs run side by side.

    uv run python benchmarks/hwprobe_detection.py [--runs 20] [--json]

On a Mac it times `detect()` as it is. Elsewhere it puts programs on PATH that take as long as
macOS's own may take on an idle Mac (an assumption, below) and print one Mac's output.
The exit code is 1 where the median is above the limit.
"""

import argparse
import functools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mlx_hwprobe import HardwareProfile, detect
from mlx_hwprobe.detection import run_programs

LIMIT_S = 0.150

SYSCTL = """\
hw.memsize: 68719476736
hw.model: Mac16,9
machdep.cpu.brand_string: Apple M4 Max
sysctl.proc_translated: 0
iogpu.wired_limit_mb: 0
hw.nperflevels: 2
hw.perflevel0.name: Performance
hw.perflevel0.physicalcpu: 12
hw.perflevel1.name: Efficiency
hw.perflevel1.physicalcpu: 4
"""
# Seconds each program takes, and what it prints.
PROGRAMS = {
    "sysctl": (0.005, SYSCTL),
    "ioreg": (0.030, '"model" = "Apple M4 Max"\n"gpu-core-count" = 40\n'),
    "sw_vers": (0.020, "ProductName:\t\tmacOS\nProductVersion:\t\t26.4\n"),
}


def install(folder: Path) -> None:
    """Put the stand-in programs into a folder."""
    for name, (seconds, text) in PROGRAMS.items():
        program = folder / name
        program.write_text(f"#!/bin/sh\n/bin/sleep {seconds}\n/bin/cat <<'END'\n{text}END\n")
        program.chmod(0o755)


def time_detection(runs: int) -> tuple[list[float], HardwareProfile]:
    """Seconds of each detection after a first one, and what was detected."""
    with tempfile.TemporaryDirectory() as name:
        look = detect
        if sys.platform != "darwin":
            install(Path(name))
            run = functools.partial(run_programs, search_path=name)
            look = functools.partial(detect, platform="darwin", run=run)
        profile = look()
        seconds: list[float] = []
        for _ in range(runs):
            started = time.perf_counter()
            look()
            seconds.append(time.perf_counter() - started)
    return seconds, profile


def main() -> int:
    """Time detection and compare the median with the limit."""
    parser = argparse.ArgumentParser(description="Time detecting a Mac.")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds, profile = time_detection(arguments.runs)
    median = statistics.median(seconds)
    result = {
        "profile_id": profile.profile_id,
        "stand_ins": sys.platform != "darwin",
        "median_s": median,
        "low_s": min(seconds),
        "high_s": max(seconds),
        "limit_s": LIMIT_S,
    }
    if arguments.json:
        print(json.dumps(result, indent=2))
    else:
        kind = "stand-in programs" if result["stand_ins"] else "this Mac"
        print(f"{profile.profile_id} on {kind}: median {median * 1000:.0f} ms, ", end="")
        print(f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f} ms", end="")
        print(f" (limit {LIMIT_S * 1000:.0f} ms)")
    return int(median > LIMIT_S)


if __name__ == "__main__":
    sys.exit(main())
