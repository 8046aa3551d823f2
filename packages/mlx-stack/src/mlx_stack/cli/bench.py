"""`mlx-stack bench`."""

import os
from pathlib import Path
from typing import override

import click
from click.core import ParameterSource

import mlx_bench
from mlx_bench import Cache
from mlx_stack import bench, exit_codes
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import complete_tiers
from mlx_stack.cli.views.planning import show_agents, show_benchmark, show_check

_POSITIVE = click.IntRange(min=1)
_AGENTS = mlx_bench.AgentParameters()
_OF_SINGLE_REQUESTS = ("iterations", "prompt_tokens", "concurrency", "cache", "precision", "html")
_OF_AGENTS = ("turns", "prefix_tokens")


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
@click.option(
    "--agents",
    type=_POSITIVE,
    metavar="N",
    help="Measure N agents at once: conversations that grow by tool results.",
)
@click.option(
    "--turns",
    type=_POSITIVE,
    default=_AGENTS.turns,
    show_default=True,
    metavar="N",
    help="Requests of each agent.",
)
@click.option(
    "--prefix-tokens",
    type=_POSITIVE,
    default=_AGENTS.prefix_tokens,
    show_default=True,
    metavar="N",
    help="An agent's system prompt and tools.",
)
@click.option("--save", "is_saved", is_flag=True, help="Keep the result for `recommend`.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report."
)
@click.option(
    "--check",
    "is_check",
    is_flag=True,
    help="Measure nothing: is it fit for agents? Tools, JSON, thinking, the same answers.",
)
@click.option("--model", help="Model name, if TARGET is a URL.")
@click.option("--api-key-env", metavar="NAME", help="The variable that holds a URL's key.")
@with_context()
@examples(
    "mlx-stack bench standard",
    "mlx-stack bench standard --agents 4",
    "mlx-stack bench standard --check",
    "mlx-stack bench http://127.0.0.1:1234/v1 --model qwen3-8b",
)
def command(
    context: Context,
    target: str,
    iterations: int,
    prompt_tokens: tuple[int, ...],
    generation_tokens: int,
    concurrency: tuple[int, ...],
    cache: str,
    precision: float | None,
    agents: int | None,
    turns: int,
    prefix_tokens: int,
    html: Path | None,
    model: str | None,
    api_key_env: str | None,
    *,
    is_saved: bool,
    is_check: bool,
) -> int:
    """Measure TARGET: a tier, a model on this disk, or an http://…/v1.

    A model that isn't a tier is served for the run only. Every prompt is new, so that no prefix
    cache answers; TTFT starts when the request has left and ends at the first token.

    With --check, a tier is asked as agents ask it, through the gateway, in the APIs of OpenAI and
    Anthropic. The result is kept, and shown by `status`. Exits with 1 if it isn't fit for agents.
    """
    _refuse_mixture(are_agents=agents is not None, is_check=is_check)
    if is_check:
        return _check(context, target, model, api_key_env)
    if agents is not None:
        asked = mlx_bench.AgentParameters(
            agents=agents,
            turns=turns,
            prefix_tokens=prefix_tokens,
            generation_tokens=generation_tokens,
        )
        _bench_agents(context, target, asked, model, _key_from(api_key_env), is_saved=is_saved)
        return exit_codes.DONE
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
    return exit_codes.DONE


def _check(context: Context, target: str, model: str | None, api_key_env: str | None) -> int:
    output = context.output
    with output.waiting("Checking") as show:
        result = bench.check.check(
            context.opened,
            target,
            model=model,
            api_key=_key_from(api_key_env),
            on_progress=show,
        )
    output.show(result, show_check)
    if result.saved is not None:
        output.say(f"Saved: {result.saved}")
    return exit_codes.DONE if result.report.is_ready else exit_codes.FAILED


def _refuse_mixture(*, are_agents: bool, is_check: bool) -> None:
    """Refuse options of the other kinds of benchmark: they would do nothing."""
    click_context = click.get_current_context()
    problem, names = "goes with --agents only", _OF_AGENTS
    if is_check:
        problem = "doesn't go with --check"
        names = (*_OF_AGENTS, *_OF_SINGLE_REQUESTS, "agents", "generation_tokens")
    elif are_agents:
        problem, names = "doesn't go with --agents", _OF_SINGLE_REQUESTS
    for name in names:
        if click_context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} {problem}.")


def _bench_agents(
    context: Context,
    target: str,
    parameters: mlx_bench.AgentParameters,
    model: str | None,
    api_key: str | None,
    *,
    is_saved: bool,
) -> None:
    output = context.output
    with output.waiting("Measuring agents") as show:
        result = bench.measure.bench_agents(
            context.opened,
            target,
            parameters,
            model=model,
            api_key=api_key,
            is_saved=is_saved,
            on_progress=show,
        )
    output.show(result, show_agents)
    if result.saved is not None:
        output.say(f"Saved: {result.saved}")


def _key_from(name: str | None) -> str | None:
    """The key that an environment variable holds, or None where none is named."""
    if name is None:
        return None
    key = os.environ.get(name)
    if not key:
        raise click.UsageError(f"The environment variable {name} is not set.")
    return key
