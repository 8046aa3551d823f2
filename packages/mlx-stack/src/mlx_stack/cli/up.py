"""`mlx-stack up`."""

import click

from mlx_stack import exit_codes
from mlx_stack.cli.frame.context import (
    Context,
    json_option,
    open_context,
    quiet_option,
    tier_option,
    timeout_option,
)


@click.command("up")
@tier_option("Start only this tier.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and start nothing.")
@timeout_option
@json_option
@quiet_option
def command(tier: str | None, timeout_s: float, *, dry_run: bool, json: bool, quiet: bool) -> int:
    """Start what is not running, and wait until it is ready.

    The tiers and the gateway start side by side, as memory allows. What runs already stays as it
    is, unless the stack file means another command for it by now.
    """
    context = open_context(json=json, quiet=quiet)
    if dry_run:
        return _print_plan(context, tier)
    from mlx_stack.cli.views.services import show_outcome
    from mlx_stack.services.outcomes import ServiceOutcome
    from mlx_stack.services.up import up

    output = context.output

    def show(outcome: ServiceOutcome) -> None:
        if not output.json:
            show_outcome(output, outcome)

    with output.waiting("Starting"):
        outcomes = up(
            context.opened,
            tier=tier,
            timeout_s=timeout_s,
            on_outcome=show,
            on_hold=lambda name: output.say(f"{name} waits until the others have their memory."),
        )
    if output.json:
        output.document(outcomes.to_document())
    if not outcomes.is_success:
        return exit_codes.FAILED
    _tell_endpoint(context)
    return exit_codes.DONE


def _tell_endpoint(context: Context) -> None:
    """Where clients go, and who else could."""
    from mlx_stack.gateway.endpoint import gateway_endpoint, is_exposed

    endpoint = gateway_endpoint(context.opened)
    context.output.say(
        f"\nEndpoint {endpoint.base_url}   clients: mlx-stack env, mlx-stack connect"
    )
    host = context.opened.config.gateway_host
    if is_exposed(host):
        context.output.say(
            f"[yellow]warning:[/yellow] the gateway listens on {host}: everybody on the network "
            "who has the key can use it, and without TLS in front of it key and prompts can be "
            "read on the way."
        )


def _print_plan(context: Context, tier: str | None) -> int:
    from mlx_stack.services.up import plan_up

    plan = plan_up(context.opened, tier=tier)
    if context.output.json:
        context.output.document(plan.to_document())
    else:
        for one in plan.services:
            at = f", port {one.port}" if one.port is not None else ""
            context.output.say(f"# {one.name}{at}")
            context.output.text(one.shell_line or f"# {one.problem}")
    return exit_codes.FAILED if any(one.problem for one in plan.services) else exit_codes.DONE
