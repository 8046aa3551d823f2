"""How long a recommendation takes: from the shell, and for thousands of entries.

    uv run python benchmarks/recommend_time.py

Prints medians. The first part runs `mlx-stack recommend --json` with the whole catalog, a process
each time; the second scores and plans 5,000 entries made by varying the catalog's.
"""

import os
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
    print(f"mlx-stack recommend --json: {_in_words(from_shell)} (target 0.6 s)")
    entries, mac = _many_entries(), parse_hardware_spec(SPEC)
    planning = [_plan(entries, mac) for _ in range(5)]
    print(f"scoring and planning {ENTRIES:,} entries: {_in_words(planning)} (target 2 s)")


def _from_shell() -> float:
    program = Path(sys.executable).with_name("mlx-stack")
    with tempfile.TemporaryDirectory() as home:
        began = time.perf_counter()
        subprocess.run(
            (str(program), "recommend", "--hardware", SPEC, "--json"),
            env={**os.environ, "MLX_STACK_HOME": home},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - began


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


def _plan(entries: list[CatalogEntry], mac: HardwareProfile) -> float:
    budget = budget_bytes(mac)
    assert budget is not None
    began = time.perf_counter()
    candidates = [candidate_of(entry, Quant.INT4, allow_gated=True) for entry in entries]
    make_plan(candidates, mac, budget_bytes=budget)
    return time.perf_counter() - began


def _in_words(seconds: list[float]) -> str:
    low, middle, high = min(seconds), statistics.median(seconds), max(seconds)
    return f"median {middle:.2f} s, {low:.2f} to {high:.2f} s over {len(seconds)} runs"


if __name__ == "__main__":
    main()
