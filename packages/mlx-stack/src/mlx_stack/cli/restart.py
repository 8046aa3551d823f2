"""`mlx-stack restart`."""

import click

from mlx_stack import exit_codes, services
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import tier_option, timeout_option
from mlx_stack.cli.views.services import show_outcome


@click.command("restart")
@tier_option("Restart only this tier.")
@timeout_option
@with_context()
def command(context: Context, tier: str | None, timeout_s: float) -> int:
    """Stop the services and start them again, under one lock."""
    output = context.output
    with output.waiting("Restarting"):
        done = services.restart.restart(
            context.opened,
            tier=tier,
            timeout_s=timeout_s,
            on_outcome=lambda outcome: show_outcome(output, outcome),
        )
    output.show(done)
    return exit_codes.DONE if done.is_success else exit_codes.FAILED
