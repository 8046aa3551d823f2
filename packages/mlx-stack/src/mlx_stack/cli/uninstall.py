"""`mlx-stack uninstall`."""

import click

from mlx_stack.cli.frame.context import json_option, open_context, quiet_option


@click.command("uninstall")
@click.option("--system", is_flag=True, help="Only the LaunchDaemon of `install --system`.")
@click.option("--status", "only_status", is_flag=True, help="Tell what there is; remove nothing.")
@json_option
@quiet_option
def command(*, system: bool, only_status: bool, json: bool, quiet: bool) -> None:
    """Take the watchdog away from launchd, however it was installed.

    The services stay as they are: `mlx-stack down` stops them.
    """
    from mlx_stack.autostart.install import uninstall
    from mlx_stack.autostart.mac import this_mac
    from mlx_stack.autostart.status import read_install_status
    from mlx_stack.cli.views.launchd import show_status, step_teller

    context = open_context(json=json, quiet=quiet)
    mac = this_mac()
    if only_status:
        show_status(context.output, read_install_status(context.home, mac), json=json)
        return

    done = uninstall(context.home, mac, system=system, on_step=step_teller(context.output))
    if json:
        context.output.document(done.to_document())
    elif done.removed:
        context.output.answer("Uninstalled: launchd no longer starts the watchdog.")
        context.output.say("The services stay as they are; `mlx-stack down` stops them.")
    else:
        as_what = " as a LaunchDaemon" if system else ""
        context.output.answer(f"The watchdog was not installed{as_what}.")
