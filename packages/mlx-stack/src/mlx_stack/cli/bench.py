"""`mlx-stack bench`."""

import os
from pathlib import Path
from typing import override

import click
from click.core import ParameterSource

import mlx_bench
from mlx_bench import Cache
from mlx_bench.roles.known import WORKLOADS
from mlx_stack import bench, exit_codes
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import complete_tiers
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.planning import (
    show_agents,
    show_benchmark,
    show_check,
    show_role,
    show_tuning,
)

_POSITIVE = click.IntRange(min=1)
_AGENTS = mlx_bench.AgentParameters()
_OF_SINGLE_REQUESTS = ("iterations", "prompt_tokens", "concurrency", "cache", "precision", "html")
_OF_CHAT = (
    *("prompt_tokens", "generation_tokens", "cache", "html", "agents", "turns", "prefix_tokens"),
    *("is_check", "is_tune", "applies", "is_dry", "minutes"),
)
_OF_ROLES = ("items", "sizes")
_ROLES = ("chat", *WORKLOADS)
_OF_AGENTS = ("turns", "prefix_tokens")
_OF_TUNING = ("applies", "is_dry", "minutes")
_GIVEN = ParameterSource.COMMANDLINE


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
    "--concurrency",
    type=Integers(),
    default="1",
    show_default=True,
    help="Number of concurrent streams.",
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
    help="Measure N concurrent agents: conversations that grow with tool results.",
)
@click.option(
    "--turns",
    type=_POSITIVE,
    default=_AGENTS.turns,
    show_default=True,
    metavar="N",
    help="Requests per agent.",
)
@click.option(
    "--prefix-tokens",
    type=_POSITIVE,
    default=_AGENTS.prefix_tokens,
    show_default=True,
    metavar="N",
    help="Length of an agent's system prompt and tools.",
)
@click.option("--save", "is_saved", is_flag=True, help="Keep the result for `recommend`.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False), help="Write an HTML report."
)
@click.option(
    "--check",
    "is_check",
    is_flag=True,
    help="Check whether TARGET is fit for agents: tools, JSON, thinking, …; no measurements.",
)
@click.option(
    "--tune",
    "is_tune",
    is_flag=True,
    help="Find the engine settings that make a tier measurably faster.",
)
@click.option("--apply", "applies", is_flag=True, help="Write the winning settings into the stack.")
@click.option(
    "--dry-run",
    "is_dry",
    is_flag=True,
    help="Show the settings that --tune would try or --apply would write.",
)
@click.option(
    "--minutes",
    type=_POSITIVE,
    default=60,
    show_default=True,
    metavar="N",
    help="Stop --tune after N minutes, at the end of a trial; run it again to continue.",
)
@click.option(
    "--role",
    type=click.Choice(_ROLES),
    help="The role to measure, for a URL or if it differs from the tier's, e.g. chat.",
)
@click.option(
    "--items",
    type=Integers(),
    help="Texts, documents or images per request, for roles other than chat; 1 for audio.",
)
@click.option(
    "--sizes",
    type=Integers(),
    help="Tokens per text, pixels per side of an image, seconds of audio, or words to speak.",
)
@click.option("--model", help="Model name, if TARGET is a URL.")
@click.option(
    "--api-key-env",
    metavar="NAME",
    help="The environment variable that contains the key for a URL.",
)
@with_context()
@examples(
    "mlx-stack bench standard",
    "mlx-stack bench standard --agents 4",
    "mlx-stack bench standard --check",
    "mlx-stack bench standard --tune",
    "mlx-stack bench embedder --items 1,64 --sizes 128",
    "mlx-stack bench whisper --sizes 30,600",
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
    role: str | None,
    items: tuple[int, ...] | None,
    sizes: tuple[int, ...] | None,
    model: str | None,
    api_key_env: str | None,
    *,
    is_saved: bool,
    is_check: bool,
    is_tune: bool,
    applies: bool,
    is_dry: bool,
    minutes: int,
) -> int:
    """Measure TARGET: a tier, a model on this disk, or an http://…/v1.

    A model that isn't a tier is only served for the run. Every prompt is new, so that a prefix
    cache can't speed it up. TTFT is the time from sending the request to the first token.

    For an embedding, rerank or vision tier, bench measures texts, pairs or images per second, at
    several numbers and sizes. For a speech tier, it measures the real-time factor, which is seconds
    of audio per second of processing.

    With --check, bench tests whether a tier is fit for agents. It sends requests like theirs
    through the gateway, in the APIs of OpenAI and Anthropic. `status` shows the result. Exits with
    1 if the tier isn't fit.

    With --tune, bench tries the engine's settings one at a time in a separate engine, then the
    winners together. Nothing is changed without --apply. If it is interrupted, the next run
    continues. Don't use the Mac meanwhile, because other work adds noise.
    """
    measured = bench.target.role_to_measure(context.opened, target, role)
    if measured != "chat":
        chats = ": add --role chat" if measured.chats else ""
        _refuse(f"is for chat, but this is measured as {measured}{chats}", _OF_CHAT)
        with context.output.waiting("Measuring") as show:
            found = bench.measure.bench_role(
                context.opened,
                target,
                measured,
                items=items,
                sizes=sizes,
                iterations=iterations,
                concurrency=concurrency,
                precision=precision,
                model=model,
                api_key=_key_from(api_key_env),
                is_saved=is_saved,
                on_progress=show,
            )
        context.output.show(found, show_role)
        _say_path(context.output, "Saved", found.saved)
        return exit_codes.DONE
    _refuse("is for models that don't chat", _OF_ROLES)
    _refuse_mixture(are_agents=agents is not None, is_check=is_check, is_tune=is_tune)
    if is_check:
        return _check(context, target, model, api_key_env)
    if is_tune:
        if len(prompt_tokens) > 1:
            raise click.UsageError("--tune measures one prompt length: give one --prompt-tokens.")
        asked_once = mlx_bench.Parameters(
            iterations=iterations, prompt_tokens=prompt_tokens, generation_tokens=generation_tokens
        )
        _tune(context, target, asked_once, minutes, applies=applies, is_dry=is_dry)
        return exit_codes.DONE
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
        _say_path(output, what, path)
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
    _say_path(output, "Saved", result.saved)
    return exit_codes.DONE if result.report.is_ready else exit_codes.FAILED


