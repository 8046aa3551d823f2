"""How long `mlx-stack up` takes where the engine runs already, and where the time goes.

    uv run python benchmarks/stack_up.py [--rounds 7]

The engine is a stand-in, the rest is real: the installed program, the gateway's process, one token
asked through it. The gateway is killed before each round. The limit is one second.
"""

import argparse
import os
import signal
import statistics
import tempfile
import time
from pathlib import Path

import psutil
from script import run_script

from mlx_stack.home import Home
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

LIMIT_S = 1.0


def main() -> int:
    """Measure, print, and exit with 1 where it takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        program = Program(Home(Path(folder) / "home"), {})
        install_fake_engines(program.home)
        define_stack(program.home, {"standard": {}})
        try:
            program.run("up")
            with_gateway = [up(program, kills_gateway=True) for _ in range(rounds)]
            without = [up(program, kills_gateway=False)[0] for _ in range(rounds)]
            gateway = psutil.Process(gateway_pid(program))
            resident_mib = gateway.memory_info().rss / 2**20
        finally:
            program.run("down")
    whole_s, ready_s = (statistics.median(each) for each in zip(*with_gateway, strict=True))
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
        f"up with a running engine: {whole_s:.2f} s, {ready_s:.2f} s of it until the gateway was"
        f" ready (limit {LIMIT_S:g} s)\n"
        f"up with nothing to do: {statistics.median(without):.2f} s\n"
        f"the gateway's process: {resident_mib:.0f} MiB"
    )
    return 0 if whole_s <= LIMIT_S else 1


def up(program: Program, *, kills_gateway: bool) -> tuple[float, float]:
    """Seconds that one `up` took, and seconds until the gateway was ready."""
    if kills_gateway:
        process = psutil.Process(gateway_pid(program))
        process.send_signal(signal.SIGKILL)
        psutil.wait_procs([process], timeout=5)
    began = time.perf_counter()
    services = program.run("up", "--json").document["services"]
    seconds = time.perf_counter() - began
    return seconds, next(each["seconds"] for each in services if each["name"] == "gateway")


def gateway_pid(program: Program) -> int:
    """The gateway's process."""
    return int((program.home.pids / "gateway.pid").read_text())


if __name__ == "__main__":
    run_script(main)
