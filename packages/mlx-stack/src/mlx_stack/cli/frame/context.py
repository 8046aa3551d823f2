"""What a command starts from: where state lives, where its answer goes, and how it ends."""

import functools
import inspect
import shutil
import sys
import textwrap
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import click

import mlx_stack
from mlx_stack import exit_codes
from mlx_stack.cli.frame.output import Output, end_line
from mlx_stack.errors import Interrupted, StackError, UsageError
from mlx_stack.home import Home, find_home

type Decorator = Callable[[Callable[..., object]], Callable[..., object]]


@dataclass(frozen=True)
class Context:
    """Where state lives and where the answer goes."""

    home: Home
    output: Output

    @cached_property
    def opened(self) -> "mlx_stack.open_stack.OpenStack":
        """The state folder, its files read once for the whole command."""
        return mlx_stack.open_stack.OpenStack(self.home)

    @property
    def may_ask(self) -> bool:
        """Whether a person is there to answer a question."""
        return sys.stdin.isatty() and not self.output.is_for_programs


def with_context(*, json_lines: bool = False) -> Decorator:
    """Give a command its `Context`, and the options that say where its answer goes.

    Args:
        json_lines: Whether it has events to write, one JSON object a line.
    """

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(command)
        def run(*, json: bool, quiet: bool, json_lines: bool = False, **options: object) -> object:
            if json and json_lines:
                raise UsageError("--json and --json-lines can't be combined.")
            output = Output(json=json, json_lines=json_lines, quiet=quiet)
            return command(Context(find_home(), output), **options)

        quiet_option = click.option(
            "--quiet", "-q", is_flag=True, help="Print only results and errors."
        )
        json_lines_option = click.option(
            "--json-lines", is_flag=True, help="Print one JSON object per line."
        )
        decorated = quiet_option(run)
        json_option = click.option("--json", is_flag=True, help="Print one JSON document.")
        return json_option(json_lines_option(decorated) if json_lines else decorated)

    return decorate


def examples(*lines: str) -> Decorator:
    """Close a command's help with `lines`, as a person would type them."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        shown = "\n".join(f"  {line}" for line in lines)
        command.__doc__ = f"{inspect.cleandoc(command.__doc__ or '')}\n\n\b\nExamples:\n{shown}"
        return command

    return decorate


def open_group(context: Context, *, is_used: bool = False) -> bool:
    """Whether the group that runs now has a sub-command, which takes over.

    Its `--json` and `--quiet` count as if they stood behind the sub-command.

    Args:
        is_used: Whether other options stand before the sub-command.

    Raises:
        UsageError: When they do, since they would be lost.
    """
    group = click.get_current_context()
    assert isinstance(group.command, click.Group)
    if group.invoked_subcommand is None:
        return False
    if is_used:
        raise UsageError(
            f"Put the options after `{group.command_path} {group.invoked_subcommand}`."
        )
    before = {"json": context.output.json, "quiet": context.output.quiet}
    group.default_map = dict.fromkeys(group.command.list_commands(group), before)
    return True


def list_by_default(context: Context) -> None:
    """Run the `list` of the group that runs now, if it has no sub-command."""
    group = click.get_current_context()
    assert isinstance(group.command, click.Group)
    if not open_group(context):
        output = context.output
        group.invoke(group.command.commands["list"], json=output.json, quiet=output.quiet)


def wrapped(question: str) -> str:
    """The question, broken between words where the terminal ends, with room for the answer."""
    columns = shutil.get_terminal_size().columns - len(" [y/N]: y")
    return textwrap.fill(question, max(columns, 1), break_long_words=False, break_on_hyphens=False)


def confirm_or_stop(question: str, *, default: bool = True) -> None:
    """Ask whether to go on.

    Raises:
        StackError: When the answer is no.
    """
    if not click.confirm(wrapped(question), default=default, err=True):
        raise StackError("Cancelled; nothing was changed.")


@contextmanager
def until_interrupted() -> Generator[None]:
    """Take Ctrl-C and SIGTERM for the ordinary end: the exit code alone says so, with no error."""
    try:
        yield
    except KeyboardInterrupt:
        end_line()
        raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None
    except Interrupted:
        raise click.exceptions.Exit(exit_codes.TERMINATED) from None
