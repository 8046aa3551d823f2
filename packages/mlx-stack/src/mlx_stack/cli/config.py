"""`mlx-stack config`."""

import sys

import click

import mlx_stack
from mlx_stack import gateway
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import Context, json_option, list_by_default, with_context
from mlx_stack.cli.frame.options import completer
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.errors import UsageError

_complete_keys = completer(lambda _opened: mlx_stack.config.CONFIG_KEYS)


@click.group("config", cls=OrderedGroup, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, json: bool) -> None:
    """Show and change the configuration; without a COMMAND, list it.

    It is kept in config.yaml in the state folder, readable by its owner only.
    """
    list_by_default(ctx, json=json)


@command.command("set")
@click.argument("key", shell_complete=_complete_keys)
@click.argument("value")
@with_context()
def set_command(context: Context, key: str, value: str) -> None:
    """Set KEY to VALUE.

    `-` reads it from standard input, which keeps a secret out of the shell's history.
    """
    text = sys.stdin.readline().rstrip("\r\n") if value == "-" else value
    setting = mlx_stack.config.set_value(context.home, key, text)
    gateway.events.note_event(context.home, "config", detail=key)
    shown = setting.shown or "empty"
    context.output.show(setting, lambda output, _: output.say(f"{key} is now {shown}."))


@command.command("get")
@click.argument("key", shell_complete=_complete_keys)
@with_context()
def get_command(context: Context, key: str) -> None:
    """Print the value of KEY; a secret is masked."""
    setting = mlx_stack.config.get_setting(context.home, key)
    context.output.show(setting, lambda output, _: output.text(setting.shown))


@command.command("list")
@with_context()
def list_command(context: Context) -> None:
    """Show every key with its value, its default, and its source."""
    context.output.show(mlx_stack.config.list_settings(context.home), _show_list)


def _show_list(output: Output, listed: "mlx_stack.config.Settings") -> None:
    columns = [Column("Key"), Column("Value", folds=True), Column("Default", folds=True)]
    output.table([*columns, Column("Source")], [_row(each) for each in listed.settings])


def _row(setting: "mlx_stack.config.Setting") -> list[Span]:
    value = setting.shown
    return [
        setting.definition.name,
        (value, "bold") if setting.source == "file" else value,
        setting.definition.mask(setting.default),
        setting.source,
    ]


@command.command("reset")
@click.argument("key", required=False, shell_complete=_complete_keys)
@click.option("--yes", is_flag=True, help="Reset everything without asking.")
@with_context()
def reset_command(context: Context, key: str | None, *, yes: bool) -> None:
    """Reset KEY, or the whole configuration, to the default."""
    if key is None and not yes:
        if not context.may_ask:
            raise UsageError("Resetting every key has to be confirmed.", hint="Add --yes.")
        click.confirm("Reset every key to its default?", abort=True, err=True)
    reset = mlx_stack.config.reset(context.home, key)
    gateway.events.note_event(context.home, "config", detail=key or "all")
    words = "Every key is reset to its default."
    if key is not None:
        words = f"{key} {'is reset to' if reset.keys else 'already has'} its default."
    context.output.show(reset, lambda output, _: output.say(words))
