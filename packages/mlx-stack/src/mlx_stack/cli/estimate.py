"""`mlx-stack estimate`."""

from typing import TYPE_CHECKING

import click

from mlx_catalog import Quant
from mlx_stack.cli.frame.completion import complete_models
from mlx_stack.cli.frame.context import json_option, open_context
from mlx_stack.cli.options.planning import hardware_option, workload_options

if TYPE_CHECKING:
    from mlx_stack.cli.frame.output import Output
    from mlx_stack.planning.estimate import ModelEstimate


@click.command("estimate")
@click.argument("model", shell_complete=complete_models)
@hardware_option
@click.option(
    "--quant", type=click.Choice(Quant, case_sensitive=False), help="The precision of the weights."
)
@workload_options("Tokens of context, for memory and for speed.")
@click.option("--no-measured", is_flag=True, help="Ignore saved and published figures.")
@json_option
def command(
    model: str,
    hardware_spec: str | None,
    quant: Quant | None,
    context_tokens: int | None,
    concurrency: int,
    *,
    no_measured: bool,
    json: bool,
) -> None:
    """Will MODEL run, in how much memory, how fast?

    MODEL is a catalog id, a Hub repository, a model folder or a config.json. Without --context,
    memory is for 8,192 tokens and speed for a prompt of 1,024, as `bench` measures it.
    """
    from mlx_recommend import Workload
    from mlx_stack.planning.estimate import estimate_model

    workload = Workload(concurrency=concurrency)
    if context_tokens is not None:
        workload = Workload(
            context_tokens=context_tokens, concurrency=concurrency, speed_context_tokens=None
        )
    context = open_context(json=json)
    found = estimate_model(
        context.home,
        model,
        hardware_spec=hardware_spec,
        quant=quant,
        workload=workload,
        use_measured=not no_measured,
    )
    if json:
        context.output.document(_document(found))
    else:
        _show(context.output, found)


def _document(found: "ModelEstimate") -> dict[str, object]:
    from mlx_stack.cli.views.estimates import estimate_fields, unknown_memory_fields

    limit_bytes = found.hardware.gpu_memory_limit_bytes or found.hardware.memory_bytes
    if found.estimate is not None:
        fields = estimate_fields(found.estimate)
    else:
        names = ("fits", "max_context_tokens", "read_bytes_per_token")
        names = (*names, "generation_tps", "prompt_tps", "ttft_s")
        fields = {**dict.fromkeys(names), "memory": unknown_memory_fields(limit_bytes)}
    return {
        "model": found.model.name,
        "quant": found.model.quant,
        "note": found.model.note or None,
        "context_tokens": found.workload.context_tokens,
        "concurrency": found.workload.concurrency,
        "speed_context_tokens": found.workload.tokens_in_speed,
        "hardware": found.hardware.to_json(),
        **fields,
    }


def _show(output: "Output", found: "ModelEstimate") -> None:
    from mlx_stack.cli.views.format import describe_hardware

    where = describe_hardware(found.hardware.to_json())
    precision = found.model.quant or "an unknown precision"
    output.answer(f"[bold]{found.model.name}[/bold] at {precision} on {where}")
    if found.model.note:
        output.answer(f"[yellow]{found.model.note}[/yellow]")
    if found.estimate is None:
        output.answer("Nothing can be estimated.")
        return
    output.answer(_verdict(found))
    rows = _rows(found)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        output.answer(f"  [dim]{name:<{width}}[/dim]  {value}")


def _verdict(found: "ModelEstimate") -> str:
    from mlx_stack.cli.views.estimates import short_bytes
    from mlx_stack.cli.views.format import format_machine_bytes

    expected = found.estimate
    assert expected is not None
    if expected.fits is None or expected.limit_bytes is None:
        return "[yellow]Whether it fits can't be known.[/yellow]"
    total = short_bytes(expected.memory.total_bytes)
    limit = format_machine_bytes(expected.limit_bytes)
    if expected.fits:
        return f"[green]It fits:[/green] {total} of the {limit} that the GPU may use."
    return f"[red]It doesn't fit:[/red] it takes {total}, and the GPU may use {limit}."


def _rows(found: "ModelEstimate") -> list[tuple[str, str]]:
    from mlx_stack.cli.views.estimates import long_speed, short_bytes

    expected = found.estimate
    assert expected is not None
    memory, work = expected.memory, found.workload
    requests = "1 request" if work.concurrency == 1 else f"{work.concurrency} requests"
    rows = [
        ("Weights", short_bytes(memory.weights_bytes)),
        (
            "KV cache",
            f"{short_bytes(memory.kv_cache_bytes)} for {work.context_tokens:,} tokens, {requests}",
        ),
        ("Prefix cache", short_bytes(memory.prefix_cache_bytes)),
        ("Recurrent state", short_bytes(memory.state_bytes)),
        ("Engine", short_bytes(memory.overhead_bytes)),
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
