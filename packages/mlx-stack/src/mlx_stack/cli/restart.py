"""`mlx-stack restart`."""

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import (
    json_option,
    open_context,
    quiet_option,
    tier_option,
    timeout_option,
)


@click.command("restart")
@tier_option("Restart only this tier.")
@timeout_option
@json_option
@quiet_option
def command(tier: str | None, timeout_s: float, *, json: bool, quiet: bool) -> int:
    """Stop the services and start them again, under one lock."""
    from mlx_stack.cli.views.services import show_outcome
    from mlx_stack.services.outcomes import ServiceOutcome, is_success, to_document
    from mlx_stack.services.restart import restart

    context = open_context(json=json, quiet=quiet)
    output = context.output

    def show(outcome: ServiceOutcome) -> None:
        if not output.json:
            show_outcome(output, outcome)

    with output.waiting("Restarting"):
        done = restart(context.home, tier=tier, timeout_s=timeout_s, on_outcome=show)
    if output.json:
        stopped = to_document(done.stopped)["services"]
        output.document({**to_document(done.started), "stopped": stopped})
    return exit_codes.DONE if is_success(done.started) else exit_codes.FAILED
