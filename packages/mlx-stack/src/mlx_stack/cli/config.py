"""`mlx-stack config`."""

import sys
from typing import TYPE_CHECKING

import click

from mlx_stack.cli.frame.completion import complete_keys
from mlx_stack.cli.frame.context import (
    hand_down_json,
    json_option,
    open_context,
    quiet_option,
)
from mlx_stack.cli.frame.suggest import SuggestingGroup
from mlx_stack.errors import UsageError

if TYPE_CHECKING:
    from mlx_stack.config import ConfigValue
    from mlx_stack.configure import Setting


@click.group("config", cls=SuggestingGroup, invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, *, json: bool) -> None:
    """Show and change the configuration; without a COMMAND, list it.

    It is kept in config.yaml in the state folder, readable by its owner only.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_command, json=json)
    hand_down_json(ctx, json=json)


@command.command("set")
@click.argument("key", shell_complete=complete_keys)
@click.argument("value")
@json_option
@quiet_option
def set_command(key: str, value: str, *, json: bool, quiet: bool) -> None:
    """Give KEY a VALUE.

    `-` reads it from standard input, which keeps a secret out of the shell's history.
    """
    from mlx_stack.configure import set_value

    context = open_context(json=json, quiet=quiet)
    text = sys.stdin.readline().rstrip("\r\n") if value == "-" else value
    setting = set_value(context.home, key, text)
    if json:
        context.output.document(_fields(setting))
    else:
        context.output.say(f"{key} is now {_shown(setting, setting.value) or 'empty'}.")


@command.command("get")
@click.argument("key", shell_complete=complete_keys)
@json_option
def get_command(key: str, *, json: bool) -> None:
    """Print the value of KEY; a secret is masked."""
    from mlx_stack.configure import get_setting

    context = open_context(json=json)
    setting = get_setting(context.home, key)
    if json:
        context.output.document(_fields(setting))
    else:
        context.output.text(_shown(setting, setting.value))


@command.command("list")
@json_option
def list_command(*, json: bool) -> None:
    """Show every key with its value, its default, and its source."""
    from mlx_stack.configure import list_settings

    context = open_context(json=json)
    settings = list_settings(context.home)
    if json:
        context.output.document({"config": [_fields(setting) for setting in settings]})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name in ("Key", "Value", "Default", "Source"):
        table.add_column(name, no_wrap=name == "Key", overflow="fold")
    for setting in settings:
        is_set = setting.source == "file"
        table.add_row(
            setting.definition.name,
            f"[bold]{_shown(setting, setting.value)}[/bold]"
            if is_set
            else _shown(setting, setting.value),
            _shown(setting, setting.default),
            setting.source,
        )
    context.output.answer(table)


@command.command("reset")
@click.argument("key", required=False, shell_complete=complete_keys)
@click.option("--yes", is_flag=True, help="Reset everything without asking.")
@json_option
@quiet_option
def reset_command(key: str | None, *, yes: bool, json: bool, quiet: bool) -> None:
    """Return KEY, or the whole configuration, to the defaults."""
    from mlx_stack.configure import reset

    context = open_context(json=json, quiet=quiet)
    if key is None and not yes:
        if json or not sys.stdin.isatty():
            raise UsageError("Resetting every key has to be confirmed.", hint="Add --yes.")
        click.confirm("Return every key to its default?", abort=True, err=True)
    changed = reset(context.home, key)
    if json:
        context.output.document({"reset": list(changed)})
    elif key is None:
        context.output.say("Every key has its default.")
    else:
        context.output.say(f"{key} has its default{'' if changed else ' already'}.")


def _shown(setting: "Setting", value: "ConfigValue") -> str:
    from mlx_stack.config import mask_value

    return mask_value(setting.definition.name, value)


def _fields(setting: "Setting") -> dict[str, object]:
    def plain(value: "ConfigValue") -> object:
        kept = isinstance(value, bool | int)
        return value if kept else _shown(setting, value)

    definition = setting.definition
    return {
        "key": definition.name,
        "value": plain(setting.value),
        "default": plain(setting.default),
        "source": setting.source,
        # an enum of words is a string to whoever writes the file
        "type": {"Path": "path", "int": "int", "bool": "bool"}.get(
            definition.type.__name__, "string"
        ),
        "valid": definition.valid,
        "description": definition.description,
    }