def _tune(
    context: Context,
    target: str,
    parameters: mlx_bench.Parameters,
    minutes: int,
    *,
    applies: bool,
    is_dry: bool,
) -> None:
    output = context.output
    with output.waiting("Tuning") as show:
        result = bench.tune.tune(
            context.opened,
            target,
            parameters,
            seconds=minutes * 60,
            applies=applies,
            is_dry=is_dry,
            on_progress=show,
        )
    output.show(result, show_tuning)
    _say_path(output, "Saved", result.saved)


def _refuse_mixture(*, are_agents: bool, is_check: bool, is_tune: bool) -> None:
    """Refuse options of the other kinds of benchmark: they would do nothing."""
    if not is_tune:
        _refuse("goes with --tune only", _OF_TUNING)
    if is_check:
        of_others = (*_OF_AGENTS, *_OF_SINGLE_REQUESTS, "agents", "generation_tokens", "is_tune")
        _refuse("doesn't go with --check", of_others)
    elif is_tune:
        of_others = ("concurrency", "cache", "precision", "html", "is_saved", "agents", "model")
        _refuse("doesn't go with --tune", (*_OF_AGENTS, *of_others))
    elif are_agents:
        _refuse("doesn't go with --agents", _OF_SINGLE_REQUESTS)
    else:
        _refuse("goes with --agents only", _OF_AGENTS)


def _refuse(problem: str, names: tuple[str, ...]) -> None:
    click_context = click.get_current_context()
    for parameter in click_context.command.params:
        name = parameter.name or ""
        if name in names and click_context.get_parameter_source(name) is _GIVEN:
            raise click.UsageError(f"{parameter.opts[0]} {problem}.")


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
    _say_path(output, "Saved", result.saved)


def _say_path(output: Output, what: str, path: Path | str | None) -> None:
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
