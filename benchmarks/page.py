"""What the page costs: on a real stack with fake engines, looked at with Chromium.

    uv run --group browser python benchmarks/page.py [FIGURE …]

`paint`    until the first contentful paint, the page's code loaded already by the gateway or not
`streams`  8 streams of 60 tokens a second with the page open and without, in pairs
`idle`     the processor time of the gateway and of the browser while nothing happens
`heap`     JavaScript's heap before and after 10,000 events

CHROMIUM says where the browser is (/usr/bin/chromium).
"""

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import psutil
from gateway_others import KEY
from gateway_relay import RATE, Seen, Target, stream
from playwright.async_api import Browser, CDPSession, Page, async_playwright
from script import run_script

from mlx_stack.home import Home
from mlx_stack.stack import save_stack
from stack_testkit.home import define_stack, install_fake_engines
from stack_testkit.program import Program

FIGURES = ("paint", "streams", "idle", "heap")
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
STREAMS = 8
EVENTS = 10_000
MEASURED_S = float(os.environ.get("MEASURED_S", "10"))
ROUNDS = int(os.environ.get("ROUNDS", "4"))
SEND = """(count) => {
  const [source] = window.sources;
  const say = (topic, document) => source.dispatchEvent(
    new MessageEvent(topic, {data: JSON.stringify(document)}));
  const request = (id, at) => ({id, key: 'admin', program: 'curl', model: 'standard',
    tier: 'standard', protocol: 'chat/completions', phase: 'writing', seconds: at / 2, queue_s: 0,
    ttft_s: 0.1, writing_s: at / 2, received_bytes: 100, sent_bytes: at * 200, events: at * 30});
  for (let i = 0; i < count; i += 1) {
    const running = Array.from({length: 8}, (_, j) => request(8 * Math.floor(i / 50) + j, i % 50));
    say('requests', {running, lines: {standard: {running: 8, waiting: 0}}});
  }
}"""


@contextmanager
def stack() -> Iterator[tuple[Program, int, int]]:
    """A stack that runs; its program, the gateway's port and process."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        program = Program(home, {"NO_COLOR": "1"})
        install_fake_engines(home)
        defined = define_stack(
            home, {"standard": {"token-delay": 1 / RATE}}, config={"auto-health-check": False}
        )
        tiers = tuple(msgspec.structs.replace(each, concurrency=STREAMS) for each in defined.tiers)
        save_stack(home.stack, msgspec.structs.replace(defined, tiers=tiers))
        home.credentials.write_text(json.dumps({"schema_version": 1, "gateway_key": KEY}))
        home.credentials.chmod(0o600)
        try:
            started = program.run("up", "--json").document["services"]
            found = next(each for each in started if each["kind"] == "gateway")
            yield program, found["port"], found["pid"]
        finally:
            program.run("down")


async def opened(browser: Browser, program: Program) -> Page:
    """The page, signed in, its streams of events kept where a script finds them."""
    page = await browser.new_page()
    await page.add_init_script(
        "window.sources = []; window.EventSource = class extends EventSource {"
        " constructor(...given) { super(...given); window.sources.push(this); } }"
    )
    await page.goto(program.run("dashboard", "--print-url").out.strip())
    await page.get_by_text("healthy").first.wait_for()
    return page


async def paint(browser: Browser, program: Program, _port: int, _pid: int) -> None:
    """First contentful paint, and the services' states, of a first look and of later ones."""
    look = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    times: list[float] = []
    for number in range(6):
        began = time.perf_counter()
        page = await opened(browser, program)
        shown_s = time.perf_counter() - began
        times.append(await page.evaluate(look))
        await page.close()
        if number == 0:
            print(f"paint: the first look after the gateway's start {times[0]:.0f} ms "
                  f"(command, browser and services' states {shown_s:.2f} s)")  # fmt: skip
    print(f"paint: later ones, median of {len(times) - 1}: {statistics.median(times[1:]):.0f} ms")


def cpu_s(*pids: int) -> float:
    """The processor time of processes and what they started."""
    found = {each.pid: each for pid in pids for each in _family(pid)}
    times = [each.cpu_times() for each in found.values()]
    return sum(each.user + each.system for each in times)


def _family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


