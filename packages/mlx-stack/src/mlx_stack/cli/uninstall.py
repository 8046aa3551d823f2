"""`mlx-stack uninstall`."""

import click

from mlx_stack.cli.frame.context import json_option, open_context, quiet_option


@click.command("uninstall")
@json_option
@quiet_option
def command(*, json: bool, quiet: bool) -> None:
    """Take the watchdog away from launchd, however it was installed.

    The services stay as they are: `mlx-stack down` stops them.
    """
    from mlx_stack.operations.boot.mac import this_mac
    from mlx_stack.operations.boot.uninstall import uninstall

    context = open_context(json=json, quiet=quiet)

    def show_step(step: str) -> None:
        context.output.say(f"[dim]needs root:[/dim] {step}")

    removed = uninstall(context.home, this_mac(), on_step=show_step)
    if json:
        outcome = "uninstalled" if removed else "not-installed"
        context.output.document({"outcome": outcome, "removed": list(removed)})
    elif removed:
        context.output.answer("Uninstalled: launchd starts the watchdog no more.")
        context.output.say("The services stay as they are; `mlx-stack down` stops them.")
    else:
        context.output.answer("The watchdog was not installed.")
