"""`mlx-stack uninstall`."""

import click

from mlx_stack import autostart
from mlx_stack.cli.frame.context import Context, with_context
from mlx_stack.cli.frame.output import Output
from mlx_stack.cli.views.launchd import say_root_step, show_status


@click.command("uninstall")
@click.option("--system", is_flag=True, help="Only the LaunchDaemon of `install --system`.")
@click.option("--status", "only_status", is_flag=True, help="Tell what there is; remove nothing.")
@with_context()
def command(context: Context, *, system: bool, only_status: bool) -> None:
    """Take the watchdog away from launchd, however it was installed.

    The services stay as they are: `mlx-stack down` stops them.
    """
    output, mac = context.output, autostart.mac.this_mac()
    if only_status:
        output.show(autostart.status.read_install_status(context.home, mac), show_status)
        return

    def show(output: Output, done: "autostart.install.Uninstalled") -> None:
        if done.removed:
            output.answer("Uninstalled: launchd no longer starts the watchdog.")
            output.say("The services stay as they are; `mlx-stack down` stops them.")
        else:
            as_what = " as a LaunchDaemon" if system else ""
            output.answer(f"The watchdog was not installed{as_what}.")

    done = autostart.install.uninstall(
        context.home, mac, system=system, on_step=say_root_step(output)
    )
    output.show(done, show)
