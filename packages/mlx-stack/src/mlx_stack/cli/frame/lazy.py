"""A click group that imports a command only when it is called."""

import importlib
from typing import override

import click
from click.shell_completion import CompletionItem

from mlx_stack.cli.frame.commands import COMMANDS
from mlx_stack.cli.frame.suggest import SuggestingGroup


class LazyGroup(SuggestingGroup):
    """The root command; its sub-commands come from the table in `commands`."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        command = importlib.import_module(entry.module).command
        assert isinstance(command, click.Command)
        command.short_help = entry.help
        return command

    @override
    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [
            CompletionItem(entry.name, help=entry.help)
            for entry in COMMANDS
            if entry.name.startswith(incomplete)
        ]

    @override
    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mlx_stack.cli.frame.help import render_root_help

        formatter.write(render_root_help(ctx))
