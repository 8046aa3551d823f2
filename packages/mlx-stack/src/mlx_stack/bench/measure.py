"""Measure a tier, a local model or any endpoint; keep the result for `recommend`."""

import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mlx_bench import (
    AgentParameters,
    AgentsReport,
    Conditions,
    Parameters,
    Report,
    RoleParameters,
    RoleReport,
    SpeedCheck,
    StreamingClient,
    ToolCheck,
    check_tool_calling,
    describe_machine,
    render_html,
    run_agents,
    run_benchmark,
    run_role,
    save_report,
    workload_of,
)
from mlx_bench.report_file import require_writable
from mlx_bench.runner import OnProgress
from mlx_catalog import ModelRole
from mlx_hwprobe import HardwareProfile, HwprobeError
from mlx_stack import atomic_file
from mlx_stack.bench.target import BenchTarget, open_target
from mlx_stack.bench.verdict import check_speeds, verdict_document
from mlx_stack.hardware import known_hardware
from mlx_stack.home import Home
from mlx_stack.models.disk.manifest import weights_digest
from mlx_stack.open_stack import OpenStack
from mlx_stack.services.role_speeds import role_results


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """A finished benchmark.

    Attributes:
        speeds: Each speed against what was expected; empty where nothing was.
        tools: The tool-calling check, or None where the model doesn't claim to call tools.
    """

    report: Report
    speeds: tuple[SpeedCheck, ...]
    tools: ToolCheck | None
    saved: Path | None

    def to_document(self) -> dict[str, object]:
        """The JSON answer."""
        return {**self.report.to_document(), "saved": str(self.saved) if self.saved else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsResult:
    """A finished benchmark of agents."""

    report: AgentsReport
    saved: Path | None

    def to_document(self) -> dict[str, object]:
        """The JSON answer."""
        return {**self.report.to_document(), "saved": str(self.saved) if self.saved else None}


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleResult:
    """A finished benchmark of a model that was asked for something else than a chat."""

    report: RoleReport
    saved: Path | None

    def to_document(self) -> dict[str, object]:
        """The JSON answer."""
        return {**self.report.to_document(), "saved": str(self.saved) if self.saved else None}


def bench_role(
    opened: OpenStack,
    name: str,
    role: ModelRole,
    *,
    items: tuple[int, ...] | None = None,
    sizes: tuple[int, ...] | None = None,
    iterations: int = 3,
    concurrency: tuple[int, ...] = (1,),
    precision: float | None = None,
    model: str | None = None,
    api_key: str | None = None,
    is_saved: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> RoleResult:
    """Measure how fast what `name` means does the work of a role.

    Args:
        items: The numbers of items in a request; None for those that are usual for the role.
        sizes: How large they are; None for those usual sizes that the model's context takes.
        is_saved: Keep the result, from the first iteration on.

    Raises:
        UsageError: The name means nothing, or a model for something else.
        StackError: The target can't be served or doesn't answer.
        ParametersError: The role can't be measured, or not with so many items or such sizes.
        EndpointError: No request succeeded.
    """
    workload = workload_of(role)
    workload.require(items or (), sizes or ())
    parameters = RoleParameters(
        items=items or workload.items,
        sizes=sizes or workload.sizes,
        iterations=iterations,
        concurrency=concurrency,
        precision=precision,
    )
    target_context = open_target(
        opened,
        name,
        model=model,
        api_key=api_key,
        concurrency=max(concurrency),
        on_progress=on_progress,
        role=role,
    )
    with target_context as target, StreamingClient(target.endpoint) as client:
        longest = target.context_tokens
        if sizes is None:
            is_cut = workload.probe is not None and longest is not None
            fitting = [size for size in workload.sizes if not is_cut or size <= (longest or 0)]
            fitting = fitting or list(workload.sizes[:1])
            parameters = msgspec.structs.replace(parameters, sizes=tuple(fitting))
        saved = None
        if is_saved:
            saved = role_results(opened.home) / _saved_path(opened.home, target, role).name
            require_writable(saved)

        def keep(report: RoleReport) -> None:
            if saved is not None and any(run.error is None for run in report.runs):
                save_report(report, saved)

        conditions = _conditions(name, target, _hardware(opened.home))
        report = run_role(
            client, workload, parameters, conditions, on_report=keep, on_progress=on_progress
        )
    return RoleResult(report=report, saved=saved)


def bench_agents(
    opened: OpenStack,
    name: str,
    parameters: AgentParameters,
    *,
    model: str | None = None,
    api_key: str | None = None,
    is_saved: bool = False,
    on_progress: OnProgress = lambda _: None,
) -> AgentsResult:
    """Let agents work on what `name` means.

    Args:
        is_saved: Keep the result, from the first turn on.

    Raises:
        UsageError: The name means nothing.
        StackError: The target can't be served or doesn't answer.
        ParametersError: The conversations don't fit the model's context.
        EndpointError: No turn succeeded.
    """
    target_context = open_target(
        opened,
        name,
        model=model,
        api_key=api_key,
        concurrency=parameters.agents,
        on_progress=on_progress,
    )
    with target_context as target, StreamingClient(target.endpoint) as client:
        saved = _saved_path(opened.home, target, "agents") if is_saved else None

        def keep(report: AgentsReport) -> None:
            if saved is not None:
                save_report(report, saved)

        conditions = _conditions(name, target, _hardware(opened.home))
        report = run_agents(client, parameters, conditions, on_report=keep, on_progress=on_progress)
    return AgentsResult(report=report, saved=saved)


def bench(
    opened: OpenStack,
    name: str,
    parameters: Parameters,
    *,
    model: str | None = None,
    api_key: str | None = None,
    is_saved: bool = False,
    html: Path | None = None,
    on_progress: OnProgress = lambda _: None,
) -> BenchResult:
    """Measure what `name` means.

    Args:
        is_saved: Keep the result, from the first iteration on.
        html: Where the report is to be written as a page, after every iteration.

    Raises:
        UsageError: The name means nothing.
        StackError: The target can't be served or doesn't answer.
        EndpointError: No run succeeded.
        ReportError: The page can't be written.
    """
    if html is not None:
        require_writable(html)
    target_context = open_target(
        opened,
        name,
        model=model,
        api_key=api_key,
        concurrency=max(parameters.concurrency),
        on_progress=on_progress,
    )
    with target_context as target, StreamingClient(target.endpoint) as client:
        saved = _saved_path(opened.home, target) if is_saved else None
        hardware = _hardware(opened.home)
        conditions = _conditions(name, target, hardware)

        def keep(report: Report) -> None:
            _save(report, saved)
            if html is not None:
                atomic_file.write_text(html, render_html(report))

        report = run_benchmark(
            client, parameters, conditions, on_report=keep, on_progress=on_progress
        )
        tools = None
        if target.entry is not None and target.entry.capabilities.tool_calling:
            on_progress("Trying a tool call")
            tools = check_tool_calling(client)
    speeds = check_speeds(report, target, hardware) if hardware is not None else ()
    report = report.with_extra(
        verdict=verdict_document(speeds),
        tool_calling=asdict(tools) if tools is not None else None,
    )
    keep(report)
    return BenchResult(report=report, speeds=speeds, tools=tools, saved=saved)


def _conditions(name: str, target: BenchTarget, hardware: HardwareProfile | None) -> Conditions:
    folder = target.folder
    return Conditions(
        target=name if target.tier is None else f"tier {name}",
        machine=_machine(hardware),
        engine=target.engine,
        memory_bytes=target.process.memory_bytes if target.process else None,
        memory_source=target.process.source if target.process else "",
        report_extra={
            "quant": target.quant,
            "source": target.source,
            "tier": target.tier,
            "model_hash": weights_digest(folder) if folder is not None else None,
        },
        context_tokens=target.context_tokens,
        concurrency=target.concurrency,
    )


def _save(report: Report, path: Path | None) -> None:
    """Write what was measured so far, once there is something that an estimate can use."""
    if path is not None and any(run.error is None for run in report.runs):
        save_report(report, path)


def _saved_path(home: Home, target: BenchTarget, kind: str = "") -> Path:
    home.create()
    parts = (target.endpoint.model, target.quant, kind, f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
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
    profile = {
        key: value for key, value in hardware.to_document().items() if key != "schema_version"
    }
    return {**described, **profile}
