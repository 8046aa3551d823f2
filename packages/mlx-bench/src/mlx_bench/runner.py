"""Runs a benchmark: calibrates prompts, warms up, sends waves, and keeps every sample."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Self

import mlx_bench
from mlx_bench.cautions import find_cautions
from mlx_bench.client import ReadLimit, StreamingClient
from mlx_bench.engine import identify_engine
from mlx_bench.errors import EndpointError
from mlx_bench.metrics import MeasuredRun, MeasuredWave, Phase, Point, measure_run
from mlx_bench.report import (
    EngineVersion,
    PeakMemory,
    Report,
    is_precise_enough,
    summarize,
    summarize_point,
)
from mlx_bench.request import ChatRequest
from mlx_bench.wave import send_timed
from mlx_bench.workload import Cache, Parameters, PromptMaker, calibrate_prompts

_MEMORY_INTERVAL_S = 0.5
_SECONDS_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which conditions something is measured.

    Attributes:
        engine: The server's software, or None to ask the server.
        memory_bytes: Gives the serving process's memory now, or None where it can't be seen.
        memory_source: What that reads.
        request_extra: Further fields of each request's body.
        report_extra: Further keys for the report, as a tool-calling check.
        context_tokens: The model's context, or None to ask the server.
        concurrency: How many requests the model is planned for at once, or None.
    """

    target: str
    machine: dict[str, object]
    engine: EngineVersion | None = None
    memory_bytes: Callable[[], int | None] | None = None
    memory_source: str = ""
    request_extra: dict[str, object] = field(default_factory=dict[str, object])
    report_extra: dict[str, object] = field(default_factory=dict[str, object])
    context_tokens: int | None = None
    concurrency: int | None = None


type OnReport = Callable[[Report], None]
"""Called with the report so far after every iteration."""

type OnProgress = Callable[[str], None]
"""Called with a line about what happens now."""


