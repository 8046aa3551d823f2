"""How a benchmark looks: the table, then what to think of it."""

import mlx_bench
from mlx_stack import bench
from mlx_stack.cli.frame.output import Output

_COLOURS = {"PASS": "green", "WARN": "yellow", "FAIL": "red"}


def show_benchmark(output: Output, result: "bench.measure.BenchResult") -> None:
    """The table, then the verdicts, then the tool call."""
    for line in mlx_bench.render_table(result.report).splitlines():
        output.text(line)
    if result.speeds or result.tools is not None:
        output.text("")
    for check in result.speeds:
        _show_verdict(output, check.verdict.value, bench.verdict.in_words(check))
    if result.tools is not None:
        verdict = "PASS" if result.tools.ok else "FAIL"
        _show_verdict(output, verdict, f"Tool calling: {result.tools.detail}")


def _show_verdict(output: Output, verdict: str, text: str) -> None:
    output.answer((f"{verdict:<5}", _COLOURS[verdict]), text)
