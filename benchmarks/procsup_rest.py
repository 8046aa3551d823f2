"""What a watchdog costs at rest: memory, and processor time over ten minutes.

    uv run python benchmarks/procsup_rest.py [--minutes 10] [--interval 30]

The installed `mlx-stack watch` watches two tiers and a gateway, stand-ins that answer at once.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from script import run_script

from mlx_procsup import stop_service
from mlx_stack.home import HOME_VARIABLE, Home
from stack_testkit.home import define_stack, install_fake_engines


def main() -> int:
    """Start the stack and its watchdog, wait, and read the watchdog's figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--interval", type=float, default=30.0)
    options = parser.parse_args()
    program = str(Path(sys.executable).with_name("mlx-stack"))
    with tempfile.TemporaryDirectory(prefix="procsup-rest-") as folder:
        home = Home(Path(folder))
        install_fake_engines(home)
        define_stack(home, {"standard": {}, "fast": {}})
        environment = {**os.environ, HOME_VARIABLE: str(home.root)}
        run = [program, "up", "--quiet"], [program, "watch", "--daemon", "--interval"]
        try:
            subprocess.run(run[0], env=environment, check=True)
            subprocess.run([*run[1], str(options.interval)], env=environment, check=True)
            time.sleep(5)
            watchdog = psutil.Process(int((home.pids / "watchdog.pid").read_text()))
            began, cpu = time.monotonic(), watchdog.cpu_times()
            peak_bytes = watchdog.memory_info().rss
            while time.monotonic() - began < options.minutes * 60:
                time.sleep(5)
                peak_bytes = max(peak_bytes, watchdog.memory_info().rss)
            later, seconds = watchdog.cpu_times(), time.monotonic() - began
        finally:
            for name in ("watchdog", "gateway", "standard", "fast"):
                stop_service(name, home.state_dirs)
    used_s = later.user + later.system - cpu.user - cpu.system
    share = used_s / seconds
    print(f"over {seconds:.0f} s: {used_s:.2f} s of processor time, {share:.3%} of a core")
    print(f"memory: at most {peak_bytes / 1e6:.1f} MB")
    share_limit = 0.001 if options.minutes >= 1 else 0.02  # a short run measures in steps
    return 0 if share <= share_limit and peak_bytes <= 40e6 else 1


if __name__ == "__main__":
    run_script(main)
