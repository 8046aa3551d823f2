"""How exact the instrument is on this machine: measured against the calibration server.

The server runs in a process of its own and shares the machine's monotonic clock, so its stamps and
the client's can be compared one by one.
"""

import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from mlx_bench._json_values import as_count, as_list, as_object, as_text
from mlx_bench.calibration.schedule import Schedule, plan_events, spell_schedule, true_rate_tps
from mlx_bench.client import Endpoint, StreamingClient
from mlx_bench.errors import BenchError
from mlx_bench.request import ChatRequest
from mlx_bench.wave import TimedWave, send_timed

TTFT_LIMIT_S = 0.002
"""TTFT may be off by this much …"""

TTFT_LIMIT_SHARE = 0.01
"""… or by this share, whichever is more."""


@dataclass(frozen=True, slots=True)
class Case:
    """One schedule, under so many streams at once.

    Attributes:
        schedule: What the server does.
        tokens: How many tokens each stream asks for.
        streams: Streams at once.
        rate_limit: How far off the rate may be, as a share; None only states it.
    """

    schedule: Schedule
    tokens: int
    streams: int = 1
    rate_limit: float | None = 0.01


@dataclass(frozen=True, slots=True)
class Finding:
    """How far off the instrument was in one case; errors are signed, the largest of all streams.

    Attributes:
        case: What was tried.
        ttft_error_s: Measured less scheduled TTFT.
        ttft_error_to_server_s: Measured TTFT less the server's own, by its stamps.
        rate_error: Measured over planned decode rate, less one.
        client_cpu_share: CPU time of the client over the time of the wave.
        within_limits: Whether everything with a limit is within it.
    """

    case: Case
    ttft_error_s: float
    ttft_error_to_server_s: float
    rate_error: float
    client_cpu_share: float
    within_limits: bool


CASES: tuple[Case, ...] = (
    Case(Schedule(ttft_ms=50, tps=100), 50),
    Case(Schedule(ttft_ms=500, tps=20), 20),
    Case(Schedule(ttft_ms=2000, tps=50), 20),
    Case(Schedule(ttft_ms=200, tps=5), 6),
    Case(Schedule(ttft_ms=200, tps=200), 300),
    Case(Schedule(ttft_ms=200, tps=500), 600, rate_limit=0.02),
    Case(Schedule(ttft_ms=100, tps=100, jitter=0.4), 150),
    Case(Schedule(ttft_ms=100, tps=100, burst=5), 150),
    Case(Schedule(ttft_ms=100, tps=100, grouped=4), 150),
    Case(Schedule(ttft_ms=300, tps=200), 300, streams=8),
    Case(Schedule(ttft_ms=300, tps=200), 300, streams=32, rate_limit=None),
)
"""What `mlx-bench calibrate` tries; the last case is stated, not judged."""


def finding_as_json(finding: Finding) -> dict[str, object]:
    """A finding as a JSON object."""
    shape = asdict(finding)
    shape["case"] = {
        "model": spell_schedule(finding.case.schedule),
        "ttft_s": finding.case.schedule.ttft_ms / 1000,
        "tps": finding.case.schedule.tps,
        "tokens": finding.case.tokens,
        "streams": finding.case.streams,
        "rate_limit": finding.case.rate_limit,
    }
    return shape


@contextmanager
def calibration_server() -> Generator[str]:
    """The base URL of a calibration server in a process of its own, ended afterwards.

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


def check_instrument(base_url: str, cases: Sequence[Case] = CASES) -> Generator[Finding]:
    """How far off the instrument is, case by case."""
    for case in cases:
        yield check_case(base_url, case)


def check_case(base_url: str, case: Case) -> Finding:
    """How far off the instrument is in one case."""
    with StreamingClient(Endpoint(base_url, spell_schedule(case.schedule))) as client:
        client.stream(ChatRequest("warm up", 2))
        requests = [ChatRequest(f"stream {stream}", case.tokens) for stream in range(case.streams)]
        wave = send_timed(client, requests)
        served = served_ttfts_s(client)
    return _judge(case, wave, served)


def served_ttfts_s(client: StreamingClient) -> dict[str, float]:
    """The server's own TTFT of every request it has served, by response id."""
    root = client.endpoint.base_url.removesuffix("/v1")
    account = client.get_json(f"{root}/calibration/requests") or {}
    found: dict[str, float] = {}
    for entry in map(as_object, as_list(account.get("requests"))):
        sent = as_list(entry.get("sent_ns"))
        first, received = as_count(sent[0]) if sent else None, as_count(entry.get("received_ns"))
        if first is not None and received is not None:
            found[as_text(entry.get("response_id"))] = (first - received) / 1e9
    return found


def _judge(case: Case, wave: TimedWave, served: dict[str, float]) -> Finding:
    plan = plan_events(case.schedule, tokens=case.tokens, uncached_tokens=0)
    planned_tps = true_rate_tps(plan)
    assert planned_tps is not None
    ttft_errors: list[float] = []
    server_errors: list[float] = []
    rate_errors: list[float] = []
    for exchange in wave.exchanges:
        completion = exchange.understand()
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
    return Finding(case, ttft_error, server_error, rate_error, wave.cpu_share, within)
