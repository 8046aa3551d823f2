"""A calibrated benchmark for OpenAI-compatible endpoints: TTFT, prefill, decode."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_bench.cautions import Caution, CautionCode, WaveTiming
    from mlx_bench.client import Endpoint, Exchange, StreamingClient
    from mlx_bench.compare import Comparison, compare_reports, comparison_as_json, render_comparison
    from mlx_bench.completion import Completion, CountedBy, Usage, understand_stream
    from mlx_bench.energy import power_meter
    from mlx_bench.errors import BenchError, EndpointError, ParametersError, ReportError
    from mlx_bench.expectation import Expectation, Judgement, Verdict, judge, worst_verdict
    from mlx_bench.export import render_csv, render_markdown, render_table
    from mlx_bench.html import render_html
    from mlx_bench.machine import describe_machine
    from mlx_bench.metrics import Phase, Point, Run, measure_run
    from mlx_bench.report import Engine, Memory, PointSummary, Report
    from mlx_bench.report_json import load_report, parse_report, report_as_json, save_report
    from mlx_bench.request import ChatRequest
    from mlx_bench.runner import Conditions, run_benchmark
    from mlx_bench.serving_process import ServingProcess, find_serving_process, serving_process_of
    from mlx_bench.stats import Estimate
    from mlx_bench.tool_calling import ToolCheck, check_tool_calling
    from mlx_bench.workload import Cache, Exactness, Parameters, PromptMaker, calibrate_prompts

__version__ = "0.1.0"

_MODULE_OF = {
    "BenchError": "errors",
    "Cache": "workload",
    "Caution": "cautions",
    "CautionCode": "cautions",
    "ChatRequest": "request",
    "Comparison": "compare",
    "Completion": "completion",
    "Conditions": "runner",
    "CountedBy": "completion",
    "Endpoint": "client",
    "EndpointError": "errors",
    "Engine": "report",
    "Estimate": "stats",
    "Exactness": "workload",
    "Exchange": "client",
    "Expectation": "expectation",
    "Judgement": "expectation",
    "Memory": "report",
    "Parameters": "workload",
    "ParametersError": "errors",
    "Phase": "metrics",
    "Point": "metrics",
    "PointSummary": "report",
    "PromptMaker": "workload",
    "Report": "report",
    "ReportError": "errors",
    "Run": "metrics",
    "ServingProcess": "serving_process",
    "StreamingClient": "client",
    "ToolCheck": "tool_calling",
    "Usage": "completion",
    "Verdict": "expectation",
    "WaveTiming": "cautions",
    "calibrate_prompts": "workload",
    "check_tool_calling": "tool_calling",
    "compare_reports": "compare",
    "comparison_as_json": "compare",
    "describe_machine": "machine",
    "find_serving_process": "serving_process",
    "judge": "expectation",
    "load_report": "report_json",
    "measure_run": "metrics",
    "parse_report": "report_json",
    "power_meter": "energy",
    "render_comparison": "compare",
    "render_csv": "export",
    "render_html": "html",
    "render_markdown": "export",
    "render_table": "export",
    "report_as_json": "report_json",
    "run_benchmark": "runner",
    "save_report": "report_json",
    "serving_process_of": "serving_process",
    "understand_stream": "completion",
    "worst_verdict": "expectation",
}

__all__ = [
    "BenchError",
    "Cache",
    "Caution",
    "CautionCode",
    "ChatRequest",
    "Comparison",
    "Completion",
    "Conditions",
    "CountedBy",
    "Endpoint",
    "EndpointError",
    "Engine",
    "Estimate",
    "Exactness",
    "Exchange",
    "Expectation",
    "Judgement",
    "Memory",
    "Parameters",
    "ParametersError",
    "Phase",
    "Point",
    "PointSummary",
    "PromptMaker",
    "Report",
    "ReportError",
    "Run",
    "ServingProcess",
    "StreamingClient",
    "ToolCheck",
    "Usage",
    "Verdict",
    "WaveTiming",
    "__version__",
    "calibrate_prompts",
    "check_tool_calling",
    "compare_reports",
    "comparison_as_json",
    "describe_machine",
    "find_serving_process",
    "judge",
    "load_report",
    "measure_run",
    "parse_report",
    "power_meter",
    "render_comparison",
    "render_csv",
    "render_html",
    "render_markdown",
    "render_table",
    "report_as_json",
    "run_benchmark",
    "save_report",
    "serving_process_of",
    "understand_stream",
    "worst_verdict",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"mlx_bench.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
