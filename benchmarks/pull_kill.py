"""How much a pull downloads twice when it is killed: SIGKILL at random moments, then once more.

    uv run python benchmarks/pull_kill.py [--size-mb 200] [--kills 10]

Counts what the client's kernel had acknowledged: all that the client read, and what still lay in
the receive buffers of a killed process. What the hub had handed to its own sockets is more.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from script import run_script

from stack_testkit.hub import HubServer, Settings, write_repository

MB = 1_000_000
REPO = "bench/killed"
LIMIT = 1.1


def main() -> int:
    """Run the benchmark; 1 where more than 1.1 times the file arrived."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size-mb", type=int, default=200)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rate-mb-s", type=float, default=1.0, help="of one connection")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    chance = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="pull-kill-") as folder:
        root, home = Path(folder, "hub"), Path(folder, "home")
        weights = chance.randbytes(options.size_mb * MB)
        contents = {"config.json": b"{}", "model.safetensors": weights}
        repository = write_repository(root, REPO, contents)
        settings = Settings(rate_bytes_s=int(options.rate_mb_s * MB))
        with HubServer(root, settings) as hub:
            repository.tree(settings.lfs_from_bytes)  # hash it before the clock runs
            environment = {
                **os.environ,
                "MLX_STACK_HOME": str(home),
                "HF_HOME": str(Path(folder, "hf")),
                "HF_ENDPOINT": hub.url,
            }
            command = (sys.executable, "-m", "mlx_stack", "pull", REPO, "--json")
            for number in range(options.kills):
                before = hub.sent_bytes
                most = (len(weights) - before) * 2 // (options.kills - number)
                until = before + chance.randrange(1, max(most, 2))
                process = subprocess.Popen(
                    command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                while hub.sent_bytes < until and process.poll() is None:
                    time.sleep(0.005)
                process.kill()
                process.wait()
                print(f"kill {number + 1}: at {hub.sent_bytes / MB:.1f} MB sent in all")
            hub.configure(Settings())
            done = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            )
        sent, arrived = hub.sent_bytes, hub.acknowledged_bytes or hub.sent_bytes
        stored = home / "models" / REPO.replace("/", "--") / "model.safetensors"
        assert stored.read_bytes() == weights, done.stdout
    ratio = arrived / len(weights)
    print(f"{arrived / MB:.1f} MB arrived for {len(weights) / MB:.0f} MB: {ratio:.3f}x")
    print(f"{sent / MB:.1f} MB handed to the hub's sockets; seed {options.seed}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    run_script(main)
