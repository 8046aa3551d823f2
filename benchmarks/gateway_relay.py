"""What mlx-gateway costs: an engine that costs nothing, asked directly and through the gateway.

    uv run python benchmarks/gateway_relay.py [FIGURE …] [--others FOLDER]

`lone`      a request now and then: TTFT
`streams`   1, 8, 32 and 64 streams of 60 tokens a second: delivered tokens, TTFT, CPU a chunk
`speed`     one stream as fast as it goes
`memory`    resident when idle and after 10,000 requests at 32: none lost, none doubled
`idle`      10,000 clients that are connected and say nothing: memory, and TTFT meanwhile
`fallback`  until another tier has answered for one that was killed
`ready`     from the start of the process to the first answer

With `--others`, `lone`, `streams` and `speed` are measured through the gateways of
`gateway_others.py` as well, which are installed into FOLDER. All targets of one figure are measured
in turn in one run, so that a ratio means something on a machine that does other things too.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop
from gateway_others import KEY, Other, installed
from script import run_script

FIGURES = ("ready", "lone", "streams", "speed", "fallback", "memory", "idle")
STREAMS = (1, 8, 32, 64)
RATE = 60
CHUNK_BYTES = 240
MEASURED_S = float(os.environ.get("MEASURED_S", "8"))
ANSWER_S = 1
"""How long a stream lasts; the next follows, so that there are many times to the first token."""
LONE_REQUESTS = int(os.environ.get("LONE_REQUESTS", "150"))
PAUSE_S = float(os.environ.get("PAUSE_S", "0.02"))
"""How long nothing happens before a lone request."""
REQUESTS = 10_000
CONCURRENT = 32
IDLE_CLIENTS = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """Something that answers chat completions: a name for the table, a port, a model."""

    name: str
    port: int
    model: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def request(self, words: str, *, streams: bool = True) -> bytes:
        """The bytes of a request."""
        body = json.dumps(
            {
                "model": self.model,
                "stream": streams,
                "messages": [{"role": "user", "content": words}],
            }
        )
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}"
            f"\r\n{more}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def cpu_s(self) -> float:
        """The processor time that it and its workers have used so far."""
        times = [each.cpu_times() for each in self._processes()]
        return sum(each.user + each.system for each in times)

    def resident_mib(self) -> float:
        """The memory that it and its workers have."""
        return sum(each.memory_info().rss for each in self._processes()) / 2**20

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]


# the engine


def chunk(number: int, tag: str = "") -> bytes:
    """One event of an answer; neighbours differ, since LiteLLM ends a stream of equal ones."""
    document = {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "fake",
        "choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}],
    }
    room = CHUNK_BYTES - len(b"data: \n\n") - len(json.dumps(document))
    text = (tag or ("one " if number % 2 else "two ")).ljust(room, "ab"[number % 2])
    document["choices"][0]["delta"]["content"] = text[:room]
    return b"data: " + json.dumps(document).encode() + b"\n\n"


_TWO = (chunk(0), chunk(1))
_ROLE = _TWO[0].replace(b'"content": "', b'"role": "assistant", "content": "", "x": "')
_END = (
    b'data: {"id":"chatcmpl-benchmark","object":"chat.completion.chunk","created":1,"model":"fake",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
_EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


def framed(data: bytes) -> bytes:
    """A chunk of HTTP."""
    return b"%x\r\n" % len(data) + data + b"\r\n"


async def serve_engine(port: int) -> None:
    """Answer on `port`: as many tokens, as fast, as the message says: `tokens=… rate=… tag=…`."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                at = head.lower().find(b"content-length:")
                size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
                body = json.loads(await reader.readexactly(size)) if size else {}
                if head.startswith(b"GET"):
                    text = b'{"object":"list","data":[]}'
                    writer.write(
                        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d"
                        b"\r\n\r\n" % len(text) + text
                    )
                    continue
                words = body["messages"][-1]["content"]
                asked = dict(word.split("=") for word in words.split() if "=" in word)
                await tell(writer, asked)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def tell(writer: asyncio.StreamWriter, asked: dict[str, str]) -> None:
        loop = asyncio.get_running_loop()
        tokens, rate, tag = int(asked["tokens"]), float(asked["rate"]), asked.get("tag", "")
        pieces = [framed(each) for each in ((chunk(0, tag), chunk(1, tag)) if tag else _TWO)]
        writer.write(_EVENTS + framed(_ROLE))
        began = loop.time()
        for number in range(tokens):
            if rate:
                await asyncio.sleep(max(began + number / rate - loop.time(), 0))
            elif number % 16 == 0:
                await writer.drain()
            writer.write(pieces[number % 2])
        writer.write(framed(_END) + b"0\r\n\r\n")
        await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


