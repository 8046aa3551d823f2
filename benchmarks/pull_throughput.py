"""How fast a pull is beside `huggingface_hub.snapshot_download`, on the same files and hub.

    uv run python benchmarks/pull_throughput.py [--rounds 3] [--json]

Two cases: a hub on loopback without limits, and one that answers after 50 ms and gives a connection
20 MB/s. Each is run with one large file and with four of equal size. Both sides run in a process of
their own, start with nothing, and are timed without the interpreter's start and imports; ours also
hashes every file and brings it to the disk, the other does neither. The exit code is 1 where the
ratio of the medians is below 1 without limits, or below 3 with them.
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

from stack_testkit.hub import HubServer, Settings, write_repository

MB = 1_000_000
SHAPES = {"one": (200,), "four": (60, 60, 60, 60)}
CASES = {
    "no limits": (Settings(), 1.0),
    "50 ms, 20 MB/s a connection": (Settings(latency_s=0.05, rate_bytes_s=20 * MB), 3.0),
}
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
from mlx_stack.models.download.boot import boot_session
from mlx_stack.models.download.fetch import FetchOptions, fetch
from mlx_stack.models.download.hub import open_hub
from mlx_stack.models.disk.local import places_of
from mlx_stack.models.download.selection import select_files
import huggingface_hub.hf_api
began = time.perf_counter()
hub = open_hub()
remote = hub.look_up(sys.argv[1])
files = select_files(remote.repo, hub.list_files(remote))
places = places_of(Path(sys.argv[2]), remote.repo)
places.model_dir.mkdir()
fetch(remote, files, hub.files(remote), places, FetchOptions(boot_session()))
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
            for case, (settings, least) in CASES.items():
                hub.configure(settings)
                results += [
                    compare(hub, Path(folder), case, name, least, options.rounds) for name in SHAPES
                ]
    if options.json:
        print(json.dumps(results))
    for result in results if not options.json else ():
        print("{case:28} {files:5} theirs {theirs_s:6.2f} s  ours {ours_s:6.2f} s  "
              "{ratio:5.2f}x (at least {least})".format(**result))  # fmt: skip
    return 0 if all(result["ok"] for result in results) else 1


def compare(
    hub: HubServer, folder: Path, case: str, name: str, least: float, rounds: int
) -> dict[str, object]:
    """The medians of both sides, in turns."""
    theirs, ours = list[float](), list[float]()
    for _ in range(rounds):
        theirs.append(run(hub, THEIRS, name, folder))
        ours.append(run(hub, OURS, name, folder))
    ratio = statistics.median(theirs) / statistics.median(ours)
    return {
        "case": case,
        "files": name,
        "theirs_s": statistics.median(theirs),
        "ours_s": statistics.median(ours),
        "ratio": ratio,
        "least": least,
        "ok": ratio >= least,
    }


def run(hub: HubServer, script: str, name: str, folder: Path) -> float:
    """The seconds that one download takes, from nothing."""
    target = folder / "target"
    shutil.rmtree(target, ignore_errors=True)
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = (sys.executable, "-c", script, f"bench/{name}", str(target))
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout)


if __name__ == "__main__":
    raise SystemExit(main())
