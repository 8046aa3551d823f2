"""What a second Mac brings, which turns stay on the Mac that knows them, what a lost Mac costs.

    uv run python benchmarks/gateway_nodes.py [--agents 8] [--turns 6] [--rounds 3]

Two calibration servers stand for the engines of two Macs: each keeps the prompts that it has read,
reads 4,000 tokens a second, writes 50, and serves four requests at once. In front of each is
mlx-gateway as a process, and the second is a node of the first. Agents work on the first gateway
without and with the node (`throughput`), and each turn after the first is looked up in the servers'
own accounts: did it go where the turn before it went (`stayed`)? Then the node's gateway is killed
while requests run (`lost`: those that failed before their first byte; `moved_s`: from the kill
until a request that was there began anew), and started again (`back_s`: until it answers one).
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from script import run_script

from mlx_bench import AgentParameters, Conditions, ModelEndpoint, StreamingClient
from mlx_bench.agents.runner import run_agents
from mlx_bench.calibration.check import calibration_server
from mlx_bench.calibration.server import ServedRequest, ServedRequests
from mlx_gateway.access import Hosts
from mlx_gateway.app import Gateway
from mlx_gateway.keys import KeyRing
from mlx_gateway.options import GatewayOptions
from mlx_gateway.server import serve

KEY = "sk-benchmark-of-nodes"
ENGINE = "ttft_ms=20,tps=50,prefill_tps=4000,tool_calls=1,cache=2,lanes=4"
LANES = 4


def main() -> None:
    """Run all rounds and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=8)
    parser.add_argument("--turns", type=int, default=6)
    parser.add_argument("--prefix-tokens", type=int, default=8_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--serve", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_gateway(Path(options.serve))
        return
    rows = [one_round(options) for _ in range(options.rounds)]
    for row in rows:
        print(json.dumps(row))
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:12} {statistics.median(values):8.3f}  {min(values):.3f} … {max(values):.3f}")


def one_round(options: argparse.Namespace) -> dict[str, float]:
    """Everything once, on servers that have read nothing."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engines = [stack.enter_context(calibration_server()).removesuffix("/v1") for _ in range(3)]
        node_port, front_port, single_port = free_port(), free_port(), free_port()
        node_url = f"http://127.0.0.1:{node_port}"
        own = {"url": engines[0], "model": ENGINE}
        there = {"url": node_url, "model": "standard", "node": "studio"}
        config = settings(Path(folder), "node", node_port, [{"url": engines[1], "model": ENGINE}])
        stack.enter_context(gateway(config, node_port))
        stack.enter_context(
            gateway(settings(Path(folder), "front", front_port, [own, there]), front_port)
        )
        alone = settings(
            Path(folder), "single", single_port, [{"url": engines[2], "model": ENGINE}]
        )
        stack.enter_context(gateway(alone, single_port))
        single = throughput(single_port, options)
        both = throughput(front_port, options)
        stayed = share_that_stayed([served_by(engine) for engine in engines[:2]])
    return {"one_tps": single, "two_tps": both, "ratio": both / single, "stayed": stayed} | killed()


def killed() -> dict[str, float]:
    """What happens when the node dies under load, and when it is back."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        engines = [stack.enter_context(calibration_server()).removesuffix("/v1") for _ in range(2)]
        node_port, front_port = free_port(), free_port()
        there = {"url": f"http://127.0.0.1:{node_port}", "model": "standard", "node": "studio"}
        own = {"url": engines[0], "model": ENGINE}
        config = settings(Path(folder), "node", node_port, [{"url": engines[1], "model": ENGINE}])
        node = subprocess.Popen(command(config))
        stack.callback(node.kill)
        wait_for(node_port)
        front = settings(Path(folder), "front", front_port, [own, there])
        stack.enter_context(gateway(front, front_port))
        found: list[dict[str, Any]] = []
        load = [
            threading.Thread(target=lambda n=n: found.append(ask(front_port, n))) for n in range(8)
        ]
        for each in load:
            each.start()
        while len(served_by(engines[1])) < LANES:
            time.sleep(0.01)
        there_before = {each.prompt for each in served_by(engines[1])}
        node.send_signal(signal.SIGKILL)
        killed_at = time.perf_counter_ns()
        node.wait()
        for each in load:
            each.join()
        moved = [
            (each.received_ns - killed_at) / 1e9
            for each in served_by(engines[0])
            if each.prompt in there_before
        ]
        lost = sum(each["status"] != 200 for each in found)
        node = subprocess.Popen(command(config))
        stack.callback(node.wait)
        stack.callback(node.terminate)
        wait_for(node_port)
        before, up_ns = len(served_by(engines[1])), time.perf_counter_ns()
        # each has the other's Mac for the shorter line, once there is another
        for number in range(100, 200, 2):
            pair = [
                threading.Thread(target=ask, args=(front_port, each, 1))
                for each in (number, number + 1)
            ]
            for each in pair:
                each.start()
            for each in pair:
                each.join()
            if len(served_by(engines[1])) > before:
                break
        back_s = (served_by(engines[1])[before].received_ns - up_ns) / 1e9
    return {"lost": lost, "moved": len(moved), "moved_s": max(moved), "back_s": back_s}