# the client


@dataclass(slots=True)
class Seen:
    """What the clients of one measurement saw."""

    tokens: int = 0
    ttft_s: list[float] = field(default_factory=list)


async def stream(target: Target, words: str, seen: Seen, until: float = float("inf")) -> bytes:
    """One streamed answer, counted until the time `until`; its bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
    try:
        began = time.perf_counter()
        writer.write(target.request(words))
        first, whole, tail = False, [], b""
        while True:
            data = await reader.read(2**16)
            if not data:
                break
            whole.append(data)
            if time.perf_counter() < until:
                both = tail + data
                seen.tokens += both.count(b'"content":') - tail.count(b'"content":')
                tail = both[-12:]
                if not first and b'"content"' in both:
                    first = True
                    seen.ttft_s.append(time.perf_counter() - began)
            if b"0\r\n\r\n" in data[-7:]:
                break
        return b"".join(whole)
    finally:
        writer.close()


async def streams(target: Target, count: int) -> tuple[float, Seen, float]:
    """Tokens a second of `count` streams, what was seen, and the CPU a chunk in microseconds."""
    seen = Seen()
    cpu_s = target.cpu_s()
    until = time.perf_counter() + MEASURED_S
    words = f"tokens={RATE * ANSWER_S} rate={RATE}"

    # they begin one after the other within half a second, as people do
    async def one(number: int) -> None:
        await asyncio.sleep(number / count / 2)
        while time.perf_counter() < until:
            await stream(target, words, seen, until)

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(MEASURED_S)
    cpu_s = target.cpu_s() - cpu_s
    await asyncio.wait(tasks)
    return seen.tokens / MEASURED_S, seen, cpu_s / max(seen.tokens, 1) * 1e6


# processes


def free_port() -> int:
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@contextmanager
def running(*command: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended afterwards."""
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=None if "VERBOSE" in os.environ else subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(psutil.NoSuchProcess):
            for each in psutil.Process(process.pid).children(recursive=True):
                each.kill()
        process.kill()
        process.wait()


async def until_ready(port: int, path: str = "/health/liveliness", within_s: float = 120) -> float:
    """Seconds until something answers 200 there."""
    began = time.perf_counter()
    while time.perf_counter() - began < within_s:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.002)
            continue
        head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n\r\n"
        writer.write(head.encode())
        line = await reader.readline()
        writer.close()
        if b" 200 " in line:
            return time.perf_counter() - began
        await asyncio.sleep(0.05)
    raise TimeoutError(f"nothing answers on port {port}")


@asynccontextmanager
async def engine() -> AsyncIterator[Target]:
    """The engine that costs nothing."""
    port = free_port()
    with running(sys.executable, __file__, "--engine", str(port)) as process:
        await until_ready(port, "/v1/models")
        yield Target("directly", port, "fake", process.pid)


def settings_for(port: int, *engines: Target) -> str:
    """A `gateway.yaml` with a model for each engine; all after the first are its fallbacks."""
    names = [f"tier{number}" for number in range(len(engines))]
    models = {
        name: {
            "upstreams": [{"url": f"http://127.0.0.1:{each.port}", "model": each.model}],
            "fallbacks": [other for other in names if other != name],
            "context_tokens": 32768,
            "max_concurrent": 64,
        }
        for name, each in zip(names, engines, strict=True)
    }
    return json.dumps({"schema_version": 1, "port": port, "models": models})


