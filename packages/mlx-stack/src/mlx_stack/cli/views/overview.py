"""What `mlx-stack` alone shows: one screen, where you are and what to do next."""

from typing import TYPE_CHECKING

from mlx_stack import __version__
from mlx_stack.cli.frame.terminal import columns, paint, two_columns

if TYPE_CHECKING:
    from mlx_stack.overview import Overview

_HEADLINES = {
    "no-stack": "No stack is defined yet.",
    "stopped": "The stack is stopped.",
    "partly-running": "A part of the stack runs at {url}, the rest is stopped.",
    "running": "The stack runs at {url}.",
    "unwell": "Something is wrong with the stack at {url}.",
}
_SIGNS = {
    "healthy": ("●", "green"),
    "degraded": ("◐", "yellow"),
    "down": ("✗", "red"),
    "crashed": ("✗", "red"),
    "stopped": ("○", "dim"),
}


def render_overview(overview: "Overview") -> str:
    """The screen as text, coloured where stdout is a terminal."""
    headline = _HEADLINES[overview.situation].format(url=overview.gateway_url)
    lines = [paint(f"mlx-stack {__version__}", "bold"), "", headline]
    names = [len(row.name) for row in overview.services]
    for row in overview.services:
        sign, colour = _SIGNS[row.state]
        mark = paint(f"{sign} {row.state:<9}", colour)
        problem = f"  {row.last_error.splitlines()[0]}" if row.last_error else ""
        text = f"{row.name:<{max(names)}}  {row.model or ''}{problem}".rstrip()
        lines.append(f"  {mark} {text[: max(columns() - 14, 20)]}")
    lines += ["", paint("Next:", "bold")]
    lines += two_columns([(step.command, step.purpose) for step in overview.steps])
    lines += ["", "`mlx-stack --help` lists every command."]
    return "\n".join(lines)
