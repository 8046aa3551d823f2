"""A real calibration server, and measured runs made by hand."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from mlx_bench.calibration.check import calibration_server
from mlx_bench.client import Endpoint, StreamingClient
from mlx_bench.completion import CountedBy
from mlx_bench.metrics import Phase, Point, Run

type OpenClient = Callable[[str], StreamingClient]
type MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with calibration_server() as base_url:
        yield base_url


@pytest.fixture
def open_client(server_url: str) -> Iterator[OpenClient]:
    clients: list[StreamingClient] = []

    def open_one(schedule: str) -> StreamingClient:
        clients.append(StreamingClient(Endpoint(server_url, schedule), timeout_s=20))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def serve_bytes() -> Iterator[Callable[[bytes], str]]:
    """Starts a server that answers one request with these bytes and waits for the client to go."""
    with ExitStack() as stack:

        def serve(answer: bytes) -> str:
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            thread = threading.Thread(target=answer_once, args=(listener, answer))
            thread.start()
            stack.callback(thread.join)
            return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

        yield serve


def answer_once(listener: socket.socket, answer: bytes) -> None:
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as request:
        length = 0
        while (line := request.readline().lower()) not in {b"\r\n", b""}:
            name, _, value = line.partition(b":")
            length = int(value) if name == b"content-length" else length
        request.read(length)
        connection.sendall(answer)
        with contextlib.suppress(OSError):
            connection.recv(1)


@pytest.fixture
def make_run() -> MakeRun:
    """A good run of 100 tokens at 100 tokens a second after 0.1 s; fields may be overridden."""

    def make(
        *, rate: float = 100.0, ttft_s: float = 0.1, tokens: int = 100, **fields: object
    ) -> Run:
        run = Run(
            point=Point(1, 1024),
            phase=Phase.MEASURE,
            iteration=0,
            stream=0,
            connect_s=0.0005,
            ttft_s=ttft_s,
            prompt_tps=1024 / ttft_s,
            generation_tps=rate,
            end_to_end_s=ttft_s + (tokens - 1) / rate,
            requested_tokens=100,
            completion_tokens=tokens,
            counted_by=CountedBy.USAGE,
            prompt_tokens=1024,
            cached_tokens=0,
            event_offsets_s=tuple(ttft_s + k / rate for k in range(tokens)),
            finish_reason="length",
            error=None,
        )
        return replace(run, **fields)

    return make
