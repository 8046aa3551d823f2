"""The help of `mlx-stack` itself: commands in groups."""

import click

from mlx_stack.cli.frame.commands import COMMANDS, GROUPS
from mlx_stack.cli.frame.terminal import paint, two_columns, wrap

_INTRODUCTION = (
    (
        "An always-on local LLM server for Apple Silicon: several models, one OpenAI-compatible"
        " endpoint."
    ),
    "New here? `mlx-stack demo` shows it working, `mlx-stack setup` sets it up.",
    "`mlx-stack install` makes it survive crashes and reboots.",
)
_CLOSING = "`mlx-stack` alone shows where you are; `mlx-stack COMMAND --help` explains a command."


def render_root_help(ctx: click.Context) -> str:
    """The help text, as wide as the terminal, coloured where stdout is one."""
    lines = [f"{paint('Usage:', 'bold')} mlx-stack [OPTIONS] COMMAND [ARGS]...", ""]
    for paragraph in _INTRODUCTION:
        lines += wrap(paragraph)
    for group in GROUPS:
        lines += ["", paint(f"{group}:", "bold")]
        lines += two_columns(
            [(entry.name, entry.help) for entry in COMMANDS if entry.group == group]
        )
    lines += ["", paint("Options:", "bold")]
    records = [parameter.get_help_record(ctx) for parameter in ctx.command.get_params(ctx)]
    lines += two_columns([record for record in records if record is not None])
    lines += ["", *wrap(_CLOSING)]
    return "\n".join(lines) + "\n"
