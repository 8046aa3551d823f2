"""`mlx-stack status`."""

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import (
    Context,
    json_lines_option,
    json_option,
    open_context,
    quiet_option,
)
from mlx_stack.errors import NoStackError, UsageError


@click.command("status")
@click.option("--watch", "watch", is_flag=True, help="Show it again and again, until interrupted.")
@json_option
@json_lines_option
@quiet_option
def command(*, watch: bool, json: bool, json_lines: bool, quiet: bool) -> int:
    """Show the hardware and the state of every service.

    Exits with 0 when every tier and the gateway is healthy, 3 when one is not, and 4 when no stack
    is defined. Nothing is changed.
    """
    if json and watch:
        raise UsageError("--watch writes more than one document.", hint="Use --json-lines.")
    context = open_context(json=json or json_lines, quiet=quiet)
    if not watch and not context.home.stack.exists():  # without importing what reads a stack
        return _report_no_stack(context, NoStackError())
    try:
        if watch:
            from mlx_stack.cli.frame.endless import until_interrupted
            from mlx_stack.cli.views.status_watch import show_again_and_again

            with until_interrupted():
                show_again_and_again(context)
        from mlx_stack.services.status import read_status

        report = read_status(context.opened)
    except NoStackError as error:
        return _report_no_stack(context, error)
    if context.output.json:
        context.output.document(report.to_document())
    else:
        from mlx_stack.cli.views.status import render

        for part in render(report, context.output.width):
            context.output.answer(part)
    return exit_codes.DONE if report.is_healthy else exit_codes.UNHEALTHY


def _report_no_stack(context: Context, error: NoStackError) -> int:
    if context.output.json:
        from mlx_stack.hardware import known_hardware

        problem = {"type": error.type, "message": error.message, "hint": error.hint}
        hardware = known_hardware(context.home).to_json()
        context.output.document(
            {"hardware": hardware, "gateway_url": None, "services": [], "error": problem}
        )
    else:
        context.output.text(error.message)
        context.output.hint(error.hint or "")
    return exit_codes.NO_STACK
