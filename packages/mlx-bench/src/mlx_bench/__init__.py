"""A calibrated benchmark for OpenAI-compatible endpoints: TTFT, prefill, decode."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlx_bench.agents.export import render_agents_table as render_agents_table
    from mlx_bench.agents.report import AgentsReport as AgentsReport
    from mlx_bench.agents.runner import run_agents as run_agents
    from mlx_bench.agents.workload import AgentParameters as AgentParameters
    from mlx_bench.cautions import Caution as Caution
    from mlx_bench.cautions import CautionCode as CautionCode
    from mlx_bench.client import ModelEndpoint as ModelEndpoint
    from mlx_bench.client import StreamingClient as StreamingClient
    from mlx_bench.client import parse_base_url as parse_base_url
    from mlx_bench.compare import Comparison as Comparison
    from mlx_bench.compare import compare_reports as compare_reports
    from mlx_bench.compare import render_comparison as render_comparison
    from mlx_bench.errors import BenchError as BenchError
    from mlx_bench.errors import EndpointError as EndpointError
    from mlx_bench.errors import ParametersError as ParametersError
    from mlx_bench.errors import ReportError as ReportError
    from mlx_bench.export import render_csv as render_csv
    from mlx_bench.export import render_json as render_json
    from mlx_bench.export import render_markdown as render_markdown
    from mlx_bench.export import render_table as render_table
    from mlx_bench.html import render_html as render_html
    from mlx_bench.machine import describe_machine as describe_machine
    from mlx_bench.metrics import MeasuredRun as MeasuredRun
    from mlx_bench.metrics import Point as Point
    from mlx_bench.report import EngineVersion as EngineVersion
    from mlx_bench.report import PointSummary as PointSummary
    from mlx_bench.report import Report as Report
    from mlx_bench.report_file import load_report as load_report
    from mlx_bench.report_file import load_saved as load_saved
    from mlx_bench.report_file import parse_report as parse_report
    from mlx_bench.report_file import save_report as save_report
    from mlx_bench.roles.export import render_role_table as render_role_table
    from mlx_bench.roles.known import workload_of as workload_of
    from mlx_bench.roles.report import RoleReport as RoleReport
    from mlx_bench.roles.runner import run_role as run_role
    from mlx_bench.roles.workload import RoleParameters as RoleParameters
    from mlx_bench.runner import Conditions as Conditions
    from mlx_bench.runner import run_benchmark as run_benchmark
    from mlx_bench.serving_process import ServingProcess as ServingProcess
    from mlx_bench.serving_process import find_serving_process as find_serving_process
    from mlx_bench.serving_process import serving_process_of as serving_process_of
    from mlx_bench.speed_check import ExpectedSpeed as ExpectedSpeed
    from mlx_bench.speed_check import SpeedCheck as SpeedCheck
    from mlx_bench.speed_check import SpeedVerdict as SpeedVerdict
    from mlx_bench.speed_check import check_speed as check_speed
    from mlx_bench.speed_check import worst_verdict as worst_verdict
    from mlx_bench.stats import MedianEstimate as MedianEstimate
    from mlx_bench.tool_calling import ToolCheck as ToolCheck
    from mlx_bench.tool_calling import check_tool_calling as check_tool_calling
    from mlx_bench.workload import Cache as Cache
    from mlx_bench.workload import Parameters as Parameters

__version__ = "0.1.0"

_NAMES_OF_MODULE = {
    "agents.export": ("render_agents_table",),
    "agents.report": ("AgentsReport",),
    "agents.runner": ("run_agents",),
    "agents.workload": ("AgentParameters",),
    "cautions": ("Caution", "CautionCode"),
    "client": ("ModelEndpoint", "StreamingClient", "parse_base_url"),
    "compare": ("Comparison", "compare_reports", "render_comparison"),
    "errors": ("BenchError", "EndpointError", "ParametersError", "ReportError"),
    "export": ("render_csv", "render_json", "render_markdown", "render_table"),
    "html": ("render_html",),
    "machine": ("describe_machine",),
    "metrics": ("MeasuredRun", "Point"),
    "report": ("EngineVersion", "PointSummary", "Report"),
    "report_file": ("load_report", "load_saved", "parse_report", "save_report"),
    "roles.export": ("render_role_table",),
    "roles.known": ("workload_of",),
    "roles.report": ("RoleReport",),
    "roles.runner": ("run_role",),
    "roles.workload": ("RoleParameters",),
    "runner": ("Conditions", "run_benchmark"),
    "serving_process": ("ServingProcess", "find_serving_process", "serving_process_of"),
    "speed_check": ("ExpectedSpeed", "SpeedCheck", "SpeedVerdict", "check_speed", "worst_verdict"),
    "stats": ("MedianEstimate",),
    "tool_calling": ("ToolCheck", "check_tool_calling"),
    "workload": ("Cache", "Parameters"),
}
_MODULE_OF = {name: module for module, names in _NAMES_OF_MODULE.items() for name in names}


def __getattr__(name: str) -> object:
    """A module is loaded when one of its names is first used."""
    if name == "__all__":
        return __dir__()
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return ["__version__", *_MODULE_OF]
