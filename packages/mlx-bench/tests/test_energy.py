"""Energy from what powermetrics prints; the program is replaced by one that prints the same."""

import sys
import threading
import time
from pathlib import Path

import pytest

from mlx_bench.energy import (
    PowerMeter,
    PowerSample,
    energy_between_j,
    parse_combined_watts,
    parse_elapsed_ms,
)

HEADER = "*** Sampled system activity (Sun Nov  1 10:00:00 2026 +0100) (203.19ms elapsed) ***\n"
POWER = "Combined Power (CPU + GPU + ANE): 20000 mW\n"


def test_the_lines_that_matter_are_read() -> None:
    assert parse_elapsed_ms(HEADER) == 203.19
    assert parse_combined_watts(POWER) == 20
    assert parse_combined_watts("GPU Power: 900 mW") is None
    assert parse_elapsed_ms(POWER) is None


def test_energy_is_power_over_the_time_that_overlaps() -> None:
    samples = [PowerSample(0, 10**9, 10.0), PowerSample(10**9, 2 * 10**9, 30.0)]
    assert energy_between_j(samples, 5 * 10**8, 15 * 10**8) == pytest.approx(20.0)


def test_a_gap_is_filled_by_the_mean_but_not_most_of_the_time() -> None:
    samples = [PowerSample(0, 6 * 10**8, 10.0)]
    assert energy_between_j(samples, 0, 10**9) == pytest.approx(10.0)
    assert energy_between_j(samples, 0, 2 * 10**9) is None
    assert energy_between_j([], 0, 10**9) is None
    assert energy_between_j(samples, 5, 5) is None


def test_a_meter_reads_a_running_program(tmp_path: Path) -> None:
    program = tmp_path / "powermetrics.py"
    program.write_text(
        "import time\n"
        "while True:\n"
        f"    print({HEADER!r} + {POWER!r}, end='', flush=True)\n"
        "    time.sleep(0.02)\n"
    )
    begun_ns = time.perf_counter_ns()
    with PowerMeter((sys.executable, str(program))) as meter:
        deadline = time.monotonic() + 10
        energy = None
        while energy is None and time.monotonic() < deadline:
            threading.Event().wait(0.02)
            energy = meter.energy_j(begun_ns, time.perf_counter_ns())
    assert energy is not None
    assert energy > 0
