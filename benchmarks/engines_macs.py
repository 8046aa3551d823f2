"""One model on two Macs: what its ranks cost while idle, and how soon a dead one is replaced.

    uv run python benchmarks/engines_macs.py [--home FOLDER] [--rounds 5] [--seconds 20]

Two ranks of a tiny model run on MLX's ring on this machine: once as `mlx_lm.server` runs them, and
once as a tier of a stack whose other Mac is a folder, reached by a stand-in for ssh. Of both, the
share of a core that each rank uses while nobody asks. Of the tier, after SIGKILL to the other Mac's
rank and to the one here by turns: the time until the whole group has ended, by which its death was
noticed (limit: 2 s), and until the group is ready again without a hand, a watchdog looking every
second. Engines are installed into FOLDER, by default a temporary one.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
from script import run_script

from mlx_procsup.testing import eventually
from mlx_stack.services.ports import free_ports
from mlx_stack.stack import Host
from stack_testkit.program import Program
from stack_testkit.real_engine import real_engine
from stack_testkit.several_macs import make_macs, processes
from stack_testkit.tiny_model import make_tiny_model

_LIMIT_S = 2.0
_WITHIN_S = 300


def main() -> int:
    """Measure; 1 if a death was noticed too late."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="where vllm-mlx and the model are, or will be")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        home, folder = (options.home or Path(temporary)).absolute(), Path(temporary)
        engine, words = real_engine(home)
        model = make_tiny_model(folder / "tiny", tokenizer_of=words, engine_python=engine.python)
        program = make_macs(folder, engine, model, {"pair": (Host(host="studio"),)})
        python = program.home.engines / "mlx-lm" / "current" / "bin" / "python"
        with ranks_by_hand(python, model, folder) as ranks:
            print(f"idle, mlx_lm.server by itself: {shares(ranks, options.seconds)}", flush=True)
        return measure(program, options)


@contextmanager
def ranks_by_hand(python: Path, model: Path, folder: Path) -> Iterator[list[psutil.Process]]:
    """Two ranks as `mlx_lm.server` runs them, once they have answered."""
    port, *ring = free_ports(3)
    addresses = folder / "addresses.json"
    addresses.write_text(json.dumps([[f"127.0.0.1:{each}"] for each in ring]))
    command = (str(python), "-m", "mlx_lm", "server", "--model", str(model), "--port", str(port))
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, "MLX_RANK": str(rank), "MLX_HOSTFILE": str(addresses)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in (0, 1)
    ]
    try:
        assert eventually(lambda: answers(port), within_s=_WITHIN_S)
        yield [psutil.Process(each.pid) for each in ranks]
    finally:
        for each in ranks:
            each.kill()
            each.wait()


def answers(port: int) -> bool:
    """Whether an engine writes a token."""
    body = {"prompt": "1", "max_tokens": 1}
    try:
        return httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body).is_success
    except httpx.TransportError:
        return False


def shares(ranks: list[psutil.Process], seconds: float) -> str:
    """The share of a core that each process uses."""
    used = [sum(each.cpu_times()[:2]) for each in ranks]
    time.sleep(seconds)
    now = [sum(each.cpu_times()[:2]) for each in ranks]
    found = [(after - before) / seconds for before, after in zip(used, now, strict=True)]
    return ", ".join(f"rank {rank} {share:.1%}" for rank, share in enumerate(found)) + " of a core"


def measure(program: Program, options: argparse.Namespace) -> int:
    """Measure the tier of a stack."""
    done = program.run("up", "--tier", "pair", "--timeout", "250", timeout_s=_WITHIN_S)
    assert done.code == 0, done.out + done.err
    ranks = [processes(program, "pair")[name] for name in ("engine", "other engine")]
    print(f"idle, as a tier: {shares(ranks, options.seconds)}", flush=True)
    watching = program.start(
        *("watch", "--interval", "1", "--restart-delay", "1", "--max-restarts", "1000")
    )
    worst_s = 0.0
    try:
        for number in range(options.rounds * 2):
            worst_s = max(worst_s, kill_one(program, ("other engine", "engine")[number % 2]))
    finally:
        watching.terminate()
        watching.communicate()
        program.run("down", timeout_s=_WITHIN_S)
    print(f"noticed after {worst_s:.2f} s at most (limit {_LIMIT_S} s)")
    return int(worst_s > _LIMIT_S)


def kill_one(program: Program, which: str) -> float:
    """Kill a rank and wait until the group is back; after how long it had ended."""
    before = processes(program, "pair")
    began = time.monotonic()
    before[which].kill()
    assert eventually(lambda: not is_running(before["group"]), within_s=_WITHIN_S)
    noticed_s = time.monotonic() - began
    assert eventually(lambda: is_back(program, before["group"].pid), within_s=_WITHIN_S)
    back_s = time.monotonic() - began
    print(f"{which}: noticed after {noticed_s:.2f} s, back after {back_s:.1f} s", flush=True)
    return noticed_s


def is_running(process: psutil.Process) -> bool:
    """Whether a process lives; one that nobody has collected doesn't."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_back(program: Program, former: int) -> bool:
    """Whether another group is ready."""
    rows = program.run("status", "--json").document["services"]
    row = next(row for row in rows if row["name"] == "pair")
    return row["state"] == "healthy" and row["pid"] != former


if __name__ == "__main__":
    run_script(main)
