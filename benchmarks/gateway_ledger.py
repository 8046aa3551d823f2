"""What the ledger costs, how fast it answers, and what a kill or a second writer does to it.

    uv run python benchmarks/gateway_ledger.py [keys] [cost] [rows] [kills] [writers]

`keys`     how long keys take to look up, right ones and wrong ones
`cost`     a request through mlx-gateway without and with keys and a ledger, in turn
`rows`     1,000,000 requests of 30 days: the file's size, `usage` by model, key and day
`kills`    a writer killed with SIGKILL 200 times: whether the file opens, what is missing
`writers`  a gateway's writer and two processes that add events, at once: nothing lost or damaged

ROWS, KILLS and REQUESTS make it shorter.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import gateway_relay as relay
from script import run_script

from mlx_gateway.keys import ClientKey, ClientKeys, KeyRing, new_key
from mlx_gateway.ledger import Bounds, Ledger, LedgerEvent, RequestRow, write_event
from mlx_gateway.usage import By, read_events, read_usage

FIGURES = ("keys", "cost", "rows", "kills", "writers")
ROWS = int(os.environ.get("ROWS", "1000000"))
KILLS = int(os.environ.get("KILLS", "200"))
REQUESTS = int(os.environ.get("REQUESTS", "1500"))
AT_ONCE = 4
DAYS = 30
KEYS = 20
MOST_TTFT_S = 60.0


def some_rows(count: int, until: float) -> Iterator[RequestRow]:
    """Requests of a team of agents over 30 days, none like another."""
    chance = random.Random(7)
    clients = [f"client-{number}" for number in range(5)]
    models = [("qwen3-8b", "fast"), ("qwen3-32b", "standard"), ("nemotron-8b", "longctx")]
    programs = ["claude-cli", "codex_cli_rs", "curl", "OpenAI"]
    apis = ["chat/completions", "messages", "responses"]
    for number in range(count):
        model, tier = chance.choice(models)
        prompt = int(chance.lognormvariate(8, 1.2))
        ttft_s = min(chance.lognormvariate(0, 1), MOST_TTFT_S)
        answer = int(chance.lognormvariate(5, 1))
        tps = chance.gauss(60, 8)
        yield RequestRow(
            at=until - DAYS * 86_400 * (1 - number / count),
            key=chance.choice(clients),
            program=chance.choice(programs),
            model=model,
            tier=tier,
            protocol=chance.choice(apis),
            status=chance.choices([200, 499, 503], [95, 4, 1])[0],
            seconds=ttft_s + answer / max(tps, 1),
            queue_s=chance.choice([0.0001, 0.0002, chance.random()]),
            ttft_s=ttft_s,
            generation_tps=max(tps, 1),
            prompt_tokens=prompt,
            cached_tokens=prompt * chance.randrange(100) // 100,
            completion_tokens=answer,
            received_bytes=prompt * 4,
            sent_bytes=answer * 240,
            was_alone=chance.random() < 0.3,
        )


def measure_rows(folder: Path) -> None:
    """The size of a large ledger, and how long its questions take."""
    path, now = folder / "ledger.db", time.time()
    began = time.perf_counter()
    ledger = Ledger(path, Bounds(max_pending=10**9))
    for row in some_rows(ROWS, now):
        ledger.note(row)
    since = now - DAYS * 86_400
    while read_usage(path, since=since, until=time.time()).totals.requests < ROWS - 1:
        time.sleep(1)
    ledger.close()
    seconds = time.perf_counter() - began
    print(f"{ROWS:,} rows  made and written in {seconds:.0f} s, {size_mb(path):.0f} MB")
    for by in By:
        took, cpu = [], time.process_time()
        for _ in range(3):
            begin = time.perf_counter()
            usage = read_usage(path, since=now - DAYS * 86_400, until=time.time(), by=by)
            took.append(time.perf_counter() - begin)
        cpu = (time.process_time() - cpu) / 3
        assert abs(usage.totals.requests - ROWS) <= 1, usage.totals.requests
        shown = f"{min(took) * 1e3:.0f} to {max(took) * 1e3:.0f} ms, CPU {cpu * 1e3:.0f} ms"
        print(f"usage of 30 days by {by:5}  {shown}")
    home = {"MLX_STACK_HOME": str(folder)}
    program = str(Path(sys.executable).with_name("mlx-stack"))
    command = (program, "usage", "--since", "30d", "--json")
    took, cpu = [], children_s()
    for _ in range(3):
        begin = time.perf_counter()
        done = subprocess.run(command, env={**os.environ, **home}, capture_output=True, check=True)
        took.append(time.perf_counter() - begin)
    seen = json.loads(done.stdout)["totals"]["requests"]
    cpu = (children_s() - cpu) / 3
    shown = f"{min(took):.2f} to {max(took):.2f} s, CPU {cpu:.2f} s"
    print(f"`mlx-stack usage --since 30d`  {shown}, {seen:,} requests")


def children_s() -> float:
    """The processor time of the programs that were run so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def size_mb(path: Path) -> float:
    """The size of a ledger with its log."""
    files = [path, path.with_name(f"{path.name}-wal")]
    return sum(each.stat().st_size for each in files if each.exists()) / 1e6


