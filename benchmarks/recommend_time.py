"""How long a recommendation takes: from the shell, and for thousands of entries.

    uv run python benchmarks/recommend_time.py

Prints medians, of the clock and of CPU time, which other work on the machine changes less. The
first part runs `mlx-stack recommend --json` with the whole catalog, a process each time; the second
scores and plans 5,000 entries made by varying the catalog's.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec

from mlx_catalog import CatalogEntry, Quant, load_catalog
from mlx_hwprobe import HardwareProfile, parse_hardware_spec
from mlx_recommend import budget_bytes, candidate_of, make_plan

RUNS = 15
ENTRIES = 5_000
SPEC = "m4-max:40:128"


def main() -> None:
    """Measure both."""
    from_shell = [_from_shell() for _ in range(RUNS)]
    print(f"mlx-stack recommend --json: {_in_words(from_shell)} (target 0.6 s on an idle machine)")
    entries, mac = _many_entries(), parse_hardware_spec(SPEC)
    planning = [_plan(entries, mac) for _ in range(5)]
    print(f"scoring and planning {ENTRIES:,} entries: {_in_words(planning)} (target 2 s)")


type Seconds = tuple[float, float]
"""By the clock, and of CPU."""


def _from_shell() -> Seconds:
    program = Path(sys.executable).with_name("mlx-stack")
    with tempfile.TemporaryDirectory() as home:
        began, used = time.perf_counter(), _cpu_of_children()
        subprocess.run(
            (str(program), "recommend", "--hardware", SPEC, "--json"),
            env={**os.environ, "MLX_STACK_HOME": home},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began, _cpu_of_children() - used


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _many_entries() -> list[CatalogEntry]:
    catalog = tuple(load_catalog())
    rounds = ENTRIES // len(catalog) + 1
    return [
        msgspec.structs.replace(
            entry, id=f"{entry.id}-{number}", params_b=entry.params_b * (1 + number / 997)
        )
        for number in range(rounds)
        for entry in catalog
    ][:ENTRIES]


def _plan(entries: list[CatalogEntry], mac: HardwareProfile) -> Seconds:
    budget = budget_bytes(mac)
    assert budget is not None
    began, used = time.perf_counter(), time.process_time()
    candidates = [candidate_of(entry, Quant.INT4, allow_gated=True) for entry in entries]
    make_plan(candidates, mac, budget_bytes=budget)
    return time.perf_counter() - began, time.process_time() - used


def _in_words(runs: list[Seconds]) -> str:
    seconds, used = zip(*runs, strict=True)
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    clock = f"median {middle:.2f} s, {low:.2f} to {high:.2f} s over {len(seconds)} runs"
    return f"{clock}, {statistics.median(used):.2f} s of CPU"


if __name__ == "__main__":
    main()
