"""The program `mlx-bench`."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from mlx_bench._arguments import (
    agent_parameters_from,
    parameters_from,
    parse_arguments,
    refuse_mixture,
    role_parameters_from,
)
from mlx_bench.errors import BenchError, EndpointError, ParametersError, ReportError

if TYPE_CHECKING:
    import argparse

    from mlx_bench.agents.report import AgentsReport
    from mlx_bench.agents.workload import AgentParameters
    from mlx_bench.calibration.check import CalibrationResult
    from mlx_bench.client import ModelEndpoint, StreamingClient
    from mlx_bench.report import Report
    from mlx_bench.roles.report import RoleReport
    from mlx_bench.roles.workload import RoleParameters
    from mlx_bench.workload import Parameters

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED, EXIT_ENDED = 0, 1, 2, 130, 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code."""
    signal.signal(signal.SIGTERM, _end)
    try:
        code = _answer(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has what it wanted, as `head` does
        _discard_output()
        return EXIT_FAILED
    except OSError as error:  # a file would be named in its error: this is the output
        _discard_output()
        print(f"mlx-bench: the answer can't be written: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED
    return code


def _answer(arguments: Sequence[str]) -> int:
    """Run one command, or say why not."""
    as_json = "--json" in arguments
    try:
        options = parse_arguments(arguments)
        commands = {
            "run": _run,
            "compare": _compare,
            "report": _report,
            "calibrate": _calibrate,
            "conformance": _conformance,
        }
        return commands[options.command](options)
    except ParametersError as error:
        return _fail("usage", error.message, error.hint, EXIT_USAGE, as_json=as_json)
    except BenchError as error:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower()
        return _fail(kind, error.message, error.hint, EXIT_FAILED, as_json=as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", "Interrupted.", "", EXIT_INTERRUPTED, as_json=as_json)
    except _TerminatedError:
        return _fail("terminated", "Terminated.", "", EXIT_ENDED, as_json=as_json)


class _TerminatedError(BaseException):
    """SIGTERM came; like KeyboardInterrupt, nothing that catches errors should catch it."""


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _discard_output() -> None:
    """Keep Python from complaining once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(kind: str, message: str, hint: str, code: int, *, as_json: bool) -> int:
    _hush()
    if as_json:
        error = {"type": kind, "message": message, "hint": hint}
        print(json.dumps({"schema_version": 1, "error": error}, indent=2))
    else:
        print(f"mlx-bench: {message}", file=sys.stderr)
        if hint:
            print(hint, file=sys.stderr)
    return code


def _say(line: str) -> None:
    """Talk goes to the standard error, and only to a terminal."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line} …", end="", file=sys.stderr, flush=True)


def _hush() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _run(options: "argparse.Namespace") -> int:
    from mlx_bench.client import ModelEndpoint, StreamingClient, parse_base_url

    role = role_parameters_from(options)
    agents = agent_parameters_from(options) if options.agents is not None else None
    parameters = parameters_from(options)
    if options.check and agents is not None:
        raise ParametersError("--check and --agents can't be combined: run one after the other")
    if role is None:
        refuse_mixture(options)
    if options.check and (options.form not in (None, ".json") or options.html or options.output):
        raise ParametersError("--check goes with --json and --save, not with the other outputs")
    base_url, api_key = parse_base_url(options.url), _api_key(options.api_key_env)
    endpoint = ModelEndpoint(base_url, options.model or "", api_key)
    if not endpoint.model:
        with StreamingClient(endpoint, timeout_s=options.timeout) as lister:
            endpoint = replace(endpoint, model=_only_model(lister))
    if options.check:
        return _check(endpoint, options)
    with StreamingClient(endpoint, timeout_s=options.timeout) as client:
        report = _measure(client, role or agents or parameters, options)
    _hush()
    sys.stdout.write(_render(report, options.form))
    return EXIT_DONE


def _check(endpoint: "ModelEndpoint", options: "argparse.Namespace") -> int:
    """A model that is ready is 0, another 1."""
    from mlx_bench.agent_check.check import run_check, server_of
    from mlx_bench.agent_check.report import CheckConditions
    from mlx_bench.agent_check.saved import latest_check, save_check
    from mlx_bench.client import StreamingClient
    from mlx_bench.engine import identify_engine

    with StreamingClient(endpoint, timeout_s=options.timeout) as client:
        engine = identify_engine(client, "")
        context_tokens = options.context_tokens or client.listed_context_tokens()
    server = server_of(endpoint, timeout_s=options.timeout)
    folder = Path("benchmarks") / "checks"
    try:
        report = run_check(
            server,
            target=options.url,
            conditions=CheckConditions(engine=engine),
            context_tokens=context_tokens,
            before=latest_check(folder, endpoint.model),
            on_progress=_say,
        )
    finally:
        server.close()
    _hush()
    if options.save:
        path = folder / _saved_name(endpoint.model, "").name
        save_check(report, path)
        print(f"Saved {path}", file=sys.stderr)
    text = json.dumps(report.to_document(), indent=2) if options.form else report.render().rstrip()
    print(text)
    return EXIT_DONE if report.is_ready else EXIT_FAILED


def _measure(
    client: "StreamingClient",
    parameters: "Parameters | AgentParameters | RoleParameters",
    options: "argparse.Namespace",
) -> "Report | AgentsReport | RoleReport":
    from mlx_bench.agents.runner import run_agents
    from mlx_bench.agents.workload import AgentParameters
    from mlx_bench.machine import describe_machine
    from mlx_bench.report_file import require_writable
    from mlx_bench.roles.known import workload_of
    from mlx_bench.roles.runner import run_role
    from mlx_bench.roles.workload import RoleParameters
    from mlx_bench.runner import Conditions, run_benchmark
    from mlx_bench.serving_process import find_serving_process
    from mlx_bench.tool_calling import check_tool_calling

    files, saved = _files(options), None
    if options.save:
        kind = f"-{options.role}" if isinstance(parameters, RoleParameters) else ""
        saved = _saved_name(client.endpoint.model, "-agents" if options.agents else kind)
        files[saved] = ".json"
    for path in files:
        require_writable(path)
    process = find_serving_process(client.endpoint.base_url)
    extra: dict[str, object] = {}
    if options.check_tools:
        extra["tool_calling"] = asdict(check_tool_calling(client))
    conditions = Conditions(
        target=options.url,
        machine=describe_machine(),
        memory_bytes=process.memory_bytes if process else None,
        memory_source=process.source if process else "",
        report_extra=extra,
    )

    def keep(report: "Report | AgentsReport | RoleReport") -> None:
        _write(report, files)

    report: Report | AgentsReport | RoleReport
    match parameters:
        case RoleParameters():
            role = workload_of(options.role)
            report = run_role(
                client, role, parameters, conditions, on_report=keep, on_progress=_say
            )
        case AgentParameters():
            report = run_agents(client, parameters, conditions, on_report=keep, on_progress=_say)
        case _:
            report = run_benchmark(client, parameters, conditions, on_report=keep, on_progress=_say)
    if saved is not None:
        _hush()
        print(f"Saved {saved}", file=sys.stderr)
    return report


def _api_key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise ParametersError(f"the environment variable {name} is not set")
    return key


def _only_model(client: "StreamingClient") -> str:
    names = [model.id for model in client.list_models()]
    if len(names) != 1:
        known = f"it has {', '.join(names)}" if names else "the server lists none"
        problem, hint = f"Which model? {known}.", "Name one with --model."
        raise EndpointError(problem, url=client.endpoint.base_url, hint=hint)
    return names[0]


def _saved_name(model: str, kind: str) -> Path:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.") or "model"
    return Path("benchmarks") / f"{name}{kind}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"


def _files(options: "argparse.Namespace") -> dict[Path, str]:
    """The form, as a suffix, of each file that is to be written."""
    files = {path: path.suffix for path in options.output}
    return {**files, options.html: ".html"} if options.html else files


def _render(report: "Report | AgentsReport | RoleReport", form: str | None) -> str:
    from mlx_bench.agents.export import render_agents_json, render_agents_table
    from mlx_bench.agents.report import AgentsReport
    from mlx_bench.export import render_csv, render_json, render_markdown, render_table
    from mlx_bench.html import render_html
    from mlx_bench.roles.export import render_role_json, render_role_table
    from mlx_bench.roles.report import RoleReport

    if isinstance(report, RoleReport):
        return (render_role_json if form == ".json" else render_role_table)(report)
    if isinstance(report, AgentsReport):
        return (render_agents_json if form == ".json" else render_agents_table)(report)
    renderers: dict[str | None, Callable[[Report], str]] = {
        ".html": render_html,
        ".json": render_json,
        ".md": render_markdown,
        ".csv": render_csv,
    }
    return renderers.get(form, render_table)(report)


def _write(report: "Report | AgentsReport | RoleReport", files: Mapping[Path, str]) -> None:
    from mlx_bench.report_file import write_atomically

    for path, form in files.items():
        try:
            write_atomically(path, _render(report, form))
        except OSError as error:
            why = f"can't be written: {error.strerror}"
            raise ReportError(why, source=str(path)) from error


def _report(options: "argparse.Namespace") -> int:
    from mlx_bench.report_file import load_saved

    report = load_saved(options.file)
    _write(report, _files(options))
    sys.stdout.write(_render(report, options.form))
    return EXIT_DONE


def _compare(options: "argparse.Namespace") -> int:
    from mlx_bench.compare import compare_reports, render_comparison
    from mlx_bench.report_file import load_report

    comparison = compare_reports(load_report(options.a), load_report(options.b))
    if options.json:
        print(json.dumps(comparison.to_document(), indent=2))
    else:
        sys.stdout.write(render_comparison(comparison))
    return EXIT_DONE


def _conformance(options: "argparse.Namespace") -> int:
    """Every case right is 0, any that is wrong or could not be tried 1."""
    from mlx_bench.client import parse_base_url
    from mlx_bench.conformance.server import Server
    from mlx_bench.conformance.table import GROUPS, cases_of, try_cases

    try:
        cases = cases_of(options.cases)
    except KeyError as error:
        known = f"the groups are {', '.join(GROUPS)}"
        raise ParametersError(f"there is no case {error.args[0]!r}; {known}") from error
    key = _api_key(options.api_key_env) or ""
    root = parse_base_url(options.url).removesuffix("/").removesuffix("/v1")
    server = Server(root, options.model, key, options.timeout)
    if not server.is_there():
        hint = "Is the model there, and is the key right (--api-key-env)?"
        raise EndpointError("A plain question was not answered.", url=root, hint=hint)
    try:
        table = try_cases(server, cases, lambda outcome: _say(outcome.case.kind))
    finally:
        server.close()
    _hush()
    text = json.dumps(table.to_document(), indent=2) if options.json else table.render().rstrip()
    print(text)
    return EXIT_DONE if table.right == len(table.outcomes) else EXIT_FAILED


def _calibrate(options: "argparse.Namespace") -> int:
    from mlx_bench.calibration.check import CASES, calibration_server, check_case

    results: list[CalibrationResult] = []
    if not options.json:
        print("Streams  TTFT due  Rate due  TTFT off  to server  Rate off  Client CPU")
    with calibration_server() as base_url:
        for case in CASES:
            results.append(check_case(base_url, case))
            if not options.json:
                print(_result_line(results[-1]), flush=True)
    passed = all(result.within_limits for result in results)
    if options.json:
        cases = [result.to_document() for result in results]
        print(json.dumps({"schema_version": 1, "within_limits": passed, "cases": cases}, indent=2))
    return EXIT_DONE if passed else EXIT_FAILED


def _result_line(result: "CalibrationResult") -> str:
    case = result.case
    schedule = case.schedule
    kind = f" burst {schedule.burst}" if schedule.burst > 1 else ""
    kind += f" grouped {schedule.grouped}" if schedule.grouped > 1 else ""
    kind += f" jitter {schedule.jitter:.0%}" if schedule.jitter else ""
    verdict = "" if result.within_limits else "  beyond the limit"
    return (
        f"{case.streams:7}  {schedule.ttft_ms:5.0f} ms  {schedule.tps:4.0f} t/s  "
        f"{result.ttft_error_s * 1000:+5.2f} ms  {result.ttft_error_to_server_s * 1000:+6.2f} ms"
        f"  {result.rate_error:+8.3%}  {result.client_cpu_share:10.1%}{kind}{verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