def write_until_killed(path: Path) -> None:
    """Note a request every 2 ms, as fast as many agents would."""
    ledger = Ledger(path)
    row = next(some_rows(1, time.time()))
    while True:
        ledger.note(replace(row, at=time.time()))
        time.sleep(0.002)


def killed(path: Path, chance: random.Random) -> float:
    """Kill a writer in the middle, and return how much before its end is missing, in seconds."""
    child = os.fork()
    if child == 0:
        write_until_killed(path)
    time.sleep(chance.uniform(0.6, 1.7))
    while not path.exists():
        time.sleep(0.01)
    at = time.time()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        last = connection.execute("SELECT max(at) FROM requests").fetchone()[0]
    usage = read_usage(path, since=at - 3600, until=at + 1)
    assert usage.totals.requests > 0
    return at - last / 1000


def measure_kills(folder: Path) -> None:
    """Kill writers, some at once, each on its own ledger, which it takes over from the last."""
    missing = folder / "missing"
    children = []
    for lane in range(AT_ONCE):
        child = os.fork()
        children.append(child)
        if child == 0:
            chance = random.Random(lane)
            path = folder / f"ledger-{lane}.db"
            lost = [killed(path, chance) for _ in range(KILLS // AT_ONCE)]
            missing.with_name(f"missing-{lane}").write_text(json.dumps(lost))
            os._exit(0)
    codes = [os.waitpid(child, 0)[1] for child in children]
    assert codes == [0] * AT_ONCE, codes
    lost = [
        each
        for lane in range(AT_ONCE)
        for each in json.loads((folder / f"missing-{lane}").read_text())
    ]
    lost.sort()
    print(
        f"{len(lost)} kills  every file opens; missing: median {statistics.median(lost):.2f} s, "
        f"95 % {lost[int(len(lost) * 0.95)]:.2f} s, most {lost[-1]:.2f} s"
    )


def measure_writers(folder: Path) -> None:
    """One writer of requests and two of events, at once."""
    path, events, noted = folder / "ledger.db", 200, 0
    children = []
    for _ in range(2):
        child = os.fork()
        children.append(child)
        if child == 0:
            for _ in range(events):
                write_event(path, LedgerEvent(time.time(), "restart", "standard"))
            os._exit(0)
    ledger, row = Ledger(path), next(some_rows(1, time.time()))
    while any(os.waitpid(child, os.WNOHANG)[0] == 0 for child in children[:1]):
        ledger.note(row)
        noted += 1
        time.sleep(0.001)
    os.waitpid(children[1], 0)
    ledger.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        rows = connection.execute("SELECT count(*) FROM requests").fetchone()[0]
    assert (rows, len(read_events(path))) == (noted, 2 * events)
    print(f"three writers at once  {rows:,} requests and {2 * events} events, none lost, file ok")


def measure_keys(folder: Path) -> None:
    """The time of each kind of key, all kinds in turn: none may stand out."""
    made = [new_key() for _ in range(KEYS + 1)]
    keys = ClientKeys()
    for number, key in enumerate(made):
        keys = keys.with_key(ClientKey(name=f"client-{number}"), key)
    file = folder / "keys.json"
    file.write_text(keys.without(f"client-{KEYS}").encode())
    ring = KeyRing(relay.KEY, file)
    kinds = {
        "first": made[0],
        "last": made[KEYS - 1],
        "revoked": made[KEYS],
        "unknown": new_key(),
        "truncated": made[0][:-1],
    }
    took: dict[str, list[int]] = {name: [] for name in kinds}
    for _ in range(20_000):
        for name, key in kinds.items():
            headers = {b"authorization": b"Bearer " + key.encode()}
            began = time.perf_counter_ns()
            ring.holder(headers)
            took[name].append(time.perf_counter_ns() - began)
    medians = {name: statistics.median(each) / 1e3 for name, each in took.items()}
    print(f"{KEYS} keys  " + ", ".join(f"{name} {us:.2f} µs" for name, us in medians.items()))


@asynccontextmanager
async def gateway(behind: relay.Target, *options: str) -> AsyncIterator[relay.Target]:
    """mlx-gateway in front of the engine, with more options."""
    port = relay.free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_text(relay.settings_for(port, behind))
        program = str(Path(sys.executable).with_name("mlx-gateway"))
        command = (program, "serve", "--config", str(config), *options)
        with relay.running(*command, MLX_GATEWAY_KEY=relay.KEY) as process:
            await relay.until_ready(port)
            yield relay.Target("mlx-gateway", port, "tier0", process.pid)


async def measure_cost(folder: Path) -> None:
    """Short answers without and with everything, in turn, and the processor time of each."""
    keys = ClientKeys()
    for number in range(KEYS):
        keys = keys.with_key(ClientKey(name=f"client-{number}"), new_key())
    file = folder / "keys.json"
    file.write_text(keys.encode())
    options = ("--keys", str(file), "--ledger", str(folder / "ledger.db"))
    async with (
        relay.engine() as engine,
        gateway(engine) as plain,
        gateway(engine, *options) as noting,
    ):
        targets = {"without": plain, "with": noting}
        took: dict[str, list[float]] = {name: [] for name in targets}
        for target in targets.values():
            for _ in range(50):
                await relay.stream(target, "tokens=4 rate=0", relay.Seen())
        cpu = {name: target.cpu_s() for name, target in targets.items()}
        for _ in range(REQUESTS):
            for name, target in targets.items():
                began = time.perf_counter()
                await relay.stream(target, "tokens=4 rate=0", relay.Seen())
                took[name].append((time.perf_counter() - began) * 1e3)
        await asyncio.sleep(1)  # what is written behind the answers counts, too
        used = {
            name: (target.cpu_s() - cpu[name]) / REQUESTS * 1e3 for name, target in targets.items()
        }
    for name, each in took.items():
        half = statistics.median(each)
        print(f"a request {name:8} keys and ledger  median {half:.2f} ms, CPU {used[name]:.2f} ms")
    more = statistics.median(took["with"]) - statistics.median(took["without"])
    print(f"more: median {more:.2f} ms, CPU {used['with'] - used['without']:.2f} ms")


def main() -> None:
    """Measure what the command line names; everything where it names nothing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], metavar="FIGURE")
    wanted = parser.parse_args().figures or FIGURES
    for figure in FIGURES:
        if figure in wanted:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                match figure:
                    case "keys":
                        measure_keys(folder)
                    case "cost":
                        asyncio.run(measure_cost(folder))
                    case "rows":
                        measure_rows(folder)
                    case "kills":
                        measure_kills(folder)
                    case _:
                        measure_writers(folder)


if __name__ == "__main__":
    run_script(main)
