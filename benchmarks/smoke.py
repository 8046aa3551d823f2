"""Whether the scripts of this folder still run: each with small numbers, none for its figures.

    uv run python benchmarks/smoke.py [SCRIPT …]

A script fails here where it ends with a traceback or takes too long; a figure beyond its limit is
no failure, since the machine may be busy. Scripts that need more than the repository are left out.
"""

import subprocess
import sys
import time
from pathlib import Path

from script import run_script

HERE = Path(__file__).parent
TIMEOUT_S = 180

SMALL: dict[str, tuple[str, ...]] = {
    "bench_agents": ("--rounds", "1", "--prefix-tokens", "1000"),
    "bench_calibration": ("--rounds", "1"),
    "bench_tune": ("--rounds", "1"),
    "catalog_load": (),
    "delivery_prefills": ("--count", "50"),
    "demand_cold_start": ("--rounds", "1"),
    "demand_day": ("--days", "1"),
    "demand_histories": ("--histories", "2"),
    "engine_proof": ("--requests", "50"),
    "gateway_ledger": ("keys", "writers"),
    "gateway_nodes": ("--agents", "4", "--turns", "2", "--prefix-tokens", "2000", "--rounds", "1"),
    "gateway_prompts": ("0.1",),
    "gateway_relay": ("ready", "lone", "fallback"),
    "house_lines": ("mlx-stack",),
    "hwprobe_detection": ("--runs", "3"),
    "hwprobe_startup": ("--runs", "3"),
    "launchd_sequences": ("--sequences", "20"),
    "procsup_chaos": ("--faults", "15"),
    "procsup_rest": ("--minutes", "0.1", "--interval", "2"),
    "procsup_rotation": ("--rotations", "2"),
    "procsup_status": ("--services", "4", "--runs", "1"),
    "procsup_timings": ("--log-gb", "0.1"),
    "pull_faults": ("--schedules", "10"),
    "pull_kill": ("--size-mb", "8", "--kills", "2"),
    "pull_memory": ("--sizes-mb", "5,50"),
    "pull_throughput": ("--rounds", "1"),
    "recommend_accuracy": (),
    "recommend_calibrate": (),
    "recommend_time": (),
    "stack_up": ("--rounds", "1"),
}
"""Arguments that make a run short."""

LEFT_OUT = {
    "bare_relay": "is started by gateway_relay.py",
    "bench_agreement": "needs a server, vllm-mlx and guidellm",
    "catalog_comparison": "installs packages from PyPI",
    "engines_agents": "installs the engines",
    "engines_conversation": "installs the engines",
    "engines_liveness": "installs the engines",
    "engines_macs": "installs the engines",
    "engines_prefill": "installs the engines",
    "engines_restart": "installs the engines",
    "engines_turns": "installs the engines",
    "gateway_fuzz": "needs a running stack",
    "gateway_others": "installs packages from PyPI and npm, for gateway_relay.py",
    "gateway_choice": "needs servers and clients that nothing else here needs",
    "launchd_exit_codes": "runs the tests of mlx-launchd once for each code",
    "page": "needs Chromium",
    "reading_models": "needs the engines, or a running stack",
    "reading_weights": "is imported by reading_models",
    "recommend_llmfit": "needs llmfit",
    "recommend_measurements": "is imported by the others",
    "script": "is imported by the others",
    "smoke": "is this script",
    "stack_startup": "installs packages from PyPI",
}


def main() -> int:
    """Run what was asked for, or everything; 1 if a script doesn't run."""
    known = SMALL.keys() | LEFT_OUT.keys()
    unknown = {path.stem for path in HERE.glob("*.py")} ^ known
    if unknown:
        print(f"in the folder or in this script's tables only: {', '.join(sorted(unknown))}")
    failed = [name for name in sys.argv[1:] or SMALL if not runs(name)]
    for name in failed:
        print(f"{name} doesn't run")
    return 1 if failed or unknown else 0


def runs(name: str) -> bool:
    """Whether a script runs to its end; what it says of a failure is printed."""
    began = time.monotonic()
    command = (sys.executable, str(HERE / f"{name}.py"), *SMALL.get(name, ()))
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as done:
        try:
            out, err = done.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"{name}: not done after {TIMEOUT_S} s")
            done.terminate()
            done.communicate()
            return False
    well = "Traceback" not in err and done.returncode in (0, 1)
    print(f"{name}: {time.monotonic() - began:.1f} s, exit code {done.returncode}", flush=True)
    if not well:
        print(out[-1000:], err[-3000:], sep="\n")
    return well


if __name__ == "__main__":
    run_script(main)
