"""`mlx-stack up`."""

import click

from mlx_stack import exit_codes, gateway, services
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.options import tier_option, timeout_option
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.services import show_outcome


@click.command("up")
@tier_option("Start only this tier.")
@click.option("--dry-run", is_flag=True, help="Print the commands, and start nothing.")
@timeout_option
@with_context()
def command(context: Context, tier: str | None, timeout_s: float, *, dry_run: bool) -> int:
    """Start what is not running, and wait until it is ready.

    The tiers and the gateway start side by side, as memory allows. What runs already stays as it
    is, unless the stack file means another command for it by now.
    """
    output = context.output
    if dry_run:
        plan = services.up.plan_up(context.opened, tier=tier)
        output.show(plan, _show_plan)
        failed = any(each.problem for each in plan.services)
        return exit_codes.FAILED if failed else exit_codes.DONE
    with output.waiting("Starting"):
        outcomes = services.up.up(
            context.opened,
            tier=tier,
            timeout_s=timeout_s,
            on_outcome=lambda outcome: show_outcome(output, outcome),
            on_hold=lambda name: output.say(f"{name} waits until the others have their memory."),
        )
    output.show(outcomes)
    if not outcomes.is_success:
        return exit_codes.FAILED
    _show_endpoint(context)
    return exit_codes.DONE


def _show_endpoint(context: Context) -> None:
    """Where clients go, and who else could."""
    url = gateway.endpoint.gateway_endpoint(context.opened).base_url
    context.output.say(f"\nEndpoint {url}   clients: mlx-stack env, mlx-stack connect")
    host = context.opened.config.gateway_host
    if gateway.endpoint.is_exposed(host):
        context.output.say(
            ("warning:", "yellow"),
            f" the gateway listens on {host}: everybody on the network who has the key can use it, "
            "and without TLS in front of it key and prompts can be read on the way.",
        )


def _show_plan(output: Output, plan: "services.up.Plan") -> None:
    for each in plan.services:
        at = f", port {each.port}" if each.port is not None else ""
        output.say(f"# {each.name}{at}")
        output.text(each.shell_line or f"# {each.problem}")
