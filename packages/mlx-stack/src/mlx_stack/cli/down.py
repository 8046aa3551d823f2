"""`mlx-stack down`."""

import click

from mlx_stack import exit_codes, services
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import tier_option
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.services import show_outcome


@click.command("down")
@tier_option("Stop only this tier.")
@with_context()
def command(context: Context, tier: str | None) -> int:
    """Stop the services: the gateway first, then the tiers.

    What was stopped stays stopped until the next `up`; the watchdog goes on watching.
    """
    output = context.output
    with output.waiting("Stopping"):
        outcomes = services.down.down(
            context.opened,
            tier=tier,
            on_outcome=lambda outcome: show_outcome(output, outcome),
        )
    output.show(outcomes, _show)
    return exit_codes.DONE if outcomes.is_success else exit_codes.FAILED


def _show(output: Output, outcomes: "services.outcomes.Outcomes") -> None:
    if not outcomes.services:
        output.say("Nothing is running.")