def ask(port: int, number: int, tokens: int = 8) -> dict[str, Any]:
    """One request with a prompt that no other has."""
    words = f"question {number} " * 300
    body = {
        "model": "standard",
        "max_tokens": tokens,
        "stream": True,
        "messages": [{"role": "user", "content": words}],
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {KEY}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return {"status": answer.status, "tier": answer.headers["x-mlx-stack-tier"],
                    "text": answer.read().decode()}  # fmt: skip
    except urllib.error.HTTPError as error:
        return {"status": error.code, "tier": "", "text": error.read().decode()}


def throughput(port: int, options: argparse.Namespace) -> float:
    """Tokens a second that the agents get, all together."""
    parameters = AgentParameters(
        agents=options.agents, turns=options.turns, prefix_tokens=options.prefix_tokens
    )
    endpoint = ModelEndpoint(f"http://127.0.0.1:{port}/v1", "standard", KEY)
    with StreamingClient(endpoint) as client:
        report = run_agents(client, parameters, Conditions("nodes", {}))
    return report.throughput_tps or 0.0


def share_that_stayed(nodes: list[list[ServedRequest]]) -> float:
    """The share of turns after the first that went where the turn before them had gone."""
    requests = [(each, place) for place, served in enumerate(nodes) for each in served]
    requests = [each for each in requests if len(each[0].sent_ns) > 1]
    last: list[tuple[str, int]] = []
    stayed = turns = 0
    for each, place in sorted(requests, key=lambda it: it[0].received_ns):
        mine = next((i for i, (head, _) in enumerate(last) if each.prompt.startswith(head)), None)
        head = each.prompt.removesuffix("<assistant>")
        if mine is None:
            last.append((head, place))
            continue
        turns, stayed = turns + 1, stayed + (last[mine][1] == place)
        last[mine] = (head, place)
    return stayed / turns


def served_by(engine: str) -> list[ServedRequest]:
    """A server's account of every request so far."""
    with StreamingClient(ModelEndpoint(f"{engine}/v1", "x")) as client:
        served = client.get(f"{engine}/calibration/requests", ServedRequests)
    assert served is not None
    return served.requests


def settings(folder: Path, name: str, port: int, upstreams: list[dict[str, str]]) -> Path:
    """A settings file for a gateway with one model."""
    model = {"upstreams": upstreams, "max_concurrent": LANES}
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps({"schema_version": 1, "port": port, "models": {"standard": model}}))
    return path


def serve_gateway(config: Path) -> None:
    """Be a gateway, which knows the key of its node."""
    serve(
        lambda given, version: Gateway(
            given,
            GatewayOptions(
                keys=KeyRing(KEY),
                hosts=Hosts(),
                headers_for=lambda _: {"authorization": f"Bearer {KEY}"},
                version=version,
            ),
        ),
        config,
    )


def command(config: Path) -> list[str]:
    """What runs a gateway as a process."""
    return [sys.executable, __file__, "--serve", str(config)]


@contextmanager
def gateway(config: Path, port: int) -> Generator[None]:
    """A gateway that answers."""
    with subprocess.Popen(command(config), env=dict(os.environ)) as process:
        try:
            wait_for(port)
            yield
        finally:
            process.terminate()


def wait_for(port: int) -> None:
    """Return once something listens."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(port)


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


if __name__ == "__main__":
    run_script(main)
