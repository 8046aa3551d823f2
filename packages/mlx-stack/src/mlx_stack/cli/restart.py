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
    from mlx_stack.services.outcomes import ServiceOutcome
    from mlx_stack.services.restart import restart

    context = open_context(json=json, quiet=quiet)
    output = context.output

    def show(outcome: ServiceOutcome) -> None:
        if not output.json:
            show_outcome(output, outcome)

    with output.waiting("Restarting"):
        done = restart(context.opened, tier=tier, timeout_s=timeout_s, on_outcome=show)
    if output.json:
        output.document(done.to_document())
    return exit_codes.DONE if done.is_success else exit_codes.FAILED
