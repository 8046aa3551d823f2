"""`mlx-stack down`."""

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import json_option, open_context, quiet_option, tier_option


@click.command("down")
@tier_option("Stop only this tier.")
@json_option
@quiet_option
def command(tier: str | None, *, json: bool, quiet: bool) -> int:
    """Stop the services: the gateway first, then the tiers.

    What was stopped stays stopped until the next `up`; the watchdog goes on watching.
    """
    from mlx_stack.cli.views.services import show_outcome
    from mlx_stack.services.down import down
    from mlx_stack.services.outcomes import ServiceOutcome

    context = open_context(json=json, quiet=quiet)
    output = context.output

    def show(outcome: ServiceOutcome) -> None:
        if not output.json:
            show_outcome(output, outcome)

    with output.waiting("Stopping"):
        outcomes = down(context.opened, tier=tier, on_outcome=show)
    if output.json:
        output.document(outcomes.to_document())
    elif not outcomes.services:
        output.say("Nothing is running.")
    return exit_codes.DONE if outcomes.is_success else exit_codes.FAILED
