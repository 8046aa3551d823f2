"""`mlx-stack status`."""

from typing import TYPE_CHECKING

import click

from mlx_stack import exit_codes
from mlx_stack.cli._context import Context, json_option, open_context, quiet_option
from mlx_stack.errors import NoStackError

if TYPE_CHECKING:
    from rich.table import Table

    from mlx_stack.operations.status import ServiceRow, StatusReport

_SIGNS = {
    "healthy": ("●", "green"),
    "degraded": ("◐", "yellow"),
    "down": ("✗", "red"),
    "crashed": ("✗", "red"),
    "stopped": ("○", "dim"),
}


@click.command("status")
@json_option
@quiet_option
def command(*, json: bool, quiet: bool) -> int:
    """Show the hardware and the state of every service.

    Exits with 0 when every tier and the gateway is healthy, 3 when one is not, and 4 when no stack
    is defined. Nothing is changed.
    """
    context = open_context(json=json, quiet=quiet)
    try:
        from mlx_stack.operations.status import read_status

        report = read_status(context.home)
    except NoStackError as error:
        return _report_no_stack(context, error)
    if json:
        context.output.document(report.to_document())
    else:
        _render(context, report)
    return exit_codes.DONE if report.is_healthy else exit_codes.UNHEALTHY


def _report_no_stack(context: Context, error: NoStackError) -> int:
    if context.output.json:
        from mlx_stack.operations.hardware import known_hardware

        problem = {"type": error.type, "message": error.message, "hint": error.hint}
        hardware = known_hardware(context.home).to_json()
        context.output.document(
            {"hardware": hardware, "gateway_url": None, "services": [], "error": problem}
        )
    else:
        context.output.text(error.message)
        context.output.say(error.hint or "")
    return exit_codes.NO_STACK


def _render(context: Context, report: "StatusReport") -> None:
    from mlx_stack.cli._format import describe_hardware

    output = context.output
    output.answer(describe_hardware(report.hardware))
    output.answer(f"Gateway   {report.gateway_url}\n")
    output.answer(service_table(report.services))
    for row in report.services:
        if row.last_error and row.state != "healthy":
            output.answer(f"\n{row.name}: {row.last_error}")
    if report.changed:
        names = ", ".join(report.changed)
        output.answer(f"\nThe stack file has changed for {names}: `mlx-stack up` applies it.")


def service_table(rows: "tuple[ServiceRow, ...]") -> "Table":
    """The services as a table for people."""
    from rich.table import Table
    from rich.text import Text

    from mlx_stack.cli._format import format_bytes, format_duration

    """The services as a table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("Service", "State", "Model"):
        table.add_column(heading)
    for heading in ("Port", "PID", "Uptime", "Memory", "Answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        sign, colour = _SIGNS[row.state]
        table.add_row(
            row.name,
            Text(f"{sign} {row.state}", style=colour),
            row.model or "",
            str(row.port or ""),
            str(row.pid or ""),
            format_duration(row.uptime_s) if row.uptime_s is not None else "",
            format_bytes(row.memory_bytes) if row.memory_bytes is not None else "",
            f"{row.response_ms:.0f} ms" if row.response_ms is not None else "",
        )
    return table
