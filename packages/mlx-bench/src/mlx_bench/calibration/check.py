"""How exact the instrument is on this machine: measured against the calibration server.

The server runs in its own process and shares the machine's monotonic clock, so its stamps and
the client's can be compared one by one.
"""

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from mlx_bench.calibration.schedule import Schedule, plan_events, spell_schedule, true_rate_tps
from mlx_bench.calibration.server import ServedRequests
from mlx_bench.client import ModelEndpoint, StreamingClient
from mlx_bench.errors import BenchError
from mlx_bench.request import ChatRequest
from mlx_bench.wave import TimedWave, send_timed

TTFT_LIMIT_S = 0.002
"""TTFT may be off by this much …"""

TTFT_LIMIT_SHARE = 0.01
"""… or by this share, whichever is more."""


@dataclass(frozen=True, slots=True)
class CalibrationCase:
    """One schedule, under so many streams at once.

    Attributes:
        rate_limit: How far off the rate may be, as a share; None only states it.
    """

    schedule: Schedule
    tokens: int
    streams: int = 1
    rate_limit: float | None = 0.01


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """How far off the instrument was in one case; errors are signed, the largest of all streams.

    Attributes:
        ttft_error_s: Measured less scheduled TTFT.
        ttft_error_to_server_s: Measured TTFT less the server's own, by its stamps.
        rate_error: Measured over planned decode rate, less one.
        client_cpu_share: CPU time of the client over the time of the wave.
    """

    case: CalibrationCase
    ttft_error_s: float
    ttft_error_to_server_s: float
    rate_error: float
    client_cpu_share: float
    within_limits: bool

    def to_document(self) -> dict[str, object]:
        """The result as a JSON object."""
        case = {
            "model": spell_schedule(self.case.schedule),
            "ttft_s": self.case.schedule.ttft_ms / 1000,
            "tps": self.case.schedule.tps,
            "tokens": self.case.tokens,
            "streams": self.case.streams,
            "rate_limit": self.case.rate_limit,
        }
        return {**asdict(self), "case": case}


CASES: tuple[CalibrationCase, ...] = (
    CalibrationCase(Schedule(ttft_ms=50, tps=100), 50),
    CalibrationCase(Schedule(ttft_ms=500, tps=20), 20),
    CalibrationCase(Schedule(ttft_ms=2000, tps=50), 20),
    CalibrationCase(Schedule(ttft_ms=200, tps=5), 6),
    CalibrationCase(Schedule(ttft_ms=200, tps=200), 300),
    CalibrationCase(Schedule(ttft_ms=200, tps=500), 600, rate_limit=0.02),
    CalibrationCase(Schedule(ttft_ms=100, tps=100, jitter=0.4), 150),
    CalibrationCase(Schedule(ttft_ms=100, tps=100, burst=5), 150),
    CalibrationCase(Schedule(ttft_ms=100, tps=100, grouped=4), 150),
    CalibrationCase(Schedule(ttft_ms=300, tps=200), 300, streams=8),
    CalibrationCase(Schedule(ttft_ms=300, tps=200), 300, streams=32, rate_limit=None),
)
"""What `mlx-bench calibrate` tries; the last case is stated, not judged."""


@contextmanager
def calibration_server() -> Generator[str]:
    """The base URL of a calibration server in its own process, ended afterwards.

    Raises:
        BenchError: The server did not start.
    """
    command = (sys.executable, "-m", "mlx_bench.calibration", "--port", "0")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            if not base_url:
                raise BenchError("The calibration server did not start.")
            yield base_url
        finally:
            process.terminate()
            process.wait()


def check_case(base_url: str, case: CalibrationCase) -> CalibrationResult:
    """How far off the instrument is in one case."""
    with StreamingClient(ModelEndpoint(base_url, spell_schedule(case.schedule))) as client:
        client.stream(ChatRequest("warm up", 2))
        requests = [ChatRequest(f"stream {stream}", case.tokens) for stream in range(case.streams)]
        wave = send_timed(client.stream, requests)
        served = served_ttfts_s(client)
    return _judge(case, wave, served)


def served_ttfts_s(client: StreamingClient) -> dict[str, float]:
    """The server's own TTFT of every request it has served, by response id."""
    root = client.endpoint.base_url.removesuffix("/v1")
    served = client.get(f"{root}/calibration/requests", ServedRequests) or ServedRequests([])
    return {
        request.response_id: (request.sent_ns[0] - request.received_ns) / 1e9
        for request in served.requests
        if request.sent_ns
    }


def _judge(case: CalibrationCase, wave: TimedWave, served: dict[str, float]) -> CalibrationResult:
    plan = plan_events(case.schedule, tokens=case.tokens, uncached_tokens=0)
    planned_tps = true_rate_tps(plan)
    assert planned_tps is not None
    ttft_errors: list[float] = []
    server_errors: list[float] = []
    rate_errors: list[float] = []
    for exchange in wave.exchanges:
        completion = exchange.parse()
        if not completion.token_times_ns or exchange.sent_ns is None:
            raise BenchError(f"The calibration server gave no answer: {exchange.failure}")
        first, last = completion.token_times_ns[0], completion.token_times_ns[-1]
        ttft_s = (first - exchange.sent_ns) / 1e9
        ttft_errors.append(ttft_s - plan[0].at_s)
        server_errors.append(ttft_s - served[completion.response_id])
        measured_tps = (completion.completion_tokens - 1) / ((last - first) / 1e9)
        rate_errors.append(measured_tps / planned_tps - 1)
    ttft_error, server_error, rate_error = (
        max(errors, key=abs) for errors in (ttft_errors, server_errors, rate_errors)
    )
    limit_s = max(TTFT_LIMIT_S, TTFT_LIMIT_SHARE * plan[0].at_s)
    # With several streams the server reads requests one after the other; its stamps are the truth.
    judged = ttft_error if case.streams == 1 else server_error
    within = case.rate_limit is None or (
        abs(rate_error) <= case.rate_limit and abs(judged) <= limit_s
    )
    return CalibrationResult(case, ttft_error, server_error, rate_error, wave.cpu_share, within)
