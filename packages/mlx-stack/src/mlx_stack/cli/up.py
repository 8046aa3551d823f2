"""`mlx-stack up`."""

import click

from mlx_stack import exit_codes
from mlx_stack.cli._context import json_option, open_context, quiet_option, tier_option


@click.command("up")
@tier_option("Start only this tier.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a service may take; longer while its load progresses.",
)
@json_option
@quiet_option
def command(tier: str | None, timeout_s: float, *, json: bool, quiet: bool) -> int:
    """Start what is not running, and wait until it is ready.

    The tiers and the gateway start side by side. What runs already stays as it is, unless the
    stack file means another command for it by now.
    """
    from mlx_stack.cli._services import show_outcome
    from mlx_stack.operations.outcomes import ServiceOutcome, is_success, to_document
    from mlx_stack.operations.up import up

    context = open_context(json=json, quiet=quiet)
    output = context.output

    def show(outcome: ServiceOutcome) -> None:
        if not output.json:
            show_outcome(output, outcome)

    outcomes = up(context.home, tier=tier, timeout_s=timeout_s, on_outcome=show)
    if output.json:
        output.document(to_document(outcomes))
    return exit_codes.DONE if is_success(outcomes) else exit_codes.FAILED
