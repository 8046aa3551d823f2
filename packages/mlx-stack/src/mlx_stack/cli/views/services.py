"""How `up`, `down` and `restart` show what became of each service."""

from typing import TYPE_CHECKING

from mlx_stack.cli.frame.output import Output

if TYPE_CHECKING:
    from mlx_stack.services.outcomes import ServiceOutcome

_SIGNS = {
    "started": ("✓", "green"),
    "already-running": ("✓", "green"),
    "stopped": ("✓", "green"),
    "not-running": ("-", "dim"),
    "stale-removed": ("-", "dim"),
    "forced": ("!", "yellow"),
    "skipped": ("!", "yellow"),
    "failed": ("✗", "red"),
}
_WORDS = {
    "started": "ready",
    "already-running": "already running",
    "stopped": "stopped",
    "not-running": "was not running",
    "stale-removed": "had died; its files are removed",
    "forced": "had to be killed",
    "skipped": "skipped",
    "failed": "failed",
}


def show_outcome(output: Output, outcome: "ServiceOutcome") -> None:
    """One line for a service, and below it why it failed."""
    from rich.text import Text

    sign, colour = _SIGNS[outcome.outcome]
    line = Text()
    line.append(f"{sign} ", style=colour)
    line.append(f"{outcome.name:<10} ", style="bold")
    line.append(_WORDS[outcome.outcome])
    if outcome.outcome in ("started", "stopped", "forced"):
        line.append(f" after {outcome.seconds:.1f} s")
    if outcome.pid is not None and outcome.outcome in ("started", "already-running"):
        line.append(f"  port {outcome.port}, PID {outcome.pid}", style="dim")
    output.answer(line)
    if outcome.error:
        for error_line in outcome.error.splitlines():
            output.answer(Text(f"    {error_line}", style="dim", overflow="fold"))
