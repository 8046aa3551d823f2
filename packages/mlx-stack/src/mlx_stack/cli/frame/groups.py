"""Groups of commands: the root, which imports a command only when it is called, and the others."""

import importlib
from typing import override

import click
from click.shell_completion import CompletionItem

from mlx_stack.cli.frame.commands import COMMANDS, GROUPS

_INTRODUCTION = (
    (
        "An always-on local LLM server for Apple Silicon: several models behind one endpoint that"
        " speaks OpenAI's API."
    ),
    "New here? `mlx-stack demo` shows it working, `mlx-stack setup` sets it up.",
    "`mlx-stack install` makes it survive crashes and reboots.",
)
_CLOSING = "`mlx-stack` alone shows where you are; `mlx-stack COMMAND --help` explains a command."


class OrderedGroup(click.Group):
    """A group whose sub-commands are listed as they are defined."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class LazyGroup(click.Group):
    """The root command; its sub-commands come from the table in `commands`."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        command = import_command(entry.name)
        command.short_help = entry.help
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            names = self.list_commands(ctx)
            raise click.NoSuchCommand(error.command_name, possibilities=names, ctx=ctx) from None

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
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        for paragraph in _INTRODUCTION:
            formatter.write_text(paragraph)
        for group in GROUPS:
            rows = [(entry.name, entry.help) for entry in COMMANDS if entry.group == group]
            write_section(formatter, group, rows)
        records = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        write_section(formatter, "Options", [record for record in records if record is not None])
        formatter.write_paragraph()
        formatter.write_text(_CLOSING)


def import_command(name: str) -> click.Command:
    """The command in `mlx_stack.cli.<name>`."""
    command = importlib.import_module(f"mlx_stack.cli.{name}").command
    assert isinstance(command, click.Command)
    return command


def write_section(
    formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]], *, width: int = 10
) -> None:
    """Write a title and below it names, at least `width` wide, with their explanations."""
    with formatter.section(click.style(title, bold=True)):
        formatter.write_dl(
            (click.style(f"{name:<{width}}", fg="cyan"), explanation) for name, explanation in rows
        )
