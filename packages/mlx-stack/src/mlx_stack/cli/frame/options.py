"""Options that several commands share, and what the shell offers for them after TAB.

A completion never fails and never talks: where a file is damaged, nothing is offered.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, override

import click

import mlx_stack
from mlx_procsup.defaults import READY_TIMEOUT_S
from mlx_stack.cli.frame.context import Decorator
from mlx_stack.error_table import translate
from mlx_stack.home import find_home

_LONGEST_S = 24 * 3600

type Completer = Callable[[click.Context, click.Parameter, str], list[str]]


def completer(candidates: Callable[["mlx_stack.open_stack.OpenStack"], Iterable[str]]) -> Completer:
    """What completes an argument with those `candidates` that begin as it does."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[str]:
        try:
            opened = mlx_stack.open_stack.OpenStack(find_home())
            return [name for name in candidates(opened) if name.startswith(incomplete)]
        except Exception as error:
            if translate(error) is None:
                raise
            return []

    return complete


complete_tiers = completer(lambda opened: (tier.name for tier in opened.stack.tiers))
complete_models = completer(lambda opened: (entry.id for entry in opened.catalog))


def tier_option(explanation: str) -> Decorator:
    """`--tier T`: one tier instead of all services."""
    return click.option(
        "--tier", "-t", metavar="TIER", help=explanation, shell_complete=complete_tiers
    )


class Seconds(click.FloatRange):
    """A number of seconds, at most a day.

    Args:
        min: The fewest.
        min_open: Whether it must be more than that.
    """

    def __init__(self, min: float, *, min_open: bool = False) -> None:  # noqa: A002 - click's word
        super().__init__(min=min, max=_LONGEST_S, min_open=min_open)

    @override
    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return seconds


timeout_option: Decorator = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(min=0, min_open=True),
    default=READY_TIMEOUT_S,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each service; extended while it is loading.",
)
"""`--timeout S`: how long a start may take."""

hardware_option: Decorator = click.option(
    "--hardware",
    "hardware_spec",
    metavar="SPEC",
    help="Another machine: m4-max:40:128 (chip:GPU cores:GB), m4-max-128, or a saved profile.",
)
"""`--hardware SPEC`: another machine than this one."""

several_hardware_option: Decorator = click.option(
    "--hardware",
    "hardware_spec",
    metavar="SPEC",
    help="Another machine: m4-max:40:128 (chip:GPU cores:GB), m4-max-128, or a saved profile;"
    " use + between several Macs.",
)
"""`--hardware SPEC[+SPEC…]`: other machines than this one."""

concurrency_option: Decorator = click.option(
    "--concurrency",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Number of requests served at the same time.",
)
"""`--concurrency N`."""


def context_option(explanation: str) -> Decorator:
    """`--context N`."""
    return click.option(
        "--context",
        "context_tokens",
        type=click.IntRange(min=1),
        metavar="TOKENS",
        help=explanation,
    )
