"""What it costs a request that an engine proves itself: the gateway's pool, and the guard.

    uv run python benchmarks/engine_proof.py [--requests 400]

An application that answers at once is asked directly and behind the guard, on a connection that is
kept and on a new one for each request; medians of the time to the whole answer.
"""

import argparse
import asyncio
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn

from mlx_gateway.upstream_http import Address, ConnectionPool, MakeChallenge
from mlx_stack.engines import guard

SECRET = "s" * 64
BODY = b"x" * 500


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer at once."""
    del scope
    while (await receive()).get("more_body"):
        pass
    length = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def served(app: Any) -> Iterator[int]:
    """The application on uvicorn; its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


async def measure(port: int, ask: MakeChallenge | None, *, is_kept: bool, requests: int) -> float:
    """The median, in milliseconds."""
    pool, address = ConnectionPool(), Address.of(f"http://127.0.0.1:{port}")
    took: list[float] = []
    for _ in range(requests):
        if not is_kept:
            pool.close()
        began = time.perf_counter()
        async with pool.request(address, "POST", "/v1/x", {}, BODY, lambda: ask) as answer:
            await answer.read(99)
        took.append((time.perf_counter() - began) * 1000)
    pool.close()
    return statistics.median(took)


def main() -> None:
    """Measure each in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400)
    requests = parser.parse_args().requests
    ask = partial(guard.ask, SECRET)
    with served(application) as plain, served(guard.Guard(application, SECRET)) as guarded:
        for is_kept in (True, False):
            direct = asyncio.run(measure(plain, None, is_kept=is_kept, requests=requests))
            proven = asyncio.run(measure(guarded, ask, is_kept=is_kept, requests=requests))
            where = "a kept connection" if is_kept else "a new connection "
            print(f"{where}  {direct:.2f} ms directly, {proven:.2f} ms with the proof")


if __name__ == "__main__":
    main()
