"""`--add MODEL --as TIER`, as often as wanted: which TIER belongs to which MODEL."""

from typing import TYPE_CHECKING, override

import click

if TYPE_CHECKING:
    from mlx_stack.planning.init import Addition

_KEY = "mlx_stack.additions"


class AdditionsCommand(click.Command):
    """A command whose `--as` belongs to the `--add` before it.

    Click gives repeated options as two lists, in which one left out can't be seen.
    """

    @override
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)  # click takes them away as it reads them
        rest = super().parse_args(ctx, args)
        if not ctx.resilient_parsing:  # the shell completes a line that is not finished
            ctx.meta[_KEY] = pair(given, ctx)
        return rest


def additions(ctx: click.Context) -> "tuple[Addition, ...]":
    """What the command line of `ctx` adds."""
    return ctx.meta[_KEY]


def pair(args: list[str], ctx: click.Context | None = None) -> "tuple[Addition, ...]":
    """The additions in a command line.

    Raises:
        UsageError: An `--as` stands before every `--add`, or two follow one.
    """
    from mlx_stack.planning.init import Addition

    found: list[Addition] = []
    words = iter(args)
    for word in words:
        if word == "--":
            break
        option, has_value, value = word.partition("=")
        if option not in ("--add", "--as"):
            continue
        value = value if has_value else next(words, "")
        if option == "--add":
            found.append(Addition(value))
        elif not found or found[-1].tier is not None:
            raise click.UsageError(f"--as {value} has no --add before it that it could name.", ctx)
        else:
            found[-1] = Addition(found[-1].model, value)
    return tuple(found)
