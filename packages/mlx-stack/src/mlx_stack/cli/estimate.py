"""`mlx-stack estimate`."""

import click

import mlx_recommend
from mlx_catalog import Quant
from mlx_stack import planning
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import (
    complete_models,
    concurrency_option,
    context_option,
    several_hardware_option,
)
from mlx_stack.cli.frame.quant_option import quant_option
from mlx_stack.cli.views.group import show_group_estimate
from mlx_stack.cli.views.planning import show_estimate
from mlx_stack.hardware import asked_macs


@click.command("estimate")
@click.argument("model", shell_complete=complete_models)
@several_hardware_option
@quant_option("The precision of the weights.")
@context_option("Context length in tokens, for memory and for speed.")
@concurrency_option
@click.option("--no-measured", is_flag=True, help="Ignore saved and published figures.")
@with_context()
@examples(
    "mlx-stack estimate qwen3-32b --context 32768",
    "mlx-stack estimate llama3.3-70b --hardware m4-max:40:128",
    "mlx-stack estimate glm-4.7 --hardware m4-max:40:128+m2-ultra:76:192",
)
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
    """Estimate whether MODEL fits, how much memory it needs and how fast it runs.

    MODEL is a catalog ID, a Hub repository, a model folder or a config.json. Without --context,
    memory is for 8,192 tokens and speed for a prompt of 1,024, as `bench` measures it.

    Several Macs in --hardware, with + between them, serve the model together.
    """
    workload = mlx_recommend.Workload(concurrency=concurrency)
    if context_tokens is not None:
        workload = mlx_recommend.Workload(
            context_tokens=context_tokens, concurrency=concurrency, speed_context_tokens=None
        )
    macs = asked_macs(context.opened.home, hardware_spec) if hardware_spec is not None else ()
    if len(macs) > 1:
        together = planning.group.estimate_on_group(
            context.opened, model, macs, quant=quant, workload=workload
        )
        context.output.show(together, show_group_estimate)
        return
    found = planning.estimate.estimate_model(
        context.opened,
        model,
        hardware_spec=hardware_spec,
        quant=quant,
        workload=workload,
        use_measured=not no_measured,
    )
    context.output.show(found, show_estimate)
