"""How services look: what became of each, and how they do."""

from collections.abc import Sequence

import mlx_procsup
from mlx_stack import services
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.format import format_bytes, format_duration, format_seconds

STATES = {
    "healthy": ("●", "green"),
    "degraded": ("◐", "yellow"),
    "down": ("✗", "red"),
    "crashed": ("✗", "red"),
    "stopped": ("○", "dim"),
}
"""The sign and the colour of each state."""
_UNDER_WAY = ("◌", "yellow")
_USUAL_COLUMNS = 80
_OUTCOMES = {
    "started": ("✓", "green", "ready"),
    "already-running": ("✓", "green", "already running"),
    "stopped": ("✓", "green", "stopped"),
    "not-running": ("-", "dim", "was not running"),
    "stale-removed": ("-", "dim", "had crashed; cleaned up"),
    "forced": ("!", "yellow", "had to be killed"),
    "skipped": ("!", "yellow", "skipped"),
    "failed": ("✗", "red", "failed"),
}


class StartingServices:
    """Shows services as they start: a moving line for each that isn't ready, then its outcome."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lines: dict[str, str] = {}

    def show(self, event: "services.service.ServiceEvent") -> None:
        """Show what happened to one service."""
        output = self._output
        match event:
            case mlx_procsup.Loading():
                self._lines[event.name] = f"{event.name:<10} {_how_far(event)}"
            case mlx_procsup.WaitsForMemory():
                self._lines[event.name] = f"{event.name:<10} waits until there is memory for it"
                if not output.is_live:
                    show_event(output, event)
            case services.service.Listens():
                self._lines[event.name] = f"{event.name:<10} listening, waits for the tiers"
            case _:
                self._lines.pop(event.name, None)
                show_event(output, event)
        if self._lines:
            output.spin("\n  ".join(self._lines.values()), is_timed=False)


def _how_far(event: "mlx_procsup.Loading") -> str:
    """`loading, 3.2 of about 5.4 GB, 12 s`; a gateway has nothing to load."""
    if not event.needs_bytes:
        return f"starting, {format_duration(event.seconds)}"
    whole = format_bytes(max(event.needs_bytes, event.memory_bytes))
    held = format_bytes(event.memory_bytes)
    return f"loading, {held} of about {whole}, {format_duration(event.seconds)}"


def show_event(output: Output, event: "services.service.ServiceEvent") -> None:
    """One line for a service, and below it why it failed."""
    if isinstance(event, mlx_procsup.WaitsForMemory):
        output.say(f"{event.name} waits for memory until the others are loaded.")
        return
    if isinstance(event, mlx_procsup.Loading | services.service.Listens):
        return
    outcome = event
    if output.quiet and outcome.error is None:
        return
    sign, colour, words = _OUTCOMES[outcome.outcome]
    if outcome.is_at_rest:
        sign, words = "○", "unloaded: its next request starts it"
    parts: list[Span] = [(f"{sign} ", colour), (f"{outcome.name:<10} ", "bold"), words]
    if outcome.outcome in ("started", "stopped", "forced"):
        parts.append(f" after {outcome.seconds:.1f} s")
    if outcome.pid is not None and outcome.outcome in ("started", "already-running"):
        parts.append((f"  port {outcome.port}, PID {outcome.pid}", "dim"))
    output.answer(*parts)
    for line in (outcome.error or "").splitlines():
        output.answer(f"    {line}", style="dim")


def show_service_table(
    output: Output,
    rows: Sequence["services.status.ServiceRow"],
    *,
    with_errors: bool = False,
    as_talk: bool = False,
) -> None:
    """The services as a table, one line each, or more where a model's name is long.

    A narrow terminal loses neither which service it is, nor how it is; one of the usual width
    no figure either.

    Args:
        with_errors: Whether there is room for a column of what is wrong.
        as_talk: Whether it goes to stderr.
    """
    has_room = output.width >= _USUAL_COLUMNS
    columns = [
        Column("Service", is_kept=True),
        Column("State", is_kept=True),
        Column("Model", folds=has_room or any(row.model_after_up for row in rows)),
        *(
            Column(name, right=True, is_kept=has_room)
            for name in ("Port", "PID", "Uptime", "Memory", "Answer")
        ),
        *([Column("Last error")] if with_errors else []),
    ]
    cells = [_cells(row, with_errors=with_errors) for row in rows]
    output.table(columns, cells, as_talk=as_talk)


def _then(now: str | int | None, after_up: str | int | None) -> str:
    """What is, and behind an arrow what it will be."""
    return f"{now or ''}" + (f" → {after_up}" if after_up is not None else "")


def _cells(row: "services.status.ServiceRow", *, with_errors: bool) -> list[Span]:
    sign, colour = _UNDER_WAY if row.is_under_way else STATES[row.state]
    return [
        row.name,
        (f"{sign} {row.shown_state}", colour),
        _then(row.model, row.model_after_up),
        _then(row.port, row.port_after_up),
        str(row.pid or ""),
        format_duration(row.uptime_s) if row.uptime_s is not None else "",
        format_bytes(row.memory_bytes) if row.memory_bytes is not None else "",
        format_seconds(row.response_ms / 1000) if row.response_ms is not None else "",
        *([row.last_error or ""] if with_errors else []),
    ]
