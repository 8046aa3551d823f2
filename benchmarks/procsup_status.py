"""`mlx-stack status` of fifty services, half of them hanging, as a user waits for it in a shell.

    uv run python benchmarks/procsup_status.py [--services 50] [--runs 5]

The stack file defines the tiers; stand-in servers run on their ports, every other one of which
accepts connections and never answers.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from script import run_script

from mlx_procsup import HttpReadiness, ProcessSpec, start_service, stop_service
from mlx_procsup.testing import eventually, web_server_command
from mlx_procsup.usage import listens_on
from mlx_stack.home import HOME_VARIABLE, Home
from stack_testkit.home import define_stack, install_fake_engines


def main() -> int:
    """Start the stand-ins, time the command, and stop them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", type=int, default=50)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="procsup-status-") as folder:
        home = Home(Path(folder))
        install_fake_engines(home)
        stack = define_stack(home, {f"tier{n}": {} for n in range(options.services)})
        dirs = home.state_dirs
        try:
            for number, tier in enumerate(stack.tiers):
                late_s = 86_400.0 if number % 2 else 0.0
                spec = ProcessSpec(
                    tier.name,
                    web_server_command(tier.port, answer_after_s=late_s),
                    {"PATH": os.defpath},
                    home.root,
                    HttpReadiness(f"http://127.0.0.1:{tier.port}/v1/models"),
                )
                started = start_service(spec, dirs)
                eventually(lambda p=started.pid, t=tier: bool(listens_on(p, t.port)), 30)
            return measure(home, options.runs, options.services)
        finally:
            for tier in stack.tiers:
                stop_service(tier.name, dirs, grace_s=0.5)


def measure(home: Home, runs: int, services: int) -> int:
    """Time the installed command."""
    program = str(Path(sys.executable).with_name("mlx-stack"))
    seconds: list[float] = []
    before = os.times()
    for _ in range(runs):
        began = time.monotonic()
        done = subprocess.run(
            [program, "status", "--json"],
            env={**os.environ, HOME_VARIABLE: str(home.root)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds.append(time.monotonic() - began)
        states = [row["state"] for row in json.loads(done.stdout)["services"]]
        assert states.count("down") == services // 2, states
        assert states.count("healthy") == services - services // 2, states
    after = os.times()
    used_s = after.children_user + after.children_system
    used_s -= before.children_user + before.children_system
    print(
        f"status of {services} services, {services // 2} of them hanging: "
        f"median {statistics.median(seconds):.2f} s, slowest {max(seconds):.2f} s, <= 6 s; "
        f"{used_s / runs:.2f} s of processor time each"
    )
    return 0 if statistics.median(seconds) <= 6.0 else 1


if __name__ == "__main__":
    run_script(main)
