"""Runs a benchmark of a role: calibrates texts, warms up, sends waves, and keeps every request."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

import mlx_bench
from mlx_bench.client import Exchange, StreamingClient, unreachable
from mlx_bench.completion import server_message
from mlx_bench.engine import identify_engine
from mlx_bench.errors import EndpointError
from mlx_bench.report import EngineVersion
from mlx_bench.request import PlainRequest
from mlx_bench.roles.cautions import find_role_cautions
from mlx_bench.roles.report import RoleReport, RoleRun, RoleWave, summarize_load
from mlx_bench.roles.workload import (
    FreshMaterial,
    RoleAnswer,
    RoleLoad,
    RoleParameters,
    RoleWorkload,
)
from mlx_bench.runner import Conditions, MemoryWatch, OnProgress
from mlx_bench.wave import send_timed
from mlx_bench.workload import WORDS, PromptMaker, calibrate_prompts

_ONE = RoleLoad(items=1, size=1)
_FEW_WORDS = WORDS[:64]
"""So few that a text of all of them is not cut by a model that reads 128 tokens."""

type OnRoleReport = Callable[[RoleReport], None]
"""Called with the report so far after every iteration."""


def run_role(
    client: StreamingClient,
    workload: RoleWorkload,
    parameters: RoleParameters,
    conditions: Conditions,
    *,
    on_report: OnRoleReport = lambda _: None,
    on_progress: OnProgress = lambda _: None,
) -> RoleReport:
    """The finished report of a benchmark of a role.

    Each iteration of a load is a wave: as many requests as its concurrency, sent together.

    Args:
        on_report: Gets the unfinished report after every iteration, so that a crash loses nothing.
        on_progress: Gets progress in words.

    Raises:
        EndpointError: The server can't be reached or refuses, or no request succeeded.
    """
    return _RoleBenchmark(client, workload, parameters, conditions, on_report, on_progress).run()


@dataclass(slots=True)
class _RoleBenchmark:
    client: StreamingClient
    workload: RoleWorkload
    parameters: RoleParameters
    conditions: Conditions
    on_report: OnRoleReport
    on_progress: OnProgress
    prompts: PromptMaker = field(default_factory=PromptMaker)
    engine: EngineVersion = field(default_factory=EngineVersion)
    runs: list[RoleRun] = field(default_factory=list[RoleRun])
    waves: list[RoleWave] = field(default_factory=list[RoleWave])
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    def run(self) -> RoleReport:
        self.calibrate()
        material = FreshMaterial(self.prompts, self.parameters.seed)
        for load in self.parameters.loads:
            self.measure(load, material)
        if all(run.error is not None for run in self.runs):
            raise EndpointError(
                f"None of {len(self.runs)} requests succeeded: {self.runs[0].error}.",
                url=self.client.endpoint.base_url,
            )
        report = self.report(finished=True)
        self.on_report(report)
        return report

    def calibrate(self) -> None:
        """Learn the server's token count and its name, with requests of one short text."""
        server, probe = "", self.workload.probe

        def count_tokens(text: str) -> int | None:
            nonlocal server
            assert probe is not None
            exchange = self.client.send(probe(self.client.endpoint.model, text))
            server = exchange.server
            answer = self.read(exchange, _ONE)
            if isinstance(answer, str):
                url = self.client.endpoint.base_url
                if exchange.status is None:
                    raise unreachable(url, answer)
                raise EndpointError(
                    f"The server doesn't do the work of the role {self.workload.role}: {answer}.",
                    url=url,
                    status=exchange.status,
                )
            return answer.tokens

        if probe is not None:
            self.on_progress("Finding out how the server counts tokens")
            self.prompts = calibrate_prompts(count_tokens, _FEW_WORDS)
        self.engine = self.conditions.engine or identify_engine(self.client, server)

    def measure(self, load: RoleLoad, material: FreshMaterial) -> None:
        for iteration in range(self.parameters.warm_up):
            self.on_progress(f"{self.words(load)}: warm-up {iteration + 1}")
            self.send_wave(load, self.requests(load, material), iteration)
        iteration = 0
        while self.wants_more(load, iteration):
            self.on_progress(f"{self.words(load)}: iteration {iteration + 1}")
            runs, wave = self.send_wave(load, self.requests(load, material), iteration)
            self.runs += runs
            self.waves.append(wave)
            iteration += 1
            self.on_report(self.report(finished=False))

    def words(self, load: RoleLoad) -> str:
        return f"{load.items} of {load.size:,} {self.workload.size_unit}"

    def requests(self, load: RoleLoad, material: FreshMaterial) -> list[PlainRequest]:
        model = self.client.endpoint.model
        return [self.workload.make(model, load, material) for _ in range(load.concurrency)]

    def wants_more(self, load: RoleLoad, done: int) -> bool:
        asked = self.parameters
        if done < asked.iterations:
            return True
        if asked.precision is None or done >= asked.max_iterations:
            return False
        summary = summarize_load(load, self.runs, self.waves, seed=asked.seed)
        return not summary.rate.is_known_within(asked.precision)

    def send_wave(
        self, load: RoleLoad, requests: list[PlainRequest], iteration: int
    ) -> tuple[list[RoleRun], RoleWave]:
        """Send requests together and measure each; reading waits until all have ended."""
        with MemoryWatch(self.conditions.memory_bytes) as memory:
            wave = send_timed(self.client.send, requests)
        runs = [
            self.measured(exchange, load, iteration, stream)
            for stream, exchange in enumerate(wave.exchanges)
        ]
        sent = [exchange.sent_ns for exchange in wave.exchanges if exchange.sent_ns is not None]
        duration_ns = wave.ended_ns - min(sent, default=wave.begun_ns)
        return runs, RoleWave(
            load=load,
            iteration=iteration,
            duration_s=duration_ns / 1e9,
            clock_drift_s=(wave.wall_ns - (wave.ended_ns - wave.begun_ns)) / 1e9,
            client_cpu_s=wave.cpu_ns / 1e9,
            peak_memory_bytes=memory.peak_bytes,
        )

    def measured(self, exchange: Exchange, load: RoleLoad, iteration: int, stream: int) -> RoleRun:
        answer = self.read(exchange, load)
        is_good = isinstance(answer, RoleAnswer)
        sent_ns = exchange.sent_ns if exchange.sent_ns is not None else exchange.started_ns
        has_first = is_good and self.workload.streams
        return RoleRun(
            load=load,
            iteration=iteration,
            stream=stream,
            connect_s=exchange.connect_ns / 1e9,
            end_to_end_s=(exchange.reads[-1][0] - sent_ns) / 1e9 if is_good else None,
            first_byte_s=(exchange.reads[0][0] - sent_ns) / 1e9 if has_first else None,
            amount=answer.amount if is_good else 0.0,
            tokens=answer.tokens if is_good else None,
            error=None if is_good else answer,
        )

    def read(self, exchange: Exchange, load: RoleLoad) -> RoleAnswer | str:
        """What an answer comes to, or in words why it is none."""
        if exchange.status is None or exchange.failure is not None:
            return exchange.failure or "no answer"
        if exchange.status >= 300:
            return f"HTTP {exchange.status}: {server_message(exchange.body_text)}"
        if not exchange.reads:
            return "the answer is empty"
        try:
            return self.workload.read(b"".join(block for _, block in exchange.reads), load)
        except ValueError as error:
            return str(error)

    def report(self, *, finished: bool) -> RoleReport:
        workload, asked = self.workload, self.parameters
        loads = dict.fromkeys(run.load for run in self.runs)
        report = RoleReport(
            bench_version=mlx_bench.__version__,
            target=self.conditions.target,
            model=self.client.endpoint.model,
            role=workload.role,
            unit=workload.unit,
            item=workload.item,
            size_unit=workload.size_unit,
            engine=self.engine,
            parameters=asked,
            size_exactness=None if workload.probe is None else self.prompts.exactness,
            machine=self.conditions.machine,
            started_at=self.started_at,
            finished=finished,
            summaries=tuple(
                summarize_load(load, self.runs, self.waves, seed=asked.seed) for load in loads
            ),
            runs=tuple(self.runs),
            waves=tuple(self.waves),
            extra=self.conditions.report_extra,
        )
        return msgspec.structs.replace(report, cautions=find_role_cautions(report))
