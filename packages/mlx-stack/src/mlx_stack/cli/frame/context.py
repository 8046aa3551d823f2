"""What every command starts from, and the options that most of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import click

from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.cli.frame.completion import complete_tiers
from mlx_stack.cli.frame.output import Output
from mlx_stack.home import Home, find_home

if TYPE_CHECKING:
    from mlx_stack.open_stack import OpenStack

type Decorator = Callable[[Callable[..., object]], Callable[..., object]]


@dataclass(frozen=True)
class Context:
    """Where state lives and where the answer goes."""

    home: Home
    output: Output

    @cached_property
    def opened(self) -> "OpenStack":
        """The state folder, its files read once for the whole command."""
        from mlx_stack.open_stack import OpenStack

        return OpenStack(self.home)


def open_context(*, json: bool = False, quiet: bool = False) -> Context:
    """The context of one command."""
    return Context(find_home(), Output(json=json, quiet=quiet))


def json_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--json`: the answer is one JSON document."""
    return click.option("--json", "json", is_flag=True, help="Answer with one JSON document.")(
        function
    )


def hand_down_json(group: click.Context, *, json: bool) -> None:
    """Let a `--json` that stands before the sub-command count as if it stood behind it."""
    assert isinstance(group.command, click.Group)
    group.default_map = {name: {"json": json} for name in group.command.list_commands(group)}


def quiet_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--quiet`: only the answer and errors."""
    return click.option("--quiet", "-q", is_flag=True, help="Write only the answer and errors.")(
        function
    )


def tier_option(explanation: str) -> Decorator:
    """`--tier T`: one tier instead of all services."""
    return click.option("--tier", metavar="TIER", help=explanation, shell_complete=complete_tiers)


def json_lines_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--json-lines`: one JSON object a line, as things happen."""
    return click.option(
        "--json-lines", "json_lines", is_flag=True, help="Write one JSON object a line."
    )(function)


def timeout_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--timeout S`: how long a start may take."""
    return click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=READY_TIMEOUT_S,
        show_default=True,
        metavar="SECONDS",
        help="How long a service may take; longer while its load progresses.",
    )(function)
