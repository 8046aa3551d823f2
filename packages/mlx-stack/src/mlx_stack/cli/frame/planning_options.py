"""What `recommend`, `init` and `setup` plan by, as options."""

import functools
import re
from collections.abc import Callable
from typing import Any, cast, override

import click

from mlx_catalog import ModelRole
from mlx_recommend import READING_TIERS, Intent
from mlx_stack import planning
from mlx_stack.cli.frame.context import Decorator
from mlx_stack.cli.frame.options import concurrency_option, context_option

_LIMITS = ("budget_bytes", "budget_pct", "context_tokens", "concurrency", "roles")
"""The options that are fields of `Constraints`."""
INTENTS = [intent.value for intent in Intent]
_SIZE = re.compile(
    r"(?P<number>[0-9]{1,15}(\.[0-9]{1,15})?|\.[0-9]{1,15})\s*(?P<unit>[kmgt]i?b?|b)", re.IGNORECASE
)
_POWERS = {"b": 0, "k": 1, "m": 2, "g": 3, "t": 4}


class MemorySize(click.ParamType[int]):
    """A size such as `30gb` (10^9 bytes) or `28gib` (2^30), as bytes."""

    name = "SIZE"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        match = _SIZE.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"{value!r} isn't a size: write it as 30gb or 28gib.", param, ctx)
        unit = match["unit"].lower()
        base = 1024 if "i" in unit else 1000
        size_bytes = round(float(match["number"]) * base ** _POWERS[unit[0]])
        if size_bytes < 1:
            self.fail("a size has to be above 0.", param, ctx)
        return size_bytes


class Roles(click.ParamType[tuple[ModelRole, ...]]):
    """Roles beside chat, `embedding,rerank`."""

    name = "ROLES"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[ModelRole, ...]:
        if isinstance(value, tuple):
            return cast("tuple[ModelRole, ...]", value)
        names = [each.strip() for each in str(value).split(",")]
        for each in names:
            if each not in READING_TIERS:
                known = ", ".join(READING_TIERS)
                self.fail(
                    f"{each!r} isn't one of {known}; several have commas between.", param, ctx
                )
        return tuple(dict.fromkeys(ModelRole(each) for each in names))


budget_pct_option: Decorator = click.option(
    "--budget-pct",
    type=click.IntRange(1, 100),
    metavar="PERCENT",
    help="Memory budget for all tiers, in percent of the machine's memory.",
)
"""`--budget-pct N`: a share of the memory."""


def planning_options(budget_help: str, context_help: str) -> Decorator:
    """Give a command the `constraints` that its options put on a plan."""

    def decorate(command: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(command)
        def run(*arguments: object, intent: str, **options: Any) -> object:
            if None not in (options["budget_bytes"], options["budget_pct"]):
                raise click.UsageError("--budget and --budget-pct can't be combined.")
            limits = {name: options.pop(name) for name in _LIMITS}
            constraints = planning.recommend.Constraints(intent=Intent(intent), **limits)
            return command(*arguments, constraints=constraints, **options)

        decorated = budget_pct_option(context_option(context_help)(concurrency_option(run)))
        budget_option = click.option(
            "--budget", "budget_bytes", type=MemorySize(), help=budget_help
        )
        intent_option = click.option(
            "--intent",
            type=click.Choice(INTENTS),
            default=Intent.BALANCED.value,
            show_default=True,
            help="balanced: chat and code for one person; agent-fleet: programs that call tools "
            "all day.",
        )
        with_option = click.option(
            "--with",
            "roles",
            type=Roles(),
            default=(),
            help="Also plan an embedding model, a reranker or both: embedding,rerank.",
        )
        return intent_option(budget_option(with_option(decorated)))

    return decorate
