"""How fast a pull is compared with `huggingface_hub.snapshot_download`, on the same files and hub.

    uv run python benchmarks/pull_throughput.py [--rounds 3] [--json]

The hub on loopback offers every large file both ways, as the real one does: over Xet, which
`snapshot_download` takes in its default setting, and over plain HTTP, which it takes with
`HF_HUB_DISABLE_XET=1`. A pull takes plain HTTP. Two cases: no limits, and 50 ms before every
answer and 20 MB/s a connection; each with one large file and with four of equal size. Every side
runs in its own process, starts with nothing, and is timed without the interpreter's start and
imports. Ours also hashes every file and brings it to the disk; the others do neither. The
stand-in's xorbs hold 64 MB of chunks that are neither compressed nor repeated. The exit code is 1
where either way of `snapshot_download` takes less than 0.8 of the time of a pull.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from script import run_script

from stack_testkit.hub import HubServer, Settings, write_repository

MB = 1_000_000
SHAPES = {"one": (200,), "four": (60, 60, 60, 60)}
CASES = {
    "no limits": Settings(offers_xet=True),
    "50 ms, 20 MB/s a connection": Settings(offers_xet=True, latency_s=0.05, rate_bytes_s=20 * MB),
}
LEAST = {"xet": 0.8, "plain": 0.8}
"""How many times as fast as each way of `snapshot_download` a pull must be."""
THEIRS = """
import sys, time
from huggingface_hub import snapshot_download
began = time.perf_counter()
snapshot_download(sys.argv[1], local_dir=sys.argv[2])
print(time.perf_counter() - began)
"""
OURS = """
import sys, time
from pathlib import Path
from mlx_stack.home import Home
from mlx_stack.models.hub import client
from mlx_stack.models.pull import pull
from mlx_stack.open_stack import OpenStack
began = time.perf_counter()
pull(OpenStack(Home(Path(sys.argv[2]))), sys.argv[1])
print(time.perf_counter() - began)
"""


def main() -> int:
    """Run the benchmark; 1 where a ratio is too low."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="pull-throughput-") as folder:
        chance = random.Random(0)
        for name, sizes_mb in SHAPES.items():
            files = {
                f"model-{number}.safetensors": chance.randbytes(size * MB)
                for number, size in enumerate(sizes_mb)
            }
            write_repository(Path(folder, "hub"), f"bench/{name}", {"config.json": b"{}", **files})
        with HubServer(Path(folder, "hub")) as hub:
            for name in SHAPES:  # hash everything before a clock runs
                repository = hub.repository(f"bench/{name}")
                assert repository is not None
                repository.tree(hub.settings.lfs_from_bytes)
                for path in repository.paths():
                    hub.xet_file(repository, path)
            for case, settings in CASES.items():
                hub.configure(settings)
                results += [
                    compare(hub, Path(folder), case, name, options.rounds) for name in SHAPES
                ]
    if options.json:
        print(json.dumps(results))
    for result in results if not options.json else ():
        print("{case:28} {files:5} xet {xet_s:6.2f} s  plain {plain_s:6.2f} s  "
              "ours {ours_s:6.2f} s  {xet_ratio:5.2f}x of xet, {plain_ratio:5.2f}x of plain"
              .format(**result))  # fmt: skip
    return 0 if all(result["ok"] for result in results) else 1


def compare(hub: HubServer, folder: Path, case: str, name: str, rounds: int) -> dict[str, object]:
    """The medians of all sides, in turns."""
    taken: dict[str, list[float]] = {"xet": [], "plain": [], "ours": []}
    for _ in range(rounds):
        before = len(hub.requests)
        taken["xet"].append(run(hub, THEIRS, name, folder))
        if not any(request.path.startswith("/xorbs/") for request in hub.requests[before:]):
            raise SystemExit("huggingface_hub did not take Xet: is hf_xet installed?")
        taken["plain"].append(run(hub, THEIRS, name, folder, HF_HUB_DISABLE_XET="1"))
        taken["ours"].append(run(hub, OURS, name, folder))
    medians = {side: statistics.median(times) for side, times in taken.items()}
    ratios = {side: medians[side] / medians["ours"] for side in LEAST}
    return {
        "case": case,
        "files": name,
        **{f"{side}_s": median for side, median in medians.items()},
        **{f"{side}_ratio": ratio for side, ratio in ratios.items()},
        "ok": all(ratios[side] >= least for side, least in LEAST.items()),
    }


def run(hub: HubServer, script: str, name: str, folder: Path, **variables: str) -> float:
    """The seconds that one download takes, from nothing."""
    target = folder / "target"
    for used in (target, folder / "hf"):  # Xet keeps chunks under HF_HOME
        shutil.rmtree(used, ignore_errors=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }
    command = (sys.executable, "-c", script, f"bench/{name}", str(target))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    run_script(main)
