"""Measure a tier, a local model or any endpoint; keep the result for `recommend`."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlx_bench import (
    Conditions,
    Engine,
    Judgement,
    Parameters,
    Report,
    StreamingClient,
    ToolCheck,
    Verdict,
    check_tool_calling,
    describe_machine,
    power_meter,
    report_as_json,
    run_benchmark,
    save_report,
)
from mlx_bench.runner import OnReport, with_extra
from mlx_hwprobe import HardwareProfile, HwprobeError
from mlx_stack.bench.target import BenchTarget, open_target
from mlx_stack.bench.verdict import judge_report, overall, verdict_fields
from mlx_stack.engines import lockfile
from mlx_stack.engines.environment import current_environment
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home

type Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A finished benchmark.

    Attributes:
        report: What was measured.
        judgements: Each figure beside what was expected; empty where nothing was.
        tools: The tool-calling check, or None where the model doesn't claim to call tools.
        saved: Where the result is, or None.
    """

    report: Report
    judgements: tuple[Judgement, ...]
    tools: ToolCheck | None
    saved: Path | None

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the whole, or None where nothing was expected."""
        return overall(self.judgements)

    def to_document(self) -> dict[str, object]:
        """The fields of the JSON answer."""
        return {**report_as_json(self.report), "saved": str(self.saved) if self.saved else None}


def bench(
    home: Home,
    name: str,
    parameters: Parameters,
    *,
    model: str | None = None,
    api_key: str | None = None,
    is_saved: bool = False,
    on_report: OnReport = lambda _: None,
    say: Say = lambda _: None,
) -> BenchResult:
    """Measure what `name` means.

    Args:
        home: Where the stack, the models and saved results are.
        name: A tier, a model on this disk, or a URL ending in `/v1`.
        parameters: What to measure.
        model: The model to ask a URL for.
        api_key: What a URL wants as bearer token.
        is_saved: Keep the result, from the first iteration on.
        on_report: Gets the unfinished report after every iteration, and the finished one.
        say: Told what happens.

    Raises:
        UsageError: The name means nothing.
        StackError: The target can't be served or doesn't answer.
        EndpointError: No run succeeded.
    """
    target_context = open_target(
        home,
        name,
        model=model,
        api_key=api_key,
        concurrency=max(parameters.concurrency),
        say=say,
    )
    with (
        target_context as target,
        StreamingClient(target.endpoint) as client,
        ExitStack() as stack,
    ):
        saved = _saved_path(home, target) if is_saved else None
        hardware = _hardware(home)
        meter = power_meter()
        conditions = Conditions(
            target=name if target.tier is None else f"tier {name}",
            machine=_machine(hardware),
            engine=_engine(home) if target.source is not None else None,
            memory_bytes=target.process.memory_bytes if target.process else None,
            memory_source=target.process.source if target.process else "",
            power=stack.enter_context(meter) if meter else None,
            report_extra={"quant": target.quant, "source": target.source, "tier": target.tier},
        )

        def keep(report: Report) -> None:
            _save(report, saved)
            on_report(report)

        report = run_benchmark(client, parameters, conditions, on_report=keep, say=say)
        tools = None
        if target.entry is not None and target.entry.capabilities.tool_calling:
            say("Trying a tool call")
            tools = check_tool_calling(client)
    judgements = judge_report(report, target, hardware) if hardware is not None else ()
    report = with_extra(
        report,
        verdict=verdict_fields(judgements),
        tool_calling=asdict(tools) if tools is not None else None,
    )
    keep(report)
    return BenchResult(report=report, judgements=judgements, tools=tools, saved=saved)


def _save(report: Report, path: Path | None) -> None:
    """Write what was measured so far, once there is something that an estimate can use."""
    if path is not None and any(run.error is None for run in report.runs):
        save_report(report, path)


def _saved_path(home: Home, target: BenchTarget) -> Path:
    home.create()
    parts = (target.endpoint.model, target.quant, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
    words = [re.sub(r"[^A-Za-z0-9._]+", "-", part).strip("-.") for part in parts if part]
    return home.benchmarks / f"{'-'.join(filter(None, words))}.json"


def _hardware(home: Home) -> HardwareProfile | None:
    try:
        return known_hardware(home)
    except HwprobeError:
        return None  # measuring needs no profile; only the verdict does


def _machine(hardware: HardwareProfile | None) -> dict[str, object]:
    described = describe_machine()
    if hardware is None:
        return described
    profile = {key: value for key, value in hardware.to_json().items() if key != "schema_version"}
    return {**described, **profile}


def _engine(home: Home) -> Engine | None:
    environment = current_environment(home.engines, lockfile.Engine.VLLM_MLX)
    return None if environment is None else Engine("vllm-mlx", environment.version)
