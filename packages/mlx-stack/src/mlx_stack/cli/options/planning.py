"""Options and words that `recommend`, `estimate`, `init` and `setup` share."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, override

import click

from mlx_stack.cli.frame.context import Decorator
from mlx_stack.errors import StackError

if TYPE_CHECKING:
    from mlx_stack.planning.recommend import Wishes

_SIZE = re.compile(
    r"(?P<number>[0-9]{1,15}(\.[0-9]{1,15})?|\.[0-9]{1,15})\s*(?P<unit>[kmgt]i?b?|b)", re.IGNORECASE
)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}
INTENTS = ("balanced", "agent-fleet")
"""What a stack can be for; the first is the default."""


class MemorySize(click.ParamType[int]):
    """A size such as `30gb` (10^9 bytes) or `28gib` (2^30), as bytes."""

    name = "SIZE"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no size: write it as 30gb or 28gib.", param, ctx)
        unit = match["unit"].lower()
        base = 1024 if "i" in unit else 1000
        size_bytes = round(float(match["number"]) * base ** _POWERS[unit[0]])
        if size_bytes < 1:
            self.fail("a size has to be above 0.", param, ctx)
        return size_bytes


def hardware_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--hardware SPEC`: another machine than this one."""
    return click.option(
        "--hardware",
        "hardware_spec",
        metavar="SPEC",
        help="Another machine: m4-max:40:128 (chip:GPU cores:GB), m4-max-128, or a saved profile.",
    )(function)


def intent_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--intent`: what the stack is for."""
    return click.option(
        "--intent",
        type=click.Choice(INTENTS),
        default=INTENTS[0],
        show_default=True,
        help="One person's chat and code, or programs that call tools all day.",
    )(function)


def budget_pct_option(function: Callable[..., object]) -> Callable[..., object]:
    """`--budget-pct N`: a share of the memory."""
    return click.option(
        "--budget-pct",
        type=click.IntRange(1, 100),
        metavar="PERCENT",
        help="The memory that all tiers share, in percent of the machine's.",
    )(function)


def workload_options(explanation: str) -> Decorator:
    """`--context N` and `--concurrency N`."""

    def add(function: Callable[..., object]) -> Callable[..., object]:
        function = click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            metavar="N",
            help="Requests served side by side.",
        )(function)
        return click.option(
            "--context",
            "context_tokens",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help=explanation,
        )(function)

    return add


def wishes_of(
    *,
    intent: str,
    budget_bytes: int | None,
    budget_pct: int | None,
    context_tokens: int | None,
    concurrency: int,
    hardware_spec: str | None = None,
) -> "Wishes":
    """What the options of a command ask of a recommendation.

    Raises:
        UsageError: Two of them contradict each other.
    """
    from mlx_recommend import Intent
    from mlx_stack.planning.recommend import Wishes

    if budget_bytes is not None and budget_pct is not None:
        raise click.UsageError("--budget and --budget-pct exclude each other.")
    return Wishes(
        intent=Intent(intent),
        budget_bytes=budget_bytes,
        budget_pct=budget_pct,
        context_tokens=context_tokens,
        concurrency=concurrency,
        hardware_spec=hardware_spec,
    )


def confirm_or_stop(question: str) -> None:
    """Ask whether to go on, with yes as the default.

    Raises:
        StackError: The answer is no.
    """
    if not click.confirm(question, default=True, err=True):
        raise StackError("Stopped: nothing was written.")
