"""`mlx-stack bench`."""

import os
from pathlib import Path
from typing import override

import click

import mlx_bench
from mlx_bench import Cache
from mlx_stack import bench
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import complete_tiers
from mlx_stack.cli.views.planning import show_benchmark

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


@click.command("bench")
@click.argument("target", shell_complete=complete_tiers)
@click.option(
    "--iterations",
    type=_POSITIVE,
    default=3,
    show_default=True,
    metavar="N",
    help="Number of iterations; at least six for comparisons.",
)
@click.option(
    "--prompt-tokens",
    type=Integers(),
    default="1024",
    show_default=True,
    help="Length of the prompt.",
)
@click.option(
    "--generation-tokens",
    type=_POSITIVE,
    default=100,
    show_default=True,
    metavar="N",
    help="Length of the answer.",
)
@click.option(
    "--concurrency", type=Integers(), default="1", show_default=True, help="Streams at once."
)
@click.option(
    "--cache",
    type=click.Choice([cache.value for cache in Cache]),
    default=Cache.FRESH.value,
    show_default=True,
    help="fresh: new prompts; primed: each sent once before.",
)
@click.option(
    "--precision",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    metavar="SHARE",
    help="Continue until the 95 % intervals are this narrow, e.g. 0.02.",
)
@click.option("--save", "is_saved", is_flag=True, help="Keep the result for `recommend`.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report."
)
@click.option("--model", help="Model name, if TARGET is a URL.")
@click.option("--api-key-env", metavar="NAME", help="The variable that holds a URL's key.")
@with_context()
@examples("mlx-stack bench standard", "mlx-stack bench http://127.0.0.1:1234/v1 --model qwen3-8b")
def command(
    context: Context,
    target: str,
    iterations: int,
    prompt_tokens: tuple[int, ...],
    generation_tokens: int,
    concurrency: tuple[int, ...],
    cache: str,
    precision: float | None,
    html: Path | None,
    model: str | None,
    api_key_env: str | None,
    *,
    is_saved: bool,
) -> None:
    """Measure TARGET: a tier, a model on this disk, or an http://…/v1.

    A model that isn't a tier is served for the run only. Every prompt is new, so that no prefix
    cache answers; TTFT starts when the request has left and ends at the first token.
    """
    parameters = mlx_bench.Parameters(
        iterations=iterations,
        prompt_tokens=prompt_tokens,
        generation_tokens=generation_tokens,
        concurrency=concurrency,
        cache=Cache(cache),
        precision=precision,
    )
    output = context.output
    with output.waiting("Measuring") as show:
        result = bench.measure.bench(
            context.opened,
            target,
            parameters,
            model=model,
            api_key=_key_from(api_key_env),
            is_saved=is_saved,
            html=html,
            on_progress=show,
        )
    output.show(result, show_benchmark)
    for what, path in (("Report", html), ("Saved", result.saved)):
        if path is not None:
            output.say(f"{what}: {path}")


def _key_from(name: str | None) -> str | None:
    """The key that an environment variable holds, or None where none is named."""
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise click.UsageError(f"The environment variable {name} is not set.")
    return key
