"""A real calibration server, and measured runs made by hand."""

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from mlx_bench.__main__ import main
from mlx_bench.calibration.check import calibration_server
from mlx_bench.cautions import Caution, CautionCode
from mlx_bench.client import ModelEndpoint, StreamingClient
from mlx_bench.completion import CountedBy
from mlx_bench.metrics import MeasuredRun, MeasuredWave, Phase, Point
from mlx_bench.report import EngineVersion, PeakMemory, Report, summarize
from mlx_bench.workload import Exactness, Parameters

type OpenClient = Callable[[str], StreamingClient]
POINT = Point(1, 1024)

type Say = Callable[..., subprocess.CompletedProcess[str]]
type MakeRun = Callable[..., MeasuredRun]
type MakeReport = Callable[..., Report]


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    with calibration_server() as base_url:
        yield base_url


@pytest.fixture
def open_client(server_url: str) -> Iterator[OpenClient]:
    clients: list[StreamingClient] = []

    def open_one(schedule: str) -> StreamingClient:
        clients.append(StreamingClient(ModelEndpoint(server_url, schedule), timeout_s=20))
        return clients[-1]

    yield open_one
    for client in clients:
        client.close()


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """Runs the program inside the test process, in the test's folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        capsys.readouterr()
        code = main(arguments)
        return subprocess.CompletedProcess(arguments, code, *capsys.readouterr())

    return run


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
        with contextlib.suppress(OSError):
            connection.sendall(answer)
            connection.recv(1)


@pytest.fixture
def make_run() -> MakeRun:
    """A good run of 100 tokens at 100 tokens a second after 0.1 s; fields may be overridden."""

    def make(
        *,
        point: Point = POINT,
        rate: float = 100.0,
        ttft_s: float = 0.1,
        tokens: int = 100,
        **fields: object,
    ) -> MeasuredRun:
        run = MeasuredRun(
            concurrency=point.concurrency,
            prompt_tokens_asked=point.prompt_tokens,
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
            event_offsets_s=tuple(round(ttft_s + k / rate, 6) for k in range(tokens)),
            finish_reason="length",
            error=None,
        )
        return msgspec.structs.replace(run, **fields)

    return make


@pytest.fixture
def make_report(make_run: MakeRun) -> MakeReport:
    """A finished report of three iterations of 100 tokens each at every point."""

    def make(points: tuple[Point, ...] = (Point(1, 1024),), rate: float = 100.0) -> Report:
        runs: list[MeasuredRun] = []
        waves: list[MeasuredWave] = []
        for point in points:
            for n in range(3):
                runs += [
                    make_run(rate=rate + n, point=point, iteration=n, stream=stream)
                    for stream in range(point.concurrency)
                ]
                waves.append(
                    MeasuredWave(
                        concurrency=point.concurrency,
                        prompt_tokens=point.prompt_tokens,
                        iteration=n,
                        duration_s=2.0,
                        clock_drift_s=0.0,
                        client_cpu_s=0.1,
                        peak_memory_bytes=400_000_000 + n,
                    )
                )
        parameters = Parameters(
            concurrency=tuple(dict.fromkeys(p.concurrency for p in points)),
            prompt_tokens=tuple(dict.fromkeys(p.prompt_tokens for p in points)),
        )
        return Report(
            target="http://127.0.0.1:8000/v1",
            model="smol <&> model",
            parameters=parameters,
            machine={"chip": "M9 Ultra", "memory_bytes": 64_000_000_000, "gpu": None},
            engine=EngineVersion("vllm-mlx", "0.6.0"),
            started_at="2026-11-01T10:00:00+00:00",
            finished=True,
            prompt_exactness=Exactness.EXACT,
            summaries=summarize(runs, waves, seed=parameters.seed),
            runs=tuple(runs),
            other_runs=(make_run(phase=Phase.WARM_UP),),
            waves=tuple(waves),
            memory=PeakMemory(400_000_002, "phys_footprint"),
            cautions=(Caution(CautionCode.OUTLIERS, "One </script> is far off.", 1, 1024),),
            bench_version="1.2.3",
            extra={"quant": "int4"},
        )

    return make
