"""mlx-recommend and llmfit 1.1.17 on the same published MLX measurements, as a yardstick.

    uv run python benchmarks/recommend_llmfit.py [LLMFIT]

LLMFIT is its program (`pip install llmfit==1.1.17` in its own environment); without it,
`llmfit` on PATH. Each machine becomes a hardware profile with its memory and advertised bandwidth,
each measurement a `llmfit plan --quant mlx-4bit` (or 8bit) at the measured context. mlx-recommend
predicts each chip with constants that were fitted to the other chips only.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

from recommend_calibrate import decode_estimate, leaving_out
from recommend_measurements import DATA, Row, measurements

QUANTS = {4.5: "mlx-4bit", 8.5: "mlx-8bit"}


def main() -> None:
    """Print the errors of both, over all comparable rows and by chip."""
    program = sys.argv[1] if len(sys.argv) > 1 else "llmfit"
    repos = {
        name: str(model["source"]).removeprefix("config.json of ")
        for name, model in json.loads((DATA / "measured_models.json").read_text())["models"].items()
    }
    theirs: dict[str, list[float]] = {}
    ours: dict[str, list[float]] = {}
    unknown: set[str] = set()
    rows = measurements()
    constants = leaving_out(rows, lambda row: row.chip)
    with tempfile.TemporaryDirectory() as folder:
        plan = _planner(program, Path(folder))
        for row in rows:
            quant = QUANTS.get(row.bits_per_weight)
            if quant is None or row.model not in repos or not row.generation_tps:
                continue
            predicted = plan(_profile(row), repos[row.model], row.context_tokens, quant)
            if predicted is None:
                unknown.add(repos[row.model])
                continue
            ours_now = decode_estimate(row, constants(row))
            for group in ("all", row.chip):
                theirs.setdefault(group, []).append(abs(predicted / row.generation_tps - 1))
                ours.setdefault(group, []).append(abs(ours_now / row.generation_tps - 1))
    for group, errors in theirs.items():
        print(f"{group:9} n={len(errors):3}  llmfit median {statistics.median(errors):5.1%}"
              f" mean {statistics.mean(errors):5.1%}   mlx-recommend median"
              f" {statistics.median(ours[group]):5.1%} mean {statistics.mean(ours[group]):5.1%}"
              )  # fmt: skip
    if unknown:
        print("not in llmfit's database:", ", ".join(sorted(unknown)))


def _profile(row: Row) -> str:
    """A hardware profile of llmfit's for the machine of a measurement, as JSON."""
    bandwidth = row.machine.bandwidth_gb_s
    return json.dumps(
        {
            "schema_version": 1,
            "name": row.hardware_spec.replace(":", "-"),
            "match": {"gpu_name_contains": f"Apple {row.chip}"},
            "hardware": {
                "total_ram_gb": float(row.memory_gb),
                "unified_memory": True,
                "gpu_memory_bandwidth_gbps": bandwidth,
                "ddr_bandwidth_gbps": bandwidth,
            },
        }
    )


def _planner(program: str, folder: Path):
    @cache
    def plan(profile: str, repo: str, context: int, quant: str) -> float | None:
        path = folder / f"{json.loads(profile)['name']}.json"
        path.write_text(profile)
        command = (program, "--profile", str(path), "plan", repo)
        options = ("--context", str(context), "--quant", quant, "--json")
        done = subprocess.run(
            (*command, *options), capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode != 0:
            return None
        paths = json.loads(done.stdout)["run_paths"]
        return next(each["estimated_tps"] for each in paths if each["path"] == "gpu")

    return plan


if __name__ == "__main__":
    main()
