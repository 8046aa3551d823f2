"""How exact mlx-bench is against a server whose schedule is known, and what the client costs.

    uv run python benchmarks/bench_calibration.py [--rounds 5] [--json FILE]

Each round runs every case of `mlx-bench calibrate` and the wider grid below. Printed are, over the
rounds, the median and the worst error of each case; a busy machine shows in the worst.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from mlx_bench.calibration.check import (
    CASES,
    CalibrationCase,
    CalibrationResult,
    calibration_server,
    check_case,
)
from mlx_bench.calibration.schedule import Schedule, spell_schedule

GRID = (
    *(
        CalibrationCase(Schedule(ttft_ms=ttft, tps=tps), max(8, int(tps)))
        for ttft in (50, 2000)
        for tps in (20, 200)
    ),
    CalibrationCase(Schedule(ttft_ms=200, tps=500, jitter=0.3), 500, rate_limit=0.02),
    CalibrationCase(Schedule(ttft_ms=200, tps=200, jitter=0.45, seed=5), 300),
    CalibrationCase(Schedule(ttft_ms=200, tps=200, burst=8), 400),
    CalibrationCase(Schedule(ttft_ms=200, tps=200), 400, streams=8),
)


def main() -> None:
    """Run all rounds and print one line a case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cases = (*CASES, *GRID)
    found: dict[CalibrationCase, list[CalibrationResult]] = {case: [] for case in cases}
    with calibration_server() as base_url:
        for number in range(options.rounds):
            for case in cases:
                found[case].append(check_case(base_url, case))
            print(f"round {number + 1} of {options.rounds}", flush=True)
    print(
        "\nstreams  schedule                                   TTFT off, ms    to the server, ms"
        "    rate off, %       client"
        "\n                                                   median   worst    median   worst"
        "    median   worst    CPU, %"
    )
    rows = [_row(case, results) for case, results in found.items()]
    for row in rows:
        print(_line(row))
    within = sum(result.within_limits for results in found.values() for result in results)
    print(f"\n{within} of {options.rounds * len(cases)} within their limits")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def _row(case: CalibrationCase, results: list[CalibrationResult]) -> dict[str, Any]:
    def spread(values: list[float]) -> tuple[float, float]:
        return statistics.median(values), max(values, key=abs)

    return {
        "streams": case.streams,
        "schedule": spell_schedule(case.schedule),
        "ttft_ms": spread([result.ttft_error_s * 1000 for result in results]),
        "to_server_ms": spread([result.ttft_error_to_server_s * 1000 for result in results]),
        "rate_pct": spread([result.rate_error * 100 for result in results]),
        "cpu_pct": statistics.median(result.client_cpu_share * 100 for result in results),
    }


def _line(row: dict[str, Any]) -> str:
    figures = [f"{row['streams']:7}  {row['schedule']:40}"]
    figures += ["{:+8.2f}{:+8.2f}".format(*row[name]) for name in ("ttft_ms", "to_server_ms")]
    figures.append("{:+8.3f}{:+8.3f}".format(*row["rate_pct"]))
    return "  ".join([*figures, f"{row['cpu_pct']:8.1f}"])


if __name__ == "__main__":
    main()
