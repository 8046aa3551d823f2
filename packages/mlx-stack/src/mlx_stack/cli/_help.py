"""The help of `mlx-stack` itself: commands in groups, rendered by Rich."""

import sys

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlx_stack.cli._commands import COMMANDS, GROUPS

_NAME_COLUMN = 14
_WIDEST = 100


def render_root_help(ctx: click.Context) -> str:
    """The help text, as wide as the terminal, coloured where stdout is one."""
    console = Console(file=sys.stdout, highlight=False)
    width = min(console.width, _WIDEST)
    with console.capture() as capture:
        console.print(
            Text("Usage: ", style="bold").append("mlx-stack [OPTIONS] COMMAND [ARGS]...", "none")
        )
        console.print()
        console.print(
            "An always-on local LLM server for Apple Silicon: several models, one"
            " OpenAI-compatible endpoint.\n"
            "New here? `mlx-stack demo` shows it working, `mlx-stack setup` sets it up.",
            width=width,
        )
        for group in GROUPS:
            rows = [(entry.name, entry.help) for entry in COMMANDS if entry.group == group]
            _print_section(console, group, rows, width)
        _print_section(console, "Options", _options(ctx), width)
        console.print("\n`mlx-stack COMMAND --help` explains a command.", width=width)
    return capture.get()


def _options(ctx: click.Context) -> list[tuple[str, str]]:
    records = [parameter.get_help_record(ctx) for parameter in ctx.command.get_params(ctx)]
    return [record for record in records if record is not None]


def _print_section(console: Console, title: str, rows: list[tuple[str, str]], width: int) -> None:
    if not rows:
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=_NAME_COLUMN, style="cyan", no_wrap=True)
    table.add_column()
    for name, explanation in rows:
        table.add_row(name, Text(explanation))
    console.print()
    console.print(Text(title + ":", style="bold"))
    console.print(Padding(table, (0, 0, 0, 2)), width=width)