@asynccontextmanager
async def gateway(*engines: Target) -> AsyncIterator[Target]:
    """mlx-gateway in front of engines."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "gateway.yaml"
        config.write_text(settings_for(port, *engines))
        program = Path(sys.executable).with_name("mlx-gateway")
        with running(
            str(program), "serve", "--config", str(config), MLX_GATEWAY_KEY=KEY
        ) as process:
            await until_ready(port)
            yield Target("mlx-gateway", port, "tier0", process.pid)


@asynccontextmanager
async def another(other: Other, program: Path, behind: Target) -> AsyncIterator[Target | None]:
    """Another gateway in front of an engine; None where it doesn't answer."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        start = other.start(Path(folder), port, f"http://127.0.0.1:{behind.port}")
        with running(str(program), *start.arguments, **start.environment) as process:
            target = Target(other.name, port, start.model, process.pid, start.headers)
            yield target if await answers(target) else None


async def answers(target: Target, within_s: float = 180) -> bool:
    """Whether it answers with success in time; what it says instead is printed."""
    began, said = time.perf_counter(), b"nothing"
    while time.perf_counter() - began < within_s:
        try:
            said = await stream(target, "tokens=3 rate=0", Seen())
        except OSError:
            await asyncio.sleep(0.2)
            continue
        if said.startswith(b"HTTP/1.1 200") and said.count(b'"content":') > 1:
            return True
        await asyncio.sleep(1)
    print(f"{target.name} does not answer: {said[:60]!r} … {said[-80:]!r}")
    return False


# figures


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


async def measure_streams(targets: Sequence[Target]) -> None:
    """Delivered tokens, time to the first one, CPU a chunk."""
    print(f"{'':31} tokens/s  share   TTFT p50   p95 ms   added p50   p95    CPU/chunk µs")
    for count in STREAMS:
        direct: tuple[float, Seen] | None = None
        for target in targets:
            await streams_warmup(target)
            rate, seen, cpu_us = await streams(target, count)
            direct = direct or (rate, seen)
            p50, p95 = (quantile(seen.ttft_s, share) * 1e3 for share in (0.5, 0.95))
            d50, d95 = (quantile(direct[1].ttft_s, share) * 1e3 for share in (0.5, 0.95))
            print(
                f"{count:3} streams  {target.name:18} {rate:9.0f}  {rate / direct[0]:.3f}"
                f"  {p50:8.1f} {p95:8.1f}  {p50 - d50:9.1f} {p95 - d95:6.1f}  {cpu_us:10.0f}",
                flush=True,
            )


async def measure_lone(targets: Sequence[Target]) -> None:
    """The time to the first token of a lone request, the targets in turn, in any order."""
    seen = {target.name: Seen() for target in targets}
    for _ in range(LONE_REQUESTS):
        for target in random.sample(targets, len(targets)):
            await asyncio.sleep(PAUSE_S)
            await stream(target, "tokens=3 rate=0", seen[target.name])
    direct = seen[targets[0].name].ttft_s[10:]
    for name, each in seen.items():
        p50, p95 = (quantile(each.ttft_s[10:], share) * 1e3 for share in (0.5, 0.95))
        added = p50 - quantile(direct, 0.5) * 1e3
        print(f"a lone request  {name:18} TTFT p50 {p50:.2f} ms, p95 {p95:.2f}, added {added:.2f}")


async def streams_warmup(target: Target) -> None:
    """One short answer, so that no figure holds a first time."""
    await stream(target, "tokens=5 rate=0", Seen())


async def measure_speed(targets: Sequence[Target]) -> None:
    """One stream without a pace."""
    for target in targets:
        tokens = 100_000 if target.name in ("directly", "mlx-gateway", "vllm-router") else 5_000
        await streams_warmup(target)
        seen, began = Seen(), time.perf_counter()
        await stream(target, f"tokens={tokens} rate=0", seen)
        rate = seen.tokens / (time.perf_counter() - began)
        print(f"as fast as it goes  {target.name:18} {rate:9.0f}/s")


