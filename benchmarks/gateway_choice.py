"""What a relay of 25 lines costs on each server and with each client: the choice of mlx-gateway.

    PACKAGES="--with granian --with hypercorn --with aiohttp --with httpcore"
    uv run $PACKAGES python benchmarks/gateway_choice.py

The engine costs nothing and is asked directly in the same run; see `gateway_relay.py`. What isn't
installed is left out.
"""

# the other servers and clients come with `--with`
# pyright: reportMissingImports=false, reportMissingTypeStubs=false

import argparse
import importlib.util
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import uvloop
from gateway_relay import (
    Seen,
    Target,
    engine,
    free_port,
    measure_lone,
    quantile,
    running,
    stream,
    streams,
    streams_warmup,
    until_ready,
)
from script import run_script

from mlx_gateway.upstream_http import Address, ConnectionPool

COUNT = 32
SERVERS = ("uvicorn", "granian", "hypercorn")
CLIENTS = ("mlx_gateway", "aiohttp", "httpcore")
ENGINE = "CHOICE_ENGINE"
CLIENT = "CHOICE_CLIENT"

type Send = Callable[[dict[str, Any]], Awaitable[None]]


# the relay


async def with_mlx_gateway(root: str, path: str, body: bytes) -> AsyncIterator[bytes]:
    """The client that mlx-gateway has."""
    pool = _shared("mlx_gateway", ConnectionPool)
    headers = {"content-type": "application/json"}
    async with pool.request(Address.of(root), "POST", path, headers, body) as response:
        async for chunk in response.chunks():
            yield chunk


async def with_aiohttp(root: str, path: str, body: bytes) -> AsyncIterator[bytes]:
    """aiohttp, which unpacks nothing."""
    import aiohttp

    session = _shared("aiohttp", lambda: aiohttp.ClientSession(auto_decompress=False))
    async with session.post(root + path, data=body) as response:
        async for chunk in response.content.iter_any():
            yield chunk


async def with_httpcore(root: str, path: str, body: bytes) -> AsyncIterator[bytes]:
    """httpcore, which httpx stands on."""
    import httpcore

    pool = _shared("httpcore", lambda: httpcore.AsyncConnectionPool(max_connections=200))
    headers = [(b"content-length", str(len(body)).encode()), (b"host", b"localhost")]
    async with pool.stream("POST", root + path, headers=headers, content=body) as response:
        async for chunk in response.aiter_stream():
            yield chunk


_kept: dict[str, Any] = {}


def _shared[T](name: str, make: Callable[[], T]) -> T:
    if name not in _kept:
        _kept[name] = make()
    return _kept[name]


async def app(
    scope: Mapping[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Send
) -> None:
    """Pass a request on, and its answer back."""
    if scope["type"] != "http":
        while scope["type"] == "lifespan":
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind.endswith("shutdown"):
                return
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["method"] == "POST":
        client = globals()[f"with_{os.environ[CLIENT]}"]
        async for chunk in client(os.environ[ENGINE], scope["path"], body):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def serve(server: str, port: int) -> None:
    """Run the relay."""
    if server == "uvicorn":
        import uvicorn

        uvicorn.run(
            app, port=port, loop="uvloop", http="httptools", access_log=False, log_level="error"
        )
    elif server == "granian":
        import granian

        granian.Granian(
            "gateway_choice:app", port=port, interface="asgi", loop="uvloop", log_enabled=False
        ).serve()
    else:
        import hypercorn.asyncio
        import hypercorn.config

        config = hypercorn.config.Config()
        config.bind = [f"127.0.0.1:{port}"]
        uvloop.run(hypercorn.asyncio.serve(app, config))


# measuring


@asynccontextmanager
async def relay(server: str, client: str, behind: Target) -> AsyncIterator[Target]:
    """The relay on a server, with a client."""
    port = free_port()
    root = f"http://127.0.0.1:{behind.port}"
    command = (sys.executable, __file__, "--serve", server, "--port", str(port))
    with running(*command, **{ENGINE: root, CLIENT: client}) as process:
        await until_ready(port)
        yield Target(f"{server}+{client}", port, behind.model, process.pid)


async def main() -> None:
    """Each server with our client, and each client on uvicorn."""
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    pairs = [(server, "mlx_gateway") for server in SERVERS]
    pairs += [("uvicorn", client) for client in CLIENTS[1:]]
    installed = [pair for pair in pairs if all(map(importlib.util.find_spec, pair))]
    async with engine() as direct, AsyncExitStack() as stack:
        relays = [relay(*pair, direct) for pair in installed]
        targets = [direct, *[await stack.enter_async_context(each) for each in relays]]
        for target in targets:
            await streams_warmup(target)
        await measure_lone(targets)
        print(f"{COUNT} streams{'':20} share   TTFT p50   p95 ms  CPU/chunk µs  MiB  at full speed")
        direct_rate = 0.0
        for target in targets:
            rate, seen, cpu_us = await streams(target, COUNT)
            direct_rate = direct_rate or rate
            p50, p95 = (quantile(seen.ttft_s, share) * 1e3 for share in (0.5, 0.95))
            began, fast = time.perf_counter(), Seen()
            await stream(target, "tokens=30000 rate=0", fast)
            speed = fast.tokens / (time.perf_counter() - began)
            print(
                f"{target.name:28} {rate / direct_rate:.3f}  {p50:8.1f} {p95:8.1f}  {cpu_us:12.0f}"
                f"  {target.resident_mib():3.0f}  {speed:10.0f}/s",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=SERVERS, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve, given.port)
    else:
        run_script(lambda: uvloop.run(main()))