def run_benchmark(
    client: StreamingClient,
    parameters: Parameters,
    conditions: Conditions,
    *,
    on_report: OnReport = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> Report:
    """The finished report of a benchmark.

    Each iteration of a point is a wave: as many requests as its concurrency, sent together.

    Args:
        on_report: Gets the unfinished report after every iteration, so that a crash loses nothing.
        on_progress: Gets progress in words.

    Raises:
        EndpointError: The server can't be reached or refuses, or no run succeeded.
    """
    return _Benchmark(client, parameters, conditions, on_report, on_progress).run()


class MemoryWatch:
    """Keeps the highest of what a probe says while the context is open."""

    def __init__(self, probe: Callable[[], int | None] | None) -> None:
        self._probe = probe
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_bytes: int | None = None

    def __enter__(self) -> Self:
        if self._probe is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._probe is not None:
            self._thread.join()

    def _watch(self) -> None:
        assert self._probe is not None
        while True:
            size = self._probe()
            if size is not None:
                self.peak_bytes = max(self.peak_bytes or 0, size)
            if self._stop.wait(_MEMORY_INTERVAL_S):
                return


@dataclass(slots=True)
class _Benchmark:
    client: StreamingClient
    parameters: Parameters
    conditions: Conditions
    on_report: OnReport
    on_progress: OnProgress
    prompts: PromptMaker = field(default_factory=PromptMaker)
    prompt_index: int = 0
    engine: EngineVersion = field(default_factory=EngineVersion)
    runs: list[MeasuredRun] = field(default_factory=list[MeasuredRun])
    other_runs: list[MeasuredRun] = field(default_factory=list[MeasuredRun])
    waves: list[MeasuredWave] = field(default_factory=list[MeasuredWave])
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def run(self) -> Report:
        self.calibrate()
        for prompt_tokens in self.parameters.prompt_tokens:
            for concurrency in self.parameters.concurrency:
                self.measure_point(Point(concurrency, prompt_tokens))
        if all(run.error is not None for run in self.runs):
            raise EndpointError(
                f"None of {len(self.runs)} runs succeeded: {self.runs[0].error}.",
                url=self.client.endpoint.completions_url,
            )
        report = self.report(finished=True)
        self.on_report(report)
        return report

    def calibrate(self) -> None:
        """Learn the server's dialect, its token count and its name, with requests of one token."""
        self.on_progress("Finding out how the server counts prompt tokens")
        server = ""

        def count_tokens(prompt: str) -> int | None:
            nonlocal server
            probe = self.request(prompt, max_tokens=1)
            exchange = self.client.negotiate(probe, limit=ReadLimit())
            server = exchange.server
            usage = exchange.parse().usage
            return usage.prompt_tokens if usage else None

        self.prompts = calibrate_prompts(count_tokens)
        self.engine = self.conditions.engine or identify_engine(self.client, server)

    def request(self, prompt: str, *, max_tokens: int) -> ChatRequest:
        return ChatRequest(
            prompt, max_tokens, self.parameters.seed, extra=self.conditions.request_extra
        )

    def fresh_requests(self, point: Point) -> list[ChatRequest]:
        requests: list[ChatRequest] = []
        for _ in range(point.concurrency):
            prompt = self.prompts.make(
                point.prompt_tokens, seed=self.parameters.seed, index=self.prompt_index
            )
            self.prompt_index += 1
            requests.append(self.request(prompt, max_tokens=self.parameters.generation_tokens))
        return requests

    def measure_point(self, point: Point) -> None:
        for iteration in range(self.parameters.warm_up):
            self.on_progress(f"{point}: warm-up {iteration + 1}{self.time_left()}")
            requests = self.fresh_requests(point)
            runs, _ = self.send_wave(point, Phase.WARM_UP, iteration, requests)
            self.other_runs += runs
        iteration = 0
        while self.wants_more(point, iteration):
            self.on_progress(f"{point}: iteration {iteration + 1}{self.time_left()}")
            self.measure_iteration(point, iteration)
            iteration += 1
            self.on_report(self.report(finished=False))

    def measure_iteration(self, point: Point, iteration: int) -> None:
        requests = self.fresh_requests(point)
        if self.parameters.cache is Cache.PRIMED:
            primed, _ = self.send_wave(point, Phase.PRIME, iteration, requests)
            self.other_runs += primed
        runs, wave = self.send_wave(point, Phase.MEASURE, iteration, requests)
        self.runs += runs
        self.waves.append(wave)

    def time_left(self) -> str:
        """About how long the rest takes, in words; "" before there is anything to go by.

        Every wave of a point is taken to last as long as its first, and those of points that are
        still to come as long as the latest.
        """
        done = len(self.waves)
        if not done:
            return ""
        total = len(self.parameters.prompt_tokens) * len(self.parameters.concurrency)
        left = total * self.parameters.iterations - done
        seconds = self.waves[-1].duration_s * left
        if left < 1:  # it goes on until the figures are precise enough
            return ""
        shown = f"{seconds:.0f} s" if seconds < _SECONDS_SHOWN else f"{seconds / 60:.0f} min"
        return f" of {self.parameters.iterations}, about {shown} left"

    def wants_more(self, point: Point, done: int) -> bool:
        parameters = self.parameters
        if done < parameters.iterations:
            return True
        if parameters.precision is None or done >= parameters.max_iterations:
            return False
        summary = summarize_point(point, self.runs, self.waves, seed=parameters.seed)
        return not is_precise_enough(summary, parameters.precision)

    def send_wave(
        self, point: Point, phase: Phase, iteration: int, requests: list[ChatRequest]
    ) -> tuple[list[MeasuredRun], MeasuredWave]:
        """Send requests together and measure each; decoding waits until all have ended."""
        with MemoryWatch(self.conditions.memory_bytes) as memory:
            wave = send_timed(self.client.stream, requests)
        runs = [
            measure_run(
                exchange,
                exchange.parse(),
                point=point,
                requested_tokens=request.max_tokens,
                phase=phase,
                iteration=iteration,
                stream=stream,
            )
            for stream, (exchange, request) in enumerate(zip(wave.exchanges, requests, strict=True))
        ]
        sent = [exchange.sent_ns for exchange in wave.exchanges if exchange.sent_ns is not None]
        timing = MeasuredWave(
            concurrency=point.concurrency,
            prompt_tokens=point.prompt_tokens,
            iteration=iteration,
            duration_s=(wave.ended_ns - min(sent, default=wave.begun_ns)) / 1e9,
            clock_drift_s=(wave.wall_ns - (wave.ended_ns - wave.begun_ns)) / 1e9,
            client_cpu_s=wave.cpu_ns / 1e9,
            peak_memory_bytes=memory.peak_bytes,
        )
        return runs, timing

    def report(self, *, finished: bool) -> Report:
        peaks = [w.peak_memory_bytes for w in self.waves if w.peak_memory_bytes is not None]
        exactness = self.prompts.exactness
        return Report(
            bench_version=mlx_bench.__version__,
            target=self.conditions.target,
            model=self.client.endpoint.model,
            engine=self.engine,
            parameters=self.parameters,
            prompt_exactness=exactness,
            machine=self.conditions.machine,
            started_at=self.started_at,
            finished=finished,
            summaries=summarize(self.runs, self.waves, seed=self.parameters.seed),
            memory=PeakMemory(max(peaks), self.conditions.memory_source) if peaks else None,
            cautions=find_cautions(self.runs, self.waves, self.parameters, exactness),
            runs=tuple(self.runs),
            other_runs=tuple(self.other_runs),
            waves=tuple(self.waves),
            extra=self.conditions.report_extra,
        )