async def measure_memory(behind: Target) -> None:
    """10,000 short answers, each with its own word."""
    async with gateway(behind) as target:
        idle = target.resident_mib()
        numbers, answers = iter(range(REQUESTS)), list[int]()

        async def worker() -> None:
            for number in numbers:
                whole = await stream(target, f"tokens=4 rate=0 tag=<{number}>", Seen())
                if whole.count(b"<%d>" % number) == 4 and b"[DONE]" in whole:
                    answers.append(number)

        began = time.perf_counter()
        await asyncio.gather(*(worker() for _ in range(CONCURRENT)))
        seconds = time.perf_counter() - began
        after = target.resident_mib()
        print(
            f"memory  idle {idle:.0f} MiB, after {REQUESTS} requests at {CONCURRENT}"
            f" {after:.0f} MiB; {len(answers)} whole answers, {len(set(answers))} different ones,"
            f" {REQUESTS / seconds:.0f} requests/s"
        )


async def measure_idle(behind: Target) -> None:
    """Clients that are connected and say nothing, after a request as after none."""
    async with gateway(behind) as target:
        await streams_warmup(target)
        before = target.resident_mib()
        clients: list[asyncio.StreamWriter] = []
        head = b"GET /health/liveliness HTTP/1.1\r\nhost: localhost\r\n\r\n"
        for _ in range(IDLE_CLIENTS):
            reader, writer = await asyncio.open_connection("127.0.0.1", target.port)
            writer.write(head)
            await reader.readuntil(b"\r\n\r\n")
            clients.append(writer)
        connected = sum(
            each.status == psutil.CONN_ESTABLISHED
            for each in psutil.Process(target.pid).net_connections("tcp")
        )
        print(
            f"{IDLE_CLIENTS} idle clients: {connected} connected,"
            f" {before:.0f} MiB before, {target.resident_mib():.0f} MiB with them"
        )
        await measure_lone((behind, target))
        for each in clients:
            each.close()


async def measure_fallback() -> None:
    """A tier that was killed, and one that is killed while it works."""
    async with engine() as first, engine() as second, gateway(first, second) as target:
        await streams_warmup(target)
        alone, through = [], []
        os.kill(first.pid, signal.SIGKILL)
        for _ in range(20):
            for times, asked in ((alone, second), (through, target)):
                seen = Seen()
                await stream(asked, "tokens=5 rate=0", seen)
                times.extend(seen.ttft_s)
        print(
            f"fallback from a killed tier: first {(through[0] - alone[0]) * 1e3:.1f} ms, then"
            f" {statistics.median(through) * 1e3 - statistics.median(alone) * 1e3:.1f} ms more than"
            f" the other tier's own {statistics.median(alone) * 1e3:.1f} ms"
        )


async def measure_ready(behind: Target) -> None:
    """From the start of the process."""
    times = []
    for _ in range(7):
        began = time.perf_counter()
        async with gateway(behind):
            times.append(time.perf_counter() - began)
    print(
        f"ready after {min(times):.2f} s, median {statistics.median(times):.2f} s of {len(times)}"
    )


async def compare(wanted: Sequence[str], direct: Target, others: Path | None) -> None:
    """Measure what is wanted of the figures that every gateway has."""
    async with AsyncExitStack() as stack:
        targets = [direct, await stack.enter_async_context(gateway(direct))]
        for other, program in (installed(others) if others else {}).items():
            target = await stack.enter_async_context(another(other, program, direct))
            if target is not None:
                targets.append(target)
        figures = {"lone": measure_lone, "streams": measure_streams, "speed": measure_speed}
        for name, measure in figures.items():
            if name in wanted:
                await measure(targets)


async def main(wanted: Sequence[str], others: Path | None) -> None:
    """Measure what is wanted."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * IDLE_CLIENTS, hard), hard))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    async with engine() as direct:
        if {"lone", "streams", "speed"} & set(wanted):
            await compare(wanted, direct, others)
        if "memory" in wanted:
            await measure_memory(direct)
        if "idle" in wanted:
            await measure_idle(direct)
        if "fallback" in wanted:
            await measure_fallback()
        if "ready" in wanted:
            await measure_ready(direct)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--others", type=Path, metavar="FOLDER")
    parser.add_argument("wanted", nargs="*", choices=[*FIGURES, []], metavar="FIGURE")
    given = parser.parse_args()
    if given.engine:
        uvloop.run(serve_engine(given.engine))
    else:
        run_script(lambda: uvloop.run(main(given.wanted or FIGURES, given.others)))