async def measure_streams(port: int, pid: int) -> tuple[float, float, float]:
    """TTFT (median, ms), CPU a chunk (µs) and tokens a second of 8 streams through the gateway."""
    target = Target("gateway", port, "standard", pid)
    seen, before = Seen(), psutil.Process(pid).cpu_times()
    until = time.perf_counter() + MEASURED_S
    words = " ".join(["word"] * RATE)

    async def one(number: int) -> None:
        await asyncio.sleep(number / STREAMS / 2)
        while time.perf_counter() < until:
            await stream(target, words, seen, until)

    await asyncio.gather(*map(one, range(STREAMS)))
    after = psutil.Process(pid).cpu_times()
    used_s = after.user + after.system - before.user - before.system
    ttft_ms = statistics.median(seen.ttft_s) * 1000
    return ttft_ms, used_s / seen.tokens * 1e6, seen.tokens / MEASURED_S


async def streams(browser: Browser, program: Program, port: int, pid: int) -> None:
    """The gateway's figures with the page open and without it, in turn, and how each pair differs.

    Every other pair begins with the page, so that what the machine does meanwhile hits both alike.
    """
    pairs: list[dict[bool, tuple[float, float, float]]] = []
    for number in range(ROUNDS):
        found: dict[bool, tuple[float, float, float]] = {}
        for is_open in (False, True) if number % 2 == 0 else (True, False):
            page = await opened(browser, program) if is_open else None
            await asyncio.sleep(1)
            found[is_open] = await measure_streams(port, pid)
            if page is not None:
                await page.close()
        pairs.append(found)
    for is_open in (False, True):
        rounds = [each[is_open] for each in pairs]
        ttft, cpu, rate = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"streams: {'with' if is_open else 'without'} the page: TTFT {ttft:.1f} ms, "
              f"{cpu:.0f} µs of CPU a chunk, {rate:.0f} tokens/s")  # fmt: skip
    for place, name in enumerate(("TTFT", "CPU a chunk", "tokens/s")):
        changes = [(each[True][place] / each[False][place] - 1) * 100 for each in pairs]
        print(f"streams: {name} with the page, in pairs: {statistics.median(changes):+.1f} % "
              f"({min(changes):+.1f} to {max(changes):+.1f} %, {len(pairs)} pairs)")  # fmt: skip


async def idle(browser: Browser, program: Program, _port: int, pid: int) -> None:
    """The processor time while nothing happens, in percent of a core, with and without in turn."""
    me = psutil.Process().pid
    found: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for is_open in (False, True, True, False):
        page = await opened(browser, program) if is_open else None
        await asyncio.sleep(3)
        began, gateway = time.perf_counter(), cpu_s(pid)
        chromium = cpu_s(me) - _own_cpu_s()
        await asyncio.sleep(1.5 * MEASURED_S)
        seconds = time.perf_counter() - began
        gateway = (cpu_s(pid) - gateway) / seconds * 100
        chromium = (cpu_s(me) - _own_cpu_s() - chromium) / seconds * 100
        found[is_open].append((gateway, chromium))
        if page is not None:
            await page.close()
    for is_open, rounds in found.items():
        gateway, chromium = (statistics.mean(each) for each in zip(*rounds, strict=True))
        print(f"idle: {'with' if is_open else 'without'} the page: gateway {gateway:.2f} %, "
              f"browser {chromium:.2f} % of a core")  # fmt: skip


def _own_cpu_s() -> float:
    times = psutil.Process().cpu_times()
    return times.user + times.system


async def heap(browser: Browser, program: Program, _port: int, _pid: int) -> None:
    """JavaScript's heap before and after many events, with all garbage collected."""
    page = await opened(browser, program)
    session = await page.context.new_cdp_session(page)
    await page.evaluate(SEND, 1000)
    before = await _heap_bytes(session)
    for _ in range(EVENTS // 1000):
        await page.evaluate(SEND, 1000)
    after = await _heap_bytes(session)
    change = (after / before - 1) * 100
    print(f"heap: {before / 1e6:.2f} MB; {after / 1e6:.2f} MB after {EVENTS:,} events "
          f"({change:+.1f} %)")  # fmt: skip
    await page.close()


async def _heap_bytes(session: CDPSession) -> float:
    for _ in range(3):
        await session.send("HeapProfiler.collectGarbage")
    return (await session.send("Runtime.getHeapUsage"))["usedSize"]


async def main() -> int:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=", ".join(FIGURES))
    asked = parser.parse_args().figures or FIGURES
    measures: dict[str, Callable[..., Awaitable[None]]] = {
        "paint": paint, "streams": streams, "idle": idle, "heap": heap,
    }  # fmt: skip
    print(f"load: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with stack() as (program, port, pid):
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
            for name in asked:
                await measures[name](browser, program, port, pid)
            await browser.close()
    return 0


if __name__ == "__main__":
    run_script(lambda: asyncio.run(main()))
