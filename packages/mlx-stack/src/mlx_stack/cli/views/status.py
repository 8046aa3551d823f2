"""How the state of the services looks to a person."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from mlx_stack.services.status import ServiceRow, StatusReport

_WIDE = 120
_SIGNS = {
    "healthy": ("●", "green"),
    "degraded": ("◐", "yellow"),
    "down": ("✗", "red"),
    "crashed": ("✗", "red"),
    "stopped": ("○", "dim"),
}
_AWAKE = {
    ("never", False): "the machine sleeps as its settings say",
    ("never", True): "kept awake until the watchdog sees that keep-awake is never",
    ("serving", False): "not kept awake: no requests are being served",
    ("serving", True): "kept awake, since requests are being served",
    ("always", False): "not kept awake: no watchdog holds a power assertion",
    ("always", True): "kept awake always",
}
"""By policy and by whether a power assertion is held."""


def render(report: "StatusReport", width: int) -> "list[RenderableType]":
    """The report for people, in parts from top to bottom."""
    from rich.text import Text

    from mlx_stack.cli.views.format import describe_hardware

    has_room = width >= _WIDE and any(row.last_error for row in report.services)
    parts: list[RenderableType] = [
        Text(describe_hardware(report.hardware)),
        Text(f"Gateway   {report.gateway_url}{_awake_line(report)}\n"),
        service_table(report.services, with_errors=has_room),
    ]
    for row in report.services:
        if row.last_error and not has_room:
            parts.append(Text(f"\n{row.name}: {row.last_error}"))
        if row.flapping:
            parts.append(
                Text(
                    f"\n{row.name} is flapping: the watchdog gave it up after {row.restarts} "
                    f"restarts. Look at `mlx-stack logs {row.name}`; `mlx-stack up` tries again.",
                    style="yellow",
                )
            )
    if report.changed:
        names = ", ".join(report.changed)
        parts.append(Text(f"\nThe stack file has changed for {names}: `mlx-stack up` applies it."))
    if report.decisions:
        parts.append(Text("\nThe watchdog, lately:", style="bold"))
        parts += [Text(line, style="dim", overflow="fold") for line in report.decisions]
    return parts


def _awake_line(report: "StatusReport") -> str:
    awake = report.keep_awake
    return f"\nSleep     {_AWAKE[awake.policy, awake.held]}" if awake.supported else ""


def service_table(rows: "tuple[ServiceRow, ...]", *, with_errors: bool = False) -> "Table":
    """The services as a table for people, one line each.

    Args:
        rows: The services.
        with_errors: Whether there is room for a column of what is wrong.
    """
    from rich.table import Table
    from rich.text import Text

    from mlx_stack.cli.views.format import format_bytes, format_duration

    table = Table(box=None, pad_edge=False, header_style="bold")
    # what a narrow terminal must not lose: which service, and how it is
    names = max((len(row.name) for row in rows), default=0)
    states = max((len(row.state) + 2 for row in rows), default=0)
    table.add_column("Service", no_wrap=True, min_width=names)
    table.add_column("State", no_wrap=True, min_width=states)
    table.add_column("Model", overflow="ellipsis")
    for heading in ("Port", "PID", "Uptime", "Memory", "Answer"):
        table.add_column(heading, justify="right", no_wrap=True)
    if with_errors:
        table.add_column("Last error", no_wrap=True, overflow="ellipsis")
    for row in rows:
        sign, colour = _SIGNS[row.state]
        cells = (
            row.name,
            Text(f"{sign} {row.state}", style=colour),
            row.model or "",
            str(row.port or ""),
            str(row.pid or ""),
            format_duration(row.uptime_s) if row.uptime_s is not None else "",
            format_bytes(row.memory_bytes) if row.memory_bytes is not None else "",
            f"{row.response_ms:.0f} ms" if row.response_ms is not None else "",
        )
        table.add_row(*cells, *([row.last_error or ""] if with_errors else []))
    return table
