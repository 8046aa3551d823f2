"""`mlx-stack config`."""

from functools import partial

import click

import mlx_stack
from mlx_stack import gateway
from mlx_stack.cli.frame import standard_input
from mlx_stack.cli.frame.commands import OrderedGroup
from mlx_stack.cli.frame.context import Context, examples, list_by_default, with_context
from mlx_stack.cli.frame.options import completer
from mlx_stack.cli.frame.output import Column, Output, Span
from mlx_stack.errors import UsageError

_complete_keys = completer(lambda _opened: mlx_stack.config.CONFIG_KEYS)


@click.group("config", cls=OrderedGroup, invoke_without_command=True)
@with_context()
@examples("mlx-stack config list", "mlx-stack config set memory-budget-pct 60")
def command(context: Context) -> None:
    """Show and change the configuration; without a COMMAND, list it.

    It is kept in config.yaml in the state folder, readable by its owner only.
    """
    list_by_default(context)


@command.command("set")
@click.argument("key", shell_complete=_complete_keys)
@click.argument("value")
@with_context()
@examples(
    "mlx-stack config set litellm-port 4100", "mlx-stack config set openrouter-key - < key.txt"
)
def set_command(context: Context, key: str, value: str) -> None:
    """Set KEY to VALUE.

    `-` reads it from standard input, which keeps a secret out of the shell's history.
    """
    text = standard_input.read_line() if value == "-" else value
    setting = mlx_stack.config.set_value(context.home, key, text)
    gateway.events.note_event(context.home, "config", detail=key)
    shown = setting.shown or "empty"
    words = f"{key} is now {shown}. {setting.definition.applied_by}".rstrip()
    context.output.show(setting, lambda output, _: output.say(words))


@command.command("get")
@click.argument("key", shell_complete=_complete_keys)
@with_context()
@examples("mlx-stack config get litellm-port", "mlx-stack config get model-dir --json")
def get_command(context: Context, key: str) -> None:
    """Print the value of KEY; a secret is masked."""
    setting = mlx_stack.config.get_setting(context.home, key)
    context.output.show(setting, lambda output, _: output.text(setting.shown))


@command.command("list")
@click.option("--all", "show_all", is_flag=True, help="Include settings that are rarely needed.")
@with_context()
@examples("mlx-stack config list", "mlx-stack config list --all")
def list_command(context: Context, *, show_all: bool) -> None:
    """Show the settings: values that you have set are bold, the others are the defaults.

    Settings that hardly anyone needs to change are left out, unless you have set them.
    """
    listed = mlx_stack.config.list_settings(context.home)
    context.output.show(listed, partial(_show_list, show_all=show_all))


def _show_list(output: Output, listed: "mlx_stack.config.Settings", *, show_all: bool) -> None:
    shown = [
        each
        for each in listed.settings
        if show_all or each.source == "file" or not each.definition.is_rarely_needed
    ]
    columns = [Column("Key", is_kept=True), Column("Value", folds=True)]
    output.table([*columns, Column("Meaning", folds=True)], [_row(each) for each in shown])
    left_out = len(listed.settings) - len(shown)
    if left_out:
        output.say(f"\n{left_out} more that are rarely needed: `mlx-stack config list --all`.")


def _row(setting: "mlx_stack.config.Setting") -> list[Span]:
    value = setting.shown
    if setting.source == "default":
        return [setting.definition.name, value, setting.definition.description]
    default = setting.definition.mask(setting.default) or "empty"
    about = f"{setting.definition.description} The default is {default}."
    return [setting.definition.name, (value, "bold"), about]


@command.command("reset")
@click.argument("key", required=False, shell_complete=_complete_keys)
@click.option("--yes", "-y", is_flag=True, help="Reset everything without asking.")
@with_context()
@examples("mlx-stack config reset litellm-port", "mlx-stack config reset --yes")
def reset_command(context: Context, key: str | None, *, yes: bool) -> None:
    """Reset KEY, or the whole configuration, to the default."""
    if key is None and not yes:
        if not context.may_ask:
            raise UsageError("Resetting every key has to be confirmed.", hint="Add --yes.")
        click.confirm("Reset every key to its default?", abort=True, err=True)
    reset = mlx_stack.config.reset(context.home, key)
    gateway.events.note_event(context.home, "config", detail=key or "all")
    words = "Every key is reset to its default. `mlx-stack up` applies the changes."
    if key is not None:
        setting = mlx_stack.config.get_setting(context.home, key)
        words = f"{key} already has its default."
        if reset.keys:
            shown = setting.shown or "empty"
            words = f"{key} is reset to {shown}. {setting.definition.applied_by}".rstrip()
    context.output.show(reset, lambda output, _: output.say(words))
