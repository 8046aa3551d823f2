"""How much memory a pull takes, by the size of the model: it must stay flat.

    uv run python benchmarks/pull_memory.py [--sizes-mb 50,500,3000]

The weights are sparse files of zeros. The figure is the peak resident memory of the installed
program from its start to its end. The exit code is 1 where it is above 120 MB.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from script import run_script

from stack_testkit.hub import HubServer, write_repository

MB = 1_000_000
LIMIT_MB = 120
WRAPPED = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak if sys.platform == "darwin" else peak * 1024)
"""


def main() -> int:
    """Run the benchmark; 1 where a pull took too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes-mb", default="50,500,3000")
    options = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory(prefix="pull-memory-") as folder:
        for size_mb in (int(size) for size in options.sizes_mb.split(",")):
            repo = f"bench/of-{size_mb}-mb"
            write_repository(Path(folder, "hub"), repo, {"config.json": b"{}"})
            with Path(folder, "hub", repo, "model.safetensors").open("wb") as weights:
                weights.truncate(size_mb * MB)
            peak_mb = measure(Path(folder), repo) / MB
            worst = max(worst, peak_mb)
            print(f"{size_mb:6} MB: {peak_mb:.0f} MB of memory (limit {LIMIT_MB})")
    return 0 if worst <= LIMIT_MB else 1


def measure(folder: Path, repo: str) -> int:
    """The peak resident memory in bytes of pulling `repo`."""
    with HubServer(folder / "hub") as hub:
        repository = hub.repository(repo)
        assert repository is not None
        repository.tree(hub.settings.lfs_from_bytes)  # hash it before the clock of a request runs
        environment = {
            **os.environ,
            "MLX_STACK_HOME": str(folder / "home"),
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "0",
        }
        pull = (sys.executable, "-m", "mlx_stack", "pull", repo, "--json")
        command = (sys.executable, "-c", WRAPPED, *pull)
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        subprocess.run(
            (sys.executable, "-m", "mlx_stack", "models", "--remove", repo),
            env=environment,
            check=True,
            capture_output=True,
        )
    return int(done.stdout)


if __name__ == "__main__":
    run_script(main)
