"""The scripts behind the figures: what they start ends with them."""

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPT = """
import signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
from script import run_script

def main():
    try:
        subprocess.run(["sh", "-c", sys.argv[2]])
    finally:
        print("the rest", flush=True)

run_script(main)
"""
SLOW_TO_STOP = "trap 'sleep 1; echo stopped; exit' TERM; echo $$; while :; do sleep 0.1; done"
"""`subprocess.run` itself would wait for it for a quarter of a second, and kill it."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_script_that_is_ended_waits_for_what_it_started(number: signal.Signals) -> None:
    command = (sys.executable, "-c", SCRIPT, str(BENCHMARKS), SLOW_TO_STOP)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        started = int(script.stdout.readline())
        script.send_signal(number)
        said = script.stdout.read().split("\n")

    assert (script.returncode, said) == (128 + number, ["stopped", "the rest", ""])
    assert not psutil.pid_exists(started)
