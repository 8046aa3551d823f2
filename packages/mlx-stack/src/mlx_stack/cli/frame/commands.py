"""The commands: where each lives, its group and its line in the help, and how groups list them.

The root imports a command only when it is called; its help needs none of them.

(decision 0002)
"""

import difflib
import importlib
from typing import NamedTuple, override

import click
from click.shell_completion import CompletionItem

from mlx_stack.errors import UsageError

SETUP = "Setup & Configuration"
MODELS = "Model Management"
LIFECYCLE = "Stack Lifecycle"
DIAGNOSTICS = "Diagnostics"
CONNECT = "Try & connect"
GROUPS = (CONNECT, SETUP, MODELS, LIFECYCLE, DIAGNOSTICS)
"""The groups in the order of the help."""


class CommandEntry(NamedTuple):
    """One row: how the command is called, and what the help says of it.

    Attributes:
        module: Where in `mlx_stack.cli` it is, if not in a module of its name.
    """

    name: str
    group: str
    help: str
    module: str | None = None


COMMANDS: tuple[CommandEntry, ...] = (
    CommandEntry("demo", CONNECT, "Try the whole stack with a small bundled model."),
    CommandEntry("ask", CONNECT, "Ask a model a question, or chat with it."),
    CommandEntry("dashboard", CONNECT, "Open the page that shows the stack."),
    CommandEntry("connect", CONNECT, "Configure a client to use this endpoint."),
    CommandEntry("env", CONNECT, "Print environment variables for clients.", "connect"),
    CommandEntry("keys", CONNECT, "Create, list and revoke clients' keys."),
    CommandEntry("setup", SETUP, "Set up a stack step by step."),
    CommandEntry("init", SETUP, "Define a stack: the recommended tiers, on free ports."),
    CommandEntry("config", SETUP, "Show and change the configuration."),
    CommandEntry("profile", SETUP, "Detect the hardware and save what was found."),
    CommandEntry("recommend", MODELS, "Rank the catalog for a machine and propose the tiers."),
    CommandEntry("estimate", MODELS, "Estimate a model's memory and speed."),
    CommandEntry("pull", MODELS, "Download a model, or resume a download."),
    CommandEntry("models", MODELS, "List, search, show, check and remove models."),
    CommandEntry(
        "up", LIFECYCLE, "Start what isn't running, and wait until it is ready.", "lifecycle"
    ),
    CommandEntry("restart", LIFECYCLE, "Stop the services and start them again.", "lifecycle"),
    CommandEntry(
        "down", LIFECYCLE, "Stop the services: the gateway first, then the tiers.", "lifecycle"
    ),
    CommandEntry("status", LIFECYCLE, "Show the hardware and the state of every service."),
    CommandEntry("nodes", LIFECYCLE, "Show, add, check and remove other Macs."),
    CommandEntry("watch", LIFECYCLE, "Restart services that crash, hang or produce no output."),
    CommandEntry("bench", DIAGNOSTICS, "Measure a tier, a local model or any endpoint."),
    CommandEntry("doctor", SETUP, "Diagnose problems and suggest fixes."),
    CommandEntry("logs", DIAGNOSTICS, "List the services' logs, or show one of them."),
    CommandEntry("usage", DIAGNOSTICS, "Show requests, tokens, speed and availability."),
    CommandEntry("install", LIFECYCLE, "Start the stack at every login, or at every boot."),
    CommandEntry(
        "uninstall", LIFECYCLE, "Undo `install`, or with --all remove everything.", "install"
    ),
    CommandEntry("engines", LIFECYCLE, "Show, upgrade and roll back the engines."),
    CommandEntry("upgrade", SETUP, "Upgrade mlx-stack and its engines."),
    CommandEntry("completion", CONNECT, "Print the shell's completion script."),
)
OTHER_WORDS = {
    "chat": "ask",
    "delete": "models rm",
    "list": "models list",
    "ls": "models list",
    "ps": "status",
    "remove": "models rm",
    "rm": "models rm",
    "run": "ask",
    "search": "models search",
    "serve": "up",
    "show": "models show",
    "start": "up",
    "stop": "down",
    "update": "upgrade",
    "version": "--version",
    "engines update": "engines upgrade",
    "keys delete": "keys revoke",
    "keys remove": "keys revoke",
    "keys rm": "keys revoke",
    "models delete": "models rm",
    "models info": "models show",
    "models ls": "models list",
    "models pull": "pull",
    "models remove": "models rm",
}
"""What people type who know another program, and the command that does it here."""
_INTRODUCTION = (
    (
        "An always-on local LLM server for Apple Silicon: several models behind one endpoint that"
        " speaks OpenAI's, Anthropic's and Ollama's APIs."
    ),
    "New here? `mlx-stack demo` shows it working, `mlx-stack setup` sets it up.",
    "`mlx-stack install` makes it survive crashes and reboots.",
)
_EXAMPLES = ("mlx-stack setup", 'mlx-stack ask "Why is the sky blue?"')
_CLOSING = (
    "`mlx-stack` shows the stack and the next step; `mlx-stack COMMAND --help` explains a command."
)


class OrderedGroup(click.Group):
    """A group whose sub-commands are listed as they are defined."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            typed = f"{ctx.command_path} {error.command_name}".partition(" ")[2]
            message = f"There is no command `mlx-stack {typed}`."
            near = difflib.get_close_matches(error.command_name, self.list_commands(ctx))
            meant = [ctx.command_path + f" {name}" for name in near]
            if typed in OTHER_WORDS:
                meant = [f"mlx-stack {OTHER_WORDS[typed]}"]
            guess = f"Did you mean {' or '.join(f'`{each}`' for each in meant)}? " if meant else ""
            hint = f"{guess}`{ctx.command_path} --help` lists the commands."
            raise UsageError(message, hint=hint) from None


class LazyGroup(OrderedGroup):
    """The root command; its sub-commands come from the table in `commands`."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [entry.name for entry in COMMANDS]

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
        if entry is None:
            return None
        command = import_command(entry.name, entry.module)
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
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        for paragraph in _INTRODUCTION:
            formatter.write_text(paragraph)
        for group in GROUPS:
            rows = [(entry.name, entry.help) for entry in COMMANDS if entry.group == group]
            write_section(formatter, group, rows)
        records = [parameter.get_help_record(ctx) for parameter in self.get_params(ctx)]
        write_section(formatter, "Options", [record for record in records if record is not None])
        with formatter.section(click.style("Examples", bold=True)):
            for line in _EXAMPLES:
                formatter.write(f"  {line}\n")
        formatter.write_paragraph()
        formatter.write_text(_CLOSING)


def import_command(name: str, module: str | None = None) -> click.Command:
    """The command in `mlx_stack.cli.<name>`, or the one of that name in another `module` there."""
    found = importlib.import_module(f"mlx_stack.cli.{module or name}")
    command = getattr(found, name if module else "command")
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
