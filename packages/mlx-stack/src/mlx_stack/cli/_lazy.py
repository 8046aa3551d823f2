"""A click group that imports a command only when it is called."""

import importlib
from typing import override

import click

from mlx_stack.cli._commands import COMMANDS

_SUGGESTIONS = 3


class LazyGroup(click.Group):
    """The root command; its sub-commands come from the table in `_commands`."""

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
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(f"There is no command {name!r}.{self._nearest(name)}")
        return super().resolve_command(ctx, args)

    def _nearest(self, name: str) -> str:
        """A sentence that names the commands spelled nearest to `name`, or nothing."""
        import difflib

        names = [entry.name for entry in COMMANDS]
        near = difflib.get_close_matches(name, names, n=_SUGGESTIONS, cutoff=0.55)
        near = near or [known for known in names if known.startswith(name[:2])][:_SUGGESTIONS]
        return f" Did you mean {' or '.join(near)}?" if near else ""

    @override
    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from mlx_stack.cli._help import render_root_help

        formatter.write(render_root_help(ctx))
