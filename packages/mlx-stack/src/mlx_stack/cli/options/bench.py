"""What `bench` is to measure, as options."""

import os
from collections.abc import Callable
from typing import override

import click

_POSITIVE = click.IntRange(min=1)


class Integers(click.ParamType[tuple[int, ...]]):
    """One or more positive integers: `1` or `1,4,8`."""

    name = "N[,N…]"

    @override
    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        try:
            numbers = tuple(int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of integers like 1,4,8", param, ctx)
        if min(numbers) < 1:
            self.fail(f"{value!r}: each must be at least 1", param, ctx)
        return numbers


_OPTIONS = (
    click.option(
        "--iterations",
        type=_POSITIVE,
        default=3,
        show_default=True,
        metavar="N",
        help="How often; six or more for comparisons.",
    ),
    click.option(
        "--prompt-tokens",
        type=Integers(),
        default="1024",
        show_default=True,
        help="Length of the prompt.",
    ),
    click.option(
        "--generation-tokens",
        type=_POSITIVE,
        default=100,
        show_default=True,
        metavar="N",
        help="Length of the answer.",
    ),
    click.option(
        "--concurrency", type=Integers(), default="1", show_default=True, help="Streams at once."
    ),
    click.option(
        "--cache",
        type=click.Choice(["fresh", "primed"]),
        default="fresh",
        show_default=True,
        help="Prompts that were never seen before, or just before.",
    ),
    click.option(
        "--precision",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Go on until the 95 % intervals are this narrow, as 0.02.",
    ),
)


def workload_options(function: Callable[..., object]) -> Callable[..., object]:
    """`--iterations`, `--prompt-tokens`, `--generation-tokens`, `--concurrency` and the like."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def key_from(name: str | None) -> str | None:
    """The key that an environment variable holds, or None where none is named."""
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise click.UsageError(f"The environment variable {name} is not set.")
    return key
