"""The format of weights, as an option."""

import click

from mlx_catalog import Quant
from mlx_stack.cli.frame.context import Decorator


def _as_quant(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> Quant | None:
    del context, parameter
    return Quant(value) if value is not None else None


def quant_option(explanation: str) -> Decorator:
    """`--quant FORMAT`: a `Quant`, or None."""
    return click.option(
        "--quant",
        # by value: click would take an enum's names, which have no dashes
        type=click.Choice([each.value for each in Quant], case_sensitive=False),
        callback=_as_quant,
        help=explanation,
    )
