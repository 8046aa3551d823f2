"""`mlx-stack bench`."""

from pathlib import Path

import click

from mlx_stack.cli.frame.completion import complete_tiers
from mlx_stack.cli.frame.context import json_option, open_context, quiet_option
from mlx_stack.cli.options.bench import key_from, workload_options


@click.command("bench")
@click.argument("target", shell_complete=complete_tiers)
@workload_options
@click.option("--save", "is_saved", is_flag=True, help="Keep the result for `recommend`.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page.")
@click.option("--model", help="Which model of a URL.")
@click.option("--api-key-env", metavar="NAME", help="The variable that holds a URL's key.")
@json_option
@quiet_option
def command(
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
    json: bool,
    quiet: bool,
) -> None:
    """Measure TARGET: a tier, a model on this disk, or an http://…/v1.

    A model that is no tier is served just for the run. Every prompt is new, so that no prefix
    cache answers; TTFT starts when the request has left and ends at the first token.
    """
    from mlx_bench import Cache, Parameters
    from mlx_stack.bench.measure import bench
    from mlx_stack.cli.views.bench import open_page, open_progress, show_result

    context = open_context(json=json, quiet=quiet)
    parameters = Parameters(
        iterations=iterations,
        prompt_tokens=prompt_tokens,
        generation_tokens=generation_tokens,
        concurrency=concurrency,
        cache=Cache(cache),
        precision=precision,
    )
    with open_progress(context.output) as say:
        result = bench(
            context.opened,
            target,
            parameters,
            model=model,
            api_key=key_from(api_key_env),
            is_saved=is_saved,
            on_report=open_page(html),
            on_progress=say,
        )
    if json:
        context.output.document(result.to_document())
    else:
        show_result(context.output, result)
    for what, path in (("Page", html), ("Saved", result.saved)):
        if path is not None:
            context.output.say(f"{what}: {path}")
