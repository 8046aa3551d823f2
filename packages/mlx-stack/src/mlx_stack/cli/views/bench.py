"""How `bench` shows what it does and what it found."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_bench import SpeedCheck, SpeedVerdict, render_html, render_table
from mlx_bench.export import column_of, figure
from mlx_bench.report_file import require_writable
from mlx_bench.runner import OnReport
from mlx_stack import atomic_file

if TYPE_CHECKING:
    from mlx_stack.bench.measure import BenchResult
    from mlx_stack.cli.frame.output import Output

_COLOURS = {SpeedVerdict.PASS: "green", SpeedVerdict.WARN: "yellow", SpeedVerdict.FAIL: "red"}
_BASES = {"reference": "published for such a machine", "estimate": "estimated"}


@contextmanager
def open_progress(output: "Output") -> Generator[Callable[[str], None]]:
    """What takes lines about the progress: a spinner on a terminal, else nothing."""
    if not output.is_live:
        yield lambda _: None
        return
    from rich.markup import escape

    with output.talk.status("Measuring") as spinner:
        yield lambda text: spinner.update(escape(text))


def show_result(output: "Output", result: "BenchResult") -> None:
    """The table, then the verdicts, then the tool call."""
    for line in render_table(result.report).splitlines():
        output.text(line)
    if result.speeds or result.tools is not None:
        output.text("")
    for check in result.speeds:
        _show_check(output, check)
    if result.tools is not None:
        verdict = SpeedVerdict.PASS if result.tools.ok else SpeedVerdict.FAIL
        _show_verdict(output, verdict, f"Tool calling: {result.tools.detail}")


def _show_check(output: "Output", check: SpeedCheck) -> None:
    expected = check.expected
    title = column_of(expected.metric).title
    basis = _BASES.get(expected.basis, expected.basis)
    _show_verdict(
        output,
        check.verdict,
        f"{title} {figure(check.measured)} tok/s; expected {figure(expected.low)} to "
        f"{figure(expected.high)} ({basis})",
    )


def _show_verdict(output: "Output", verdict: SpeedVerdict, text: str) -> None:
    from rich.text import Text

    output.answer(Text.assemble((f"{verdict.value:<5}", _COLOURS[verdict]), text))


def open_page(path: Path | None) -> OnReport:
    """What writes a report as one HTML page after every iteration; nothing without a path.

    Raises:
        ReportError: Nothing can be written there.
    """
    if path is None:
        return lambda _: None
    require_writable(path)
    return lambda report: atomic_file.write_text(path, render_html(report))
