"""What `mlx-stack` alone shows: one screen, where you are and what to do next."""

import click

import mlx_stack
from mlx_stack.cli.frame.commands import write_section
from mlx_stack.cli.frame.output import write_line
from mlx_stack.cli.views.services import STATES
from mlx_stack.home import find_home

_HEADLINES = {
    "no-stack": "No stack is defined yet.",
    "stopped": "The stack is stopped.",
    "partly-running": "Part of the stack runs at {url}; the rest is stopped.",
    "running": "The stack runs at {url}.",
    "unwell": "The stack at {url} has problems.",
}
_STATE_COLUMNS = 9


@click.command("overview")
def command() -> None:
    """Show where you are and what to do next."""
    write_line(render_overview(mlx_stack.overview.read_overview(find_home())))


def render_overview(overview: "mlx_stack.overview.Overview") -> str:
    """The screen as text, with colours."""
    formatter = click.HelpFormatter(max_width=100)
    formatter.write(click.style(f"mlx-stack {mlx_stack.__version__}\n\n", bold=True))
    formatter.write(f"{_HEADLINES[overview.situation].format(url=overview.gateway_url)}\n")
    names = max((len(row.name) for row in overview.services), default=0)
    models = max((len(row.model or "") for row in overview.services), default=0)
    for row in overview.services:
        sign, colour = STATES[row.state]
        text = f"{sign} {row.shown_state:<{_STATE_COLUMNS}}"
        mark = click.style(text, dim=True) if colour == "dim" else click.style(text, colour)
        problem = (row.last_error or "\n").splitlines()[0].removeprefix("crashed; ")
        text = f"{row.name:<{names}}  {row.model or '':<{models}}  {problem}".rstrip()
        room = formatter.width - _STATE_COLUMNS - 5
        formatter.write(f"  {mark} {text if len(text) <= room else f'{text[: room - 1]}…'}\n")
    write_section(formatter, "Next", [(each.command, each.purpose) for each in overview.steps])
    formatter.write("\n`mlx-stack --help` lists every command.")
    return formatter.getvalue()
