"""`mlx-stack estimate`."""

import click

import mlx_recommend
from mlx_catalog import Quant
from mlx_stack import planning
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import (
    complete_models,
    concurrency_option,
    context_option,
    hardware_option,
)
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.planning import long_speed
from mlx_stack.format import describe_hardware, format_bytes, format_machine_bytes


@click.command("estimate")
@click.argument("model", shell_complete=complete_models)
@hardware_option
@click.option(
    "--quant", type=click.Choice(Quant, case_sensitive=False), help="The precision of the weights."
)
@context_option("Tokens of context, for memory and for speed.")
@concurrency_option
@click.option("--no-measured", is_flag=True, help="Ignore saved and published figures.")
@with_context()
def command(
    context: Context,
    model: str,
    hardware_spec: str | None,
    quant: Quant | None,
    context_tokens: int | None,
    concurrency: int,
    *,
    no_measured: bool,
) -> None:
    """Will MODEL run, in how much memory, how fast?

    MODEL is a catalog id, a Hub repository, a model folder or a config.json. Without --context,
    memory is for 8,192 tokens and speed for a prompt of 1,024, as `bench` measures it.
    """
    workload = mlx_recommend.Workload(concurrency=concurrency)
    if context_tokens is not None:
        workload = mlx_recommend.Workload(
            context_tokens=context_tokens, concurrency=concurrency, speed_context_tokens=None
        )
    found = planning.estimate.estimate_model(
        context.opened,
        model,
        hardware_spec=hardware_spec,
        quant=quant,
        workload=workload,
        use_measured=not no_measured,
    )
    context.output.show(found, _show)


def _show(output: Output, found: "planning.estimate.ModelEstimate") -> None:
    precision = found.model.quant or "an unknown precision"
    where = describe_hardware(found.hardware.to_document())
    output.answer((found.model.name, "bold"), f" at {precision} on {where}")
    if found.model.note:
        output.answer(found.model.note, style="yellow")
    expected = found.estimate
    if expected is None:
        output.answer("Nothing can be estimated.")
        return
    _show_verdict(output, expected)
    rows = _rows(expected)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        output.answer((f"  {name:<{width}}", "dim"), f"  {value}")


def _show_verdict(output: Output, expected: mlx_recommend.Estimate) -> None:
    if expected.fits is None or expected.limit_bytes is None:
        output.answer("Whether it fits can't be known.", style="yellow")
        return
    total = format_bytes(expected.memory.total_bytes)
    limit = format_machine_bytes(expected.limit_bytes)
    if expected.fits:
        output.answer(("It fits:", "green"), f" {total} of the {limit} that the GPU may use.")
    else:
        output.answer(
            ("It doesn't fit:", "red"), f" it takes {total}, and the GPU may use {limit}."
        )


def _rows(expected: mlx_recommend.Estimate) -> list[tuple[str, str]]:
    memory, work = expected.memory, expected.workload
    requests = "1 request" if work.concurrency == 1 else f"{work.concurrency} requests"
    kv_cache = format_bytes(memory.kv_cache_bytes)
    rows = [
        ("Weights", format_bytes(memory.weights_bytes)),
        ("KV cache", f"{kv_cache} for {work.context_tokens:,} tokens, {requests}"),
        ("Prefix cache", format_bytes(memory.prefix_cache_bytes)),
        ("Recurrent state", format_bytes(memory.state_bytes)),
        ("Engine", format_bytes(memory.overhead_bytes)),
    ]
    rows = [(name, value) for name, value in rows if not value.startswith("0 MB")]
    longest = expected.max_context_tokens
    if longest is not None:
        short = " (less than asked for)" if longest < work.context_tokens else ""
        rows.append(("Longest context", f"{longest:,} tokens{short}"))
    rows.append(("Generation", long_speed(expected.generation_tps)))
    rows.append(("Prompt", long_speed(expected.prompt_tps)))
    if expected.ttft_s is not None:
        after = f"after a prompt of {work.tokens_in_speed:,} tokens"
        rows.append(("First token", f"{expected.ttft_s:.2f} s {after}"))
    return rows
