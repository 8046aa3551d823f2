"""What a command starts from: where state lives, where its answer goes, and how it ends."""

import functools
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import click

import mlx_stack
from mlx_stack import exit_codes
from mlx_stack.cli.frame.output import Output
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
        return json_option(json_lines_option(decorated) if json_lines else decorated)

    return decorate


def json_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--json`: the answer is one JSON document."""
    return click.option("--json", is_flag=True, help="Print one JSON document.")(function)


def list_by_default(group: click.Context, *, json: bool) -> None:
    """Run the `list` of a group without a sub-command.

    A `--json` that stands before the sub-command counts as if it stood behind it.
    """
    assert isinstance(group.command, click.Group)
    names = group.command.list_commands(group)
    group.default_map = {name: {"json": json} for name in names}
    if group.invoked_subcommand is None:
        group.invoke(group.command.commands["list"], json=json)


def confirm_or_stop(question: str) -> None:
    """Ask whether to go on, with yes as the default.

    Raises:
        StackError: When the answer is no.
    """
    if not click.confirm(question, default=True, err=True):
        raise StackError("Cancelled; nothing was changed.")


@contextmanager
def until_interrupted() -> Generator[None]:
    """Take Ctrl-C and SIGTERM for the ordinary end: the exit code alone says so, with no error."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(exit_codes.INTERRUPTED) from None
    except Interrupted:
        raise click.exceptions.Exit(exit_codes.TERMINATED) from None
