"""`mlx-stack up`, `restart` and `down`."""

from functools import partial

import click

from mlx_stack import engines, exit_codes, gateway, planning, services
from mlx_stack.cli.frame.context import Context, examples, with_context
from mlx_stack.cli.frame.options import tier_option, timeout_option
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.progress import install_progress
from mlx_stack.cli.views.services import StartingServices, show_event


@click.command("up")
@tier_option("Start only this tier.")
@click.option("--dry-run", is_flag=True, help="Print the commands without starting anything.")
@click.option("--force", is_flag=True, help="Start a model that doesn't fit in memory.")
@timeout_option
@with_context()
@examples("mlx-stack up", "mlx-stack up --tier fast")
def up(context: Context, tier: str | None, timeout_s: float, *, dry_run: bool, force: bool) -> int:
    """Start what is not running, and wait until it is ready.

    The tiers and the gateway start in parallel, as memory allows. Running services are left alone
    unless their command has changed. Lazy tiers and models without a tier start with their next
    request.
    """
    output = context.output
    if dry_run:
        plan = services.up.plan_up(context.opened, tier=tier)
        output.show(plan, _show_plan)
        failed = any(each.problem for each in plan.services)
        return exit_codes.FAILED if failed else exit_codes.DONE
    warning = planning.room.check_stack(context.opened, tier, is_forced=force)
    if warning:
        output.say(("warning: ", "yellow"), warning)
    _install_what_tiers_need(context, tier)
    with output.waiting("Starting"):
        outcomes = services.up.up(
            context.opened,
            tier=tier,
            timeout_s=timeout_s,
            on_event=StartingServices(output).show,
        )
    output.show(outcomes)
    _say_endpoint(context)
    return _say_what_failed(context, outcomes)


def _install_what_tiers_need(context: Context, tier: str | None) -> None:
    """Install engines besides the usual ones that the tiers to start ask for.

    Those that can't be installed fail their own tiers, not the others.
    """
    missing = engines.manage.missing_engines(context.home, tier)
    if not missing:
        return
    try:
        with context.output.waiting("Installing"):
            engines.manage.install_engines(
                context.home,
                engines.uv_process.own_toolchain(),
                only=missing,
                on_event=install_progress(context.output),
            )
    except engines.errors.EngineInstallError as error:
        context.output.say(("warning: ", "yellow"), f"{error.message} {error.hint or ''}".rstrip())


def _say_what_failed(context: Context, outcomes: "services.service.Outcomes") -> int:
    """Name the commands that show why something failed; the exit code."""
    if outcomes.is_success:
        return exit_codes.DONE
    failed = [each.name for each in outcomes.services if each.outcome == "failed"]
    # what never ran has no log, and its error says what to do
    ran = [name for name in failed if context.home.state_dirs.log_file(name).exists()]
    logs = [f"`mlx-stack logs {name}`" for name in ran]
    if logs:
        context.output.say(f"\n{' and '.join(logs)} show{'s' * (len(logs) == 1)} why.")
    return exit_codes.FAILED


def _say_endpoint(context: Context) -> None:
    """Where clients go, if the gateway serves, and who else could."""
    url = gateway.endpoint.running_url(context.home)
    if url is None:
        return
    context.output.say(f"\nEndpoint {url}/v1   clients: mlx-stack env, mlx-stack connect")
    host = context.opened.config.gateway_host
    if gateway.endpoint.is_exposed(host):
        context.output.say(
            ("warning:", "yellow"),
            f" the gateway listens on {host}: anyone on your network with the key can use it; "
            "without TLS, the key and prompts can be intercepted.",
        )


def _show_plan(output: Output, plan: "services.up.DryRun") -> None:
    for each in plan.services:
        at = f", port {each.port}" if each.port is not None else ""
        output.say(f"# {each.name}{at}")
        output.text(each.shell_line or f"# {each.problem}")


@click.command("restart")
@tier_option("Restart only this tier.")
@timeout_option
@with_context()
@examples("mlx-stack restart", "mlx-stack restart --tier fast")
def restart(context: Context, tier: str | None, timeout_s: float) -> int:
    """Stop the services and start them again, under one lock.

    Lazy tiers and models without a tier are stopped, and start with their next request.
    """
    output = context.output
    with output.waiting("Restarting"):
        done = services.restart.restart(
            context.opened,
            tier=tier,
            timeout_s=timeout_s,
            on_event=StartingServices(output).show,
        )
    output.show(done)
    _say_endpoint(context)
    return _say_what_failed(context, done.started)


@click.command("down")
@tier_option("Stop only this tier.")
@with_context()
@examples("mlx-stack down", "mlx-stack down --tier fast")
def down(context: Context, tier: str | None) -> int:
    """Stop the services: the gateway first, then the tiers.

    Stopped services stay stopped until the next `up`; the watchdog keeps running.
    """
    output = context.output
    with output.waiting("Stopping"):
        outcomes = services.down.down(
            context.opened,
            tier=tier,
            on_event=partial(show_event, output),
        )
    output.show(outcomes, _show_stopped)
    return exit_codes.DONE if outcomes.is_success else exit_codes.FAILED


def _show_stopped(output: Output, outcomes: "services.service.Outcomes") -> None:
    if not outcomes.services:
        output.say("Nothing is running.")
